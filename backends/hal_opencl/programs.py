"""Builds OpenCL programs, and loads those that were built before."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from hal.codegen.dialect import OPENCL
from hal.codegen.kernels.programs import BuildError, Programs
from hal_opencl import pocl

if TYPE_CHECKING:
    from hal_opencl.runtime import OpenCLRuntime

OPTIONS = "-cl-std=CL1.2 -w"
FOR_SIMULATORS = " -cl-opt-disable"  # they follow what the source says, and know not all that optimisers make of it


class OpenCLPrograms(Programs):
    """The programs of one OpenCL device; its kernels are of `cl.Kernel`, to be used under the runtime's lock."""

    def __init__(self, runtime: OpenCLRuntime) -> None:
        device = runtime.device
        self.context, self.device = runtime.context, device
        self.options = OPTIONS + (FOR_SIMULATORS if runtime.is_simulator else "")
        identity = (device.platform.name, device.platform.version, device.name, device.driver_version, self.options)
        self.is_pocl = pocl.is_here(device)
        dialect = pocl.DIALECT if self.is_pocl else OPENCL
        super().__init__(runtime.name, runtime.title, dialect, ("opencl", "cl"), "\n".join(identity))

    def build(self, source: str) -> tuple[Any, bytes | None]:
        import pyopencl as cl

        options = [*self.options.split(), *([pocl.WITHOUT_HEADER] if self.is_pocl else [])]
        with warnings.catch_warnings():  # what a compiler remarks of generated source is no news for the user
            warnings.simplefilter("ignore", cl.CompilerWarning)
            try:
                program = cl.Program(self.context, source).build(options=options, cache_dir=False)  # type: ignore[arg-type]  # as below
            except cl.Error as error:
                raise BuildError(str(error)) from None
        if self.is_pocl:
            return program, None
        try:
            binaries: Any = program.get_info(cl.program_info.BINARIES)
            return program, binaries[0]
        except cl.Error:  # a driver that gives none out
            return program, None

    def load(self, binary: bytes) -> Any:
        import pyopencl as cl

        try:
            program = cl.Program(self.context, [self.device], [binary])
            return program.build(options=[], cache_dir=False)  # type: ignore[arg-type]  # PyOpenCL keeps none
        except cl.Error:  # written by another driver, or broken off: compile it again
            return None

    def function(self, program: Any, name: str) -> Any:
        import pyopencl as cl

        return cl.Kernel(program, name)
