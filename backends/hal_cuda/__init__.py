"""NVIDIA's GPUs: CuPy's door to the driver, cuBLAS for products, and HAL's own kernels, compiled by NVRTC."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hal.codegen.kernels.backend import CompiledBackend
from hal.plugin import Backend, Device, Kernels, Spec, dtypes, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hal.codegen.kernels.buffer import Buffer
    from hal.plugin import Plan
    from hal_cuda.driver import Driver
    from hal_cuda.runtime import CUDARuntime

REAL = frozenset(d for d in dtypes.ALL if d.kind != "complex")


class CUDA(Backend):
    """All GPUs. CuPy is imported when devices are asked for; the first GPU is the default where there is one."""

    name = "cuda"
    priority = 10
    dtypes = REAL
    views = True
    dlpack_type = 2  # kDLCUDA

    def __init__(self, driver: Driver | None = None, name: str = "cuda") -> None:
        """`driver`: NVIDIA's libraries, or what stands in for them where the kernels are run on the host."""
        self.name = name
        self._driver = driver
        self._parts: list[OneCUDA] = []
        self._lock = threading.Lock()

    @cached_property
    def kernels(self) -> Kernels:  # type: ignore[override]  # the kernel files are imported on first use
        from hal_cuda.all_kernels import kernels

        return kernels

    def devices(self) -> list[Device]:
        from hal_cuda.discovery import count_devices, open_driver

        with self._lock:
            if not self._parts:
                driver = self._driver or open_driver()
                self._parts = [OneCUDA(self, driver, i) for i in range(count_devices(driver))]
            return [part.handle for part in self._parts]


class OneCUDA(CompiledBackend):
    """One GPU."""

    priority = CUDA.priority
    dtypes = REAL
    dlpack_type = 2  # kDLCUDA

    def __init__(self, family: CUDA, driver: Driver, ordinal: int) -> None:
        self.name = family.name
        self.family, self.driver, self.ordinal = family, driver, ordinal
        self.handle = Device(self, ordinal)
        self._lock = threading.Lock()

    @property
    def kernels(self) -> Kernels:  # type: ignore[override]  # the family's, on first use
        return self.family.kernels

    @cached_property
    def runtime(self) -> CUDARuntime:  # type: ignore[override]  # made on first use
        """The GPU at work, made on first use, and never in a child that was forked after it."""
        from hal_cuda.runtime import CUDARuntime

        return CUDARuntime(self.driver, self.ordinal, str(self.handle))

    def copy(self, buffer: Any, spec: Spec, source: Device, target: Device) -> Buffer | None:
        if source is target:
            return super().copy(buffer, spec, source, target)
        if not (isinstance(source.backend, OneCUDA) and source.backend.driver is self.driver):
            return None
        from hal_cuda.peers import copy_between

        return copy_between(buffer, target.backend.runtime)  # type: ignore[attr-defined]  # a device of this backend

    def capture(
        self, plan: Plan, replay: Callable[..., tuple[Buffer, ...]]
    ) -> Callable[..., tuple[Buffer, ...]] | None:
        from hal_cuda.graphs import captured

        return captured(self.runtime, plan, replay)

    def all_reduce(self, buffers: Sequence[Buffer], spec: Spec, devices: Sequence[Device]) -> list[Buffer] | None:
        from hal_cuda.collectives import all_reduce

        return all_reduce(buffers)

    def lend(self, buffer: Buffer, spec: Spec) -> Any:
        from hal_cuda.exchange import Lent

        return Lent(self.runtime, buffer)

    def borrow(self, lender: Any, device: Device) -> tuple[Buffer, Spec]:
        from hal_cuda.exchange import borrow

        found = borrow(self.runtime, lender)
        return found, found.spec

    def describe(self, device: Device) -> dict[str, str]:
        from hal_cuda.description import describe

        return describe(self.runtime)

    def identity(self, device: Device) -> dict[str, str]:
        told = self.describe(device)
        return {name: told[name] for name in ("device", "driver", "float32 products")}


@hookimpl
def hal_backends() -> list[Backend]:
    """All GPUs of NVIDIA."""
    return [CUDA()]


__all__ = ["CUDA", "OneCUDA"]
