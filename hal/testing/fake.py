"""Fake devices with declared limits, so that anyone can test device code without hardware.

A fake device computes every op by its float64 reference and rounds the result once, so it is right by definition
and shares nothing with the CPU backend. Its buffers are opaque records. What it lacks is declared: dtypes, ops,
memory, a fast link, or the will to go on after some number of calls.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DeviceError, OutOfMemoryError
from hal.op import Op
from hal.plugin import Array, Backend, Device, Kernel, Kernels, Spec, hookimpl

NO_FLOAT64 = frozenset(dtypes.REAL) - {dtypes.float64}


class FakeBuffer:
    """Memory of a fake device; only its backend may look inside."""

    __slots__ = ("__weakref__", "contents", "device")

    def __init__(self, contents: Array, device: Device) -> None:
        self.contents = contents
        self.device = device

    def __array__(self, *args: Any, **kwargs: Any) -> Array:
        raise DeviceError(
            "a buffer of a fake device was read as if it were a NumPy array: only its backend may do that"
        )


class Fake(Backend):
    """A device that computes by the references, with the limits that are given.

    Args:
        name: what it is called.
        dtypes: the element types that it has (default: the real ones without float64).
        missing: names of ops without a kernel.
        only: names of the ops that have a kernel (default: all but `missing`).
        memory: bytes that each device holds.
        bandwidth: bytes per second to and from the host; copies take that long.
        fail_after: number of kernel calls after which every further one fails, as a lost device does.
        count: number of devices.
        training: whether it can record gradients.

    >>> import hal
    >>> with Fake("tiny", memory=100).registered():
    ...     hal.zeros(1000, device="tiny")
    Traceback (most recent call last):
    ...
    hal.errors.OutOfMemoryError: tiny has 100 bytes of memory, ...; a buffer of 4,000 bytes does not fit...
    """

    priority = -10

    def __init__(
        self,
        name: str = "fake",
        *,
        dtypes: Iterable[DType] = NO_FLOAT64,
        missing: Iterable[str] = (),
        only: Iterable[str] | None = None,
        memory: int | None = None,
        bandwidth: float | None = None,
        fail_after: int | None = None,
        count: int = 1,
        training: bool = True,
    ) -> None:
        self.name = name
        self.dtypes = frozenset(dtypes)
        self.missing = frozenset(missing)
        self.only = None if only is None else frozenset(only)
        self.memory = memory
        self.bandwidth = bandwidth
        self.fail_after = fail_after
        self.count = count
        self.training = training
        self.calls = 0
        self.kernels = _References(self)
        self._used: dict[Device, int] = {}
        self._buffers: dict[Device, int] = {}
        self._lock = threading.Lock()

    def registered(self) -> Registered:
        """A `with` block in which the device is known by its name."""
        return Registered(self)

    def devices(self) -> list[Device]:
        return [Device(self)] if self.count == 1 else [Device(self, i) for i in range(self.count)]

    def upload(self, array: Array, device: Device) -> FakeBuffer:
        self._travel(array.nbytes)
        return self._keep(np.array(array, order="C"), device)

    def download(self, buffer: FakeBuffer, spec: Spec) -> Array:
        self._travel(spec.nbytes)
        return buffer.contents.copy()

    def max_memory(self, device: Device) -> int | None:
        return self.memory

    def describe(self, device: Device) -> dict[str, str]:
        limits = {"memory": self.memory, "bandwidth": self.bandwidth, "fails after": self.fail_after}
        return {"computes by": "the float64 references", **{k: str(v) for k, v in limits.items() if v is not None}}

    def has(self, op: Op) -> bool:
        """Whether there is a kernel for `op`."""
        return op.name not in self.missing and (self.only is None or op.name in self.only)

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any]) -> Any:
        """The reference on float64 copies of the inputs, rounded once to the result's dtype."""
        self.calls += 1
        if self.fail_after is not None and self.calls > self.fail_after:
            raise DeviceError(f"{self.name} failed at {op.name}: it was declared to fail after {self.fail_after} calls")
        device = buffers[0].device if buffers else settings["device"]
        given = [b.contents for b in buffers]
        inferred = op.infer(*(Spec(x.shape, dtypes.of(x.dtype)) for x in given), **settings)
        with np.errstate(all="ignore"):
            result = op.reference(*(widened(x) for x in given), **settings)
            if not isinstance(inferred, tuple):
                return self._keep(np.array(result).astype(inferred.dtype.numpy), device)
            return tuple(
                self._keep(np.array(r).astype(s.dtype.numpy), device) for r, s in zip(result, inferred, strict=True)
            )

    def _travel(self, nbytes: int) -> None:
        if self.bandwidth is not None:
            time.sleep(nbytes / self.bandwidth)

    def _keep(self, contents: Array, device: Device) -> FakeBuffer:
        with self._lock:
            used = self._used.get(device, 0)
            if self.memory is not None and used + contents.nbytes > self.memory:
                raise OutOfMemoryError(
                    f"{device} has {self.memory:,} bytes of memory, {used:,} in use by {self._buffers.get(device, 0)} "
                    f"buffers; a buffer of {contents.nbytes:,} bytes does not fit: free tensors, or use smaller batches"
                )
            self._count(device, contents.nbytes, 1)
        buffer = FakeBuffer(contents, device)
        weakref.finalize(buffer, self._free, device, contents.nbytes).atexit = False
        return buffer

    def _free(self, device: Device, nbytes: int) -> None:
        self._count(device, -nbytes, -1)  # one dictionary write each, and the collector may hold the lock already

    def _count(self, device: Device, nbytes: int, buffers: int) -> None:
        self._used[device] = self._used.get(device, 0) + nbytes
        self._buffers[device] = self._buffers.get(device, 0) + buffers


class _References(Kernels):
    """A kernel table that has every op of the op table, so that an added op needs nothing here."""

    def __init__(self, backend: Fake) -> None:
        super().__init__()
        self._backend = backend

    def find(self, op: Op, specs: Iterable[Spec], settings: Any) -> Kernel | None:
        if not self._backend.has(op):
            return None
        return Kernel(lambda *buffers, **given: self._backend.run(op, buffers, given))

    def __contains__(self, op: Op) -> bool:
        return self._backend.has(op)

    def __iter__(self) -> Any:
        return (name for name, op in ops.TABLE.items() if self._backend.has(op))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Registered:
    """Makes a fake device known for the length of a `with` block."""

    def __init__(self, backend: Fake) -> None:
        self.backend = backend

    def __enter__(self) -> Fake:
        from hal import registry

        registry.register(self.backend, self.backend.name)
        return self.backend

    def __exit__(self, *error: object) -> None:
        from hal import registry

        registry.unregister(self.backend.name)


def widened(x: Array) -> Array:
    """`x` as references take it: real floating types in float64, complex in complex128, others as they are."""
    kind = dtypes.of(x.dtype).kind
    wide: dict[str, type] = {"float": np.float64, "complex": np.complex128}
    return x.astype(wide[kind]) if kind in wide else x


@hookimpl
def hal_backends() -> list[Backend]:
    """One plain fake device, chosen only by name: `HAL_BACKEND=fake`."""
    return [Fake()]
