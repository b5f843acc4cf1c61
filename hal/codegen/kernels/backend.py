"""What a backend answers whose device is a `Runtime`: a subclass adds how devices are found and what they can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hal.plugin import Array, Backend, Device, Kernel, Kernels, Op, Spec, dtypes

if TYPE_CHECKING:
    from hal.codegen.kernels.buffer import Buffer
    from hal.codegen.kernels.runtime import Runtime
    from hal.plugin import Group


class CompiledBackend(Backend):
    """One device that is programmed in a C-like language.

    Attributes:
        handle: the device.
        runtime: the same at work. A subclass makes it on first use: nothing is asked of a driver before.
    """

    views = True
    handle: Device
    runtime: Runtime

    @cached_property
    def kernels(self) -> Kernels:  # type: ignore[override]  # the kernel files are imported on first use
        import hal.codegen.kernels.all_kernels

        return hal.codegen.kernels.all_kernels.kernels

    def devices(self) -> list[Device]:
        return [self.handle]

    def upload(self, array: Array, device: Device) -> Buffer:
        return self.runtime.upload(array, Spec(array.shape, dtypes.of(array.dtype)))

    def download(self, buffer: Buffer, spec: Spec) -> Array:
        from hal.codegen.kernels.movement import in_rows

        return self.runtime.download(in_rows(buffer))

    def copy(self, buffer: Any, spec: Spec, source: Device, target: Device) -> Buffer | None:
        if source is not target:
            return None
        from hal.codegen.kernels.movement import copied

        return copied(buffer)

    def write(self, buffer: Buffer, value: Buffer, spec: Spec) -> None:
        from hal.codegen.kernels.movement import copy_into

        copy_into(value, buffer)

    def shares(self, buffer: Buffer, other: Buffer) -> bool:
        return buffer.memory is other.memory

    def prepare(
        self, op: Op, kernel: Kernel, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
    ) -> Callable[..., Any]:
        prepare = getattr(kernel.run, "prepare", None)
        return kernel.run if prepare is None else prepare(self.runtime, specs, outs, settings)

    def fuse(self, group: Group, device: Device) -> Callable[..., tuple[Buffer, ...]] | None:
        from hal.codegen.kernels.fuse import fuse

        return fuse(self.runtime, group, self.kernels)

    def reserve(self, nbytes: int, device: Device) -> Callable[[int, Spec, Buffer], Buffer] | None:
        from hal.codegen.kernels.arena import arena

        return arena(self.runtime, nbytes)

    def synchronize(self, device: Device) -> None:
        self.runtime.finish()

    def max_memory(self, device: Device) -> int | None:
        return self.runtime.pool.limit
