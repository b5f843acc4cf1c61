"""Compiled programs: built once for a source, kept on disk by source, device and driver, and named when they fail."""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hal.plugin import DeviceError, cache_dir

if TYPE_CHECKING:
    from hal_opencl.runtime import Runtime

OPTIONS = "-cl-std=CL1.2 -w"
FOR_SIMULATORS = " -cl-opt-disable"  # they follow what the source says, and know not all that optimisers make of it


class Programs:
    """The programs of one device: `kernel(source, name)` compiles what was not met before.

    Attributes:
        built: how many were compiled from source.
        loaded: how many came from the disk.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.built = self.loaded = 0
        self._programs: dict[str, Any] = {}
        self._kernels: dict[tuple[str, str], Any] = {}
        self._lock = threading.RLock()
        device = runtime.device
        self.options = OPTIONS + (FOR_SIMULATORS if runtime.is_simulator else "")
        self._where = "\n".join((device.platform.name, device.platform.version, device.name, device.driver_version))

    def kernel(self, source: str, name: str, label: str = "") -> Any:
        """The kernel `name` of the program `source`: a cl.Kernel, to be used under the runtime's lock.

        Raises:
            DeviceError: it does not compile; the source is in the file that the message names.
        """
        found = self._kernels.get((source, name))
        if found is None:
            import pyopencl as cl

            with self._lock:
                program = self._programs.get(source)
                if program is None:
                    program = self._programs[source] = self._program(source, label or name)
                found = self._kernels[source, name] = cl.Kernel(program, name)
        return found

    def _program(self, source: str, label: str) -> Any:
        import pyopencl as cl

        with warnings.catch_warnings():  # what a compiler remarks of generated source is no news for the user
            warnings.simplefilter("ignore", cl.CompilerWarning)
            return self._found_or_built(source, label)

    def _found_or_built(self, source: str, label: str) -> Any:
        import pyopencl as cl

        runtime = self.runtime
        key = hashlib.sha256("\n".join((self._where, self.options, source)).encode()).hexdigest()[:32]
        file = self.folder() / f"{key}.bin"
        if file.is_file():
            try:
                program = cl.Program(runtime.context, [runtime.device], [file.read_bytes()])
                program = program.build(options=[], cache_dir=False)  # type: ignore[arg-type]  # PyOpenCL keeps none
            except (cl.Error, OSError):  # written by another driver, or broken off: compile it again
                pass
            else:
                self.loaded += 1
                return program
        try:
            program = cl.Program(runtime.context, source).build(options=self.options.split(), cache_dir=False)  # type: ignore[arg-type]
        except cl.Error as error:
            raise self._build_failure(source, key, label, error) from None
        self.built += 1
        self._keep(program, file)
        return program

    def folder(self) -> Path:
        """Where programs are kept on disk."""
        return cache_dir() / "opencl"

    def _keep(self, program: Any, file: Path) -> None:
        import pyopencl as cl

        try:
            binary = program.get_info(cl.program_info.BINARIES)[0]
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            part.write_bytes(binary)
            part.replace(file)  # at once, so that no other process reads half of it
        except (OSError, cl.Error):  # a cache that cannot be written only costs time
            pass

    def _build_failure(self, source: str, key: str, label: str, error: Exception) -> DeviceError:
        file = self.folder() / f"failed-{key}.cl"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
            saved = f"its source is in {file}"
        except OSError as problem:
            saved = f"its source could not be saved ({problem})"
        log = [line for line in str(error).splitlines() if "error" in line.lower()] or str(error).splitlines()
        return DeviceError(
            f"the kernel of {label} does not compile for {self.runtime.name} ({self.runtime.title}): "
            f"{' | '.join(log[:3])}; {saved}; report it with that file and the output of `hal devices -v`"
        )
