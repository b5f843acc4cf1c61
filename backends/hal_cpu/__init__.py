"""The CPU: NumPy arrays in host memory. Always present, and the backend to read first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from hal.plugin import Array, Backend, Device, Group, Kernel, Kernels, Op, Spec, hookimpl

BLAS_WAKES = 9_000  # operations from which OpenBLAS wakes its threads, for some of its functions
WORTH_WAKING = 30_000_000  # operations from which that pays


class Cpu(Backend):
    """NumPy on the host. Movement kernels return views; elementwise kernels write into buffers they are given."""

    name = "cpu"
    priority = 0
    views = True
    host_memory = True

    @cached_property
    def kernels(self) -> Kernels:  # type: ignore[override]  # the kernel files are imported on first use
        import hal_cpu.all_kernels

        return hal_cpu.all_kernels.kernels

    def devices(self) -> list[Device]:
        return [Device(self)]

    def prepare(
        self, op: Op, kernel: Kernel, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
    ) -> Callable[..., Any]:
        from hal.plugin import on_one_blas_thread
        from hal_cpu.quiet import arrays, quiet

        run = kernel.run
        computes = op.kind not in ("movement", "creation") and not getattr(run, "silent", False)
        if computes and any(s.dtype.is_inexact for s in (*specs, *outs)):
            run = quiet(run)
        if op.kind in ("contraction", "reduction", "indexing", "composite"):
            cost = op.cost(*specs, out=outs[0] if len(outs) == 1 else outs, **settings)
            if BLAS_WAKES < cost.flops < WORTH_WAKING:
                run = on_one_blas_thread(run)
        return arrays(run) if any(o.ndim == 0 for o in outs) else run

    def upload(self, array: Array, device: Device) -> Array:
        return np.array(array, order="C")

    def download(self, buffer: Array, spec: Spec) -> Array:
        return np.array(buffer, order="C")

    def write(self, buffer: Array, value: Array, spec: Spec) -> None:
        np.copyto(buffer, value)

    def fuse(self, group: Group, device: Device) -> Callable[..., tuple[Array, ...]] | None:
        from hal_cpu.fusion import fused

        return fused(self, group)

    def reserve(self, nbytes: int, device: Device) -> Callable[[int, Spec, Array], Array]:
        from hal_cpu.arena import arena

        return arena(nbytes)

    def shares(self, buffer: Array, other: Array) -> bool:
        base = buffer.base
        return buffer is other or (base is not None and (base is other or base is other.base))

    def wrap(self, array: Array, device: Device) -> Array:
        return array

    def expose(self, buffer: Array, spec: Spec) -> Array:
        return buffer


@hookimpl
def hal_backends() -> list[Backend]:
    """The one CPU."""
    return [Cpu()]
