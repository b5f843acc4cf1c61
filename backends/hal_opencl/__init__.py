"""OpenCL: GPUs of AMD, Intel, NVIDIA and others, and CPUs through PoCL. Needs PyOpenCL and the device's own driver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hal.plugin import Array, Backend, Device, DType, Kernel, Kernels, Op, Spec, dtypes, hookimpl

if TYPE_CHECKING:
    from hal.plugin import Group
    from hal_opencl.buffer import Buffer
    from hal_opencl.runtime import Runtime

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
        import hal_opencl.all_kernels

        return hal_opencl.all_kernels.kernels

    def devices(self) -> list[Device]:
        from hal_opencl.discovery import find_devices

        with self._lock:
            devices = []
            for index, found in enumerate(find_devices()):
                part = self._parts.get((found, index))
                if part is None:
                    part = self._parts[found, index] = OneOpenCL(self, found, index)
                devices.append(part.handle)
            return devices


class OneOpenCL(Backend):
    """One OpenCL device: its dtypes and memory. The kernels are those of all."""

    name = "opencl"
    priority = OpenCL.priority
    views = True

    def __init__(self, family: OpenCL, device: Any, index: int) -> None:
        self.family = family
        self.device = device
        self.handle = Device(self, index)
        self._lock = threading.Lock()

    @property
    def kernels(self) -> Kernels:  # type: ignore[override]
        return self.family.kernels

    @cached_property
    def dtypes(self) -> frozenset[DType]:  # type: ignore[override]  # float64 is an extension
        has_float64 = "cl_khr_fp64" in self.device.extensions.split()
        return REAL if has_float64 else REAL - {dtypes.float64}

    @cached_property
    def runtime(self) -> Runtime:
        """The device at work: made on first use, and never in a child that was forked after it (see the how-to)."""
        from hal_opencl.runtime import Runtime

        return Runtime(self.device, str(self.handle))

    def devices(self) -> list[Device]:
        return [self.handle]

    def upload(self, array: Array, device: Device) -> Buffer:
        return self.runtime.upload(array, Spec(array.shape, dtypes.of(array.dtype)))

    def download(self, buffer: Buffer, spec: Spec) -> Array:
        from hal_opencl.movement import in_rows

        return self.runtime.download(in_rows(buffer))

    def copy(self, buffer: Any, spec: Spec, source: Device, target: Device) -> Buffer | None:
        if source is not target:
            return None
        from hal_opencl.movement import copied

        return copied(buffer)

    def write(self, buffer: Buffer, value: Buffer, spec: Spec) -> None:
        from hal_opencl.movement import copy_into

        copy_into(value, buffer)

    def shares(self, buffer: Buffer, other: Buffer) -> bool:
        return buffer.memory is other.memory

    def wrap(self, array: Array, device: Device) -> Buffer | None:
        from hal_opencl.sharing import wrap

        return wrap(self.runtime, array)

    def expose(self, buffer: Buffer, spec: Spec) -> Array | None:
        from hal_opencl.sharing import expose

        return expose(buffer)

    def prepare(
        self, op: Op, kernel: Kernel, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
    ) -> Callable[..., Any]:
        prepare = getattr(kernel.run, "prepare", None)
        return kernel.run if prepare is None else prepare(self.runtime, specs, outs, settings)

    def fuse(self, group: Group, device: Device) -> Callable[..., tuple[Buffer, ...]] | None:
        from hal_opencl.fuse import fuse

        return fuse(self.runtime, group)

    def reserve(self, nbytes: int, device: Device) -> Callable[[int, Spec, Buffer], Buffer] | None:
        from hal_opencl.arena import arena

        return arena(self.runtime, nbytes)

    def tune(self, device: Device) -> None:
        from hal_opencl.gemm_shapes import calibrate

        calibrate(self.runtime)

    def synchronize(self, device: Device) -> None:
        self.runtime.finish()

    def max_memory(self, device: Device) -> int | None:
        return self.runtime.pool.limit

    def describe(self, device: Device) -> dict[str, str]:
        from hal_opencl.description import describe

        return describe(self.runtime)


@hookimpl
def hal_backends() -> list[Backend]:
    """All OpenCL devices."""
    return [OpenCL()]
