"""OpenCL: GPUs of AMD, Intel, NVIDIA and others, and CPUs through PoCL. Needs PyOpenCL and the device's own driver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hal.codegen.kernels.backend import CompiledBackend
from hal.plugin import Array, Backend, Device, DType, Kernel, Kernels, Op, Spec, dtypes, hookimpl

if TYPE_CHECKING:
    from hal.codegen.kernels.buffer import Buffer
    from hal.plugin import Plan
    from hal_opencl.runtime import OpenCLRuntime

REAL = frozenset(d for d in dtypes.ALL if d.kind != "complex")


class OpenCL(Backend):
    """All OpenCL devices. Each has a backend of its own behind it, since each has dtypes of its own.

    PyOpenCL is imported when devices are asked for. Never the default by itself: finding out whether a GPU is there
    would make every start of HAL wait for the drivers.
    """

    name = "opencl"
    priority = -1
    dtypes = REAL
    views = True

    def __init__(self) -> None:
        self._parts: dict[tuple[Any, int], OneOpenCL] = {}
        self._lock = threading.Lock()

    @cached_property
    def kernels(self) -> Kernels:  # type: ignore[override]  # the kernel files are imported on first use
        import hal.codegen.kernels.all_kernels

        return hal.codegen.kernels.all_kernels.kernels

    def devices(self) -> list[Device]:
        from hal_opencl.discovery import find_devices

        with self._lock:
            devices = []
            for index, found in enumerate(find_devices()):
                part = self._parts.get((found, index))
                if part is None:
                    part = self._parts[found, index] = OneOpenCL(found, index)
                devices.append(part.handle)
            return devices


class OneOpenCL(CompiledBackend):
    """One OpenCL device: its dtypes and memory. The kernels are those of all."""

    name = "opencl"
    priority = OpenCL.priority

    def __init__(self, device: Any, index: int) -> None:
        self.device = device
        self.handle = Device(self, index)

    @cached_property
    def dtypes(self) -> frozenset[DType]:  # type: ignore[override]  # float64 is an extension
        has_float64 = "cl_khr_fp64" in self.device.extensions.split()
        return REAL if has_float64 else REAL - {dtypes.float64}

    @cached_property
    def runtime(self) -> OpenCLRuntime:  # type: ignore[override]  # made on first use
        """The device at work: made on first use, and never in a child that was forked after it (see the how-to)."""
        from hal_opencl.runtime import OpenCLRuntime

        return OpenCLRuntime(self.device, str(self.handle))

    def wrap(self, array: Array, device: Device) -> Buffer | None:
        from hal_opencl.sharing import wrap

        return wrap(self.runtime, array)

    def expose(self, buffer: Buffer, spec: Spec) -> Array | None:
        from hal_opencl.sharing import expose

        return expose(buffer)

    def prepare(
        self, op: Op, kernel: Kernel, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
    ) -> Callable[..., Any]:
        run = super().prepare(op, kernel, specs, outs, settings)
        if run is not kernel.run:  # it was made for these specs: it has decided already
            return run
        from hal_opencl.single_calls import SingleCall

        return SingleCall(self.runtime, run)

    def capture(
        self, plan: Plan, replay: Callable[..., tuple[Buffer, ...]]
    ) -> Callable[..., tuple[Buffer, ...]] | None:
        from hal_opencl.recording import recorded

        return recorded(self.runtime, plan, replay)

    def tune(self, device: Device) -> None:
        from hal_opencl.gemm_shapes import calibrate

        calibrate(self.runtime)

    def describe(self, device: Device) -> dict[str, str]:
        from hal_opencl.description import describe

        return describe(self.runtime)

    def identity(self, device: Device) -> dict[str, str]:
        told = self.describe(device)
        return {name: told[name] for name in ("device", "driver")}


@hookimpl
def hal_backends() -> list[Backend]:
    """All OpenCL devices."""
    return [OpenCL()]
