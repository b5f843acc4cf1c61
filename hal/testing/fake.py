"""Fake devices with declared limits, so that anyone can test device code without hardware.

A fake device computes every op by its float64 reference and rounds the result once, so it is right by definition
and shares nothing with the CPU backend. Its buffers are opaque records. What it lacks is declared: dtypes, ops,
memory, a fast link, or the will to go on after some number of calls. What devices do differently from the host it
can do as well: share memory between views, and run kernels later and in another order than they were given.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable
from math import inf
from typing import Any

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DeviceError, DTypeError, OutOfMemoryError
from hal.op import Op
from hal.plugin import Array, Backend, Device, Kernel, Kernels, Link, Spec, Speed, hookimpl
from hal.testing.fake_memory import FakeBuffer, FakeMemory, row_major
from hal.testing.inputs import widened
from hal.testing.later import Later
from hal.views import strides_as

NO_FLOAT64 = frozenset(dtypes.REAL) - {dtypes.float64}
UNWRITTEN = 0xA5  # every byte of memory that nothing was written into


class Fake(Backend):
    """A device that computes by the references, with the limits that are given.

    Args:
        name: what it is called.
        dtypes: the element types that it has (default: the real ones without float64).
        missing: names of ops without a kernel.
        only: names of the ops that have a kernel (default: all but `missing`).
        memory: bytes that each device holds.
        bandwidth: bytes per second to and from the host; copies take that long.
        latency: seconds that every such copy takes besides.
        speed: how fast it computes: kernels take as long as that says (if the references are not slower still), and
            the scheduler is told so.
        fail_after: number of kernel calls after which every further one fails, as a lost device does.
        count: number of devices.
        training: whether it can record gradients.
        views: whether reshape, permute, broadcast_to and slice share the memory of their input.
        out: whether kernels can write into buffers that they are given.
        host_memory: whether its memory is the host's, so that host arrays and buffers can share it.
        asynchronous: whether kernels run later on a thread, in any order that data allows; what goes wrong
            in one is told by whatever waits for its result, or by `synchronize`.
        seed: of that order.

    Attributes:
        calls: kernels that were called.
        most: the most bytes that were in use at once on each device.

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
        latency: float = 0.0,
        speed: Speed | None = None,
        fail_after: int | None = None,
        count: int = 1,
        training: bool = True,
        views: bool = False,
        out: bool = False,
        host_memory: bool = False,
        asynchronous: bool = False,
        seed: int = 0,
    ) -> None:
        self.name = name
        self.dtypes = frozenset(dtypes)
        self.missing = frozenset(missing)
        self.only = None if only is None else frozenset(only)
        self.memory = memory
        self.bandwidth = bandwidth
        self.latency = latency
        self.declared = speed
        self.fail_after = fail_after
        self.count = count
        self.training = training
        self.views = views
        self.out = out
        self.host_memory = host_memory
        self.asynchronous = asynchronous
        self.seed = seed
        self.calls = 0
        self.kernels = _References(self)
        self.most: dict[Device, int] = {}
        self._used: dict[Device, int] = {}
        self._buffers: dict[Device, int] = {}
        self._freed: deque[tuple[Device, int]] = deque()
        self._queues: dict[Device, Later] = {}
        self._lock = threading.RLock()

    def registered(self) -> Registered:
        """A `with` block in which the device is known by its name."""
        return Registered(self)

    def devices(self) -> list[Device]:
        return [Device(self)] if self.count == 1 else [Device(self, i) for i in range(self.count)]

    def upload(self, array: Array, device: Device) -> FakeBuffer:
        dtype = dtypes.of(array.dtype)
        if dtype not in self.dtypes:
            raise DTypeError(f"{self.name} was declared without {dtype.name}")
        self._travel(array.nbytes)
        buffer = self.allocate(Spec(array.shape, dtype), device)
        buffer.contents[...] = array
        return buffer

    def download(self, buffer: FakeBuffer, spec: Spec) -> Array:
        self.wait(buffer)
        self._travel(spec.nbytes)
        return np.array(buffer.contents, order="C")

    def copy(self, buffer: FakeBuffer, spec: Spec, source: Device, target: Device) -> FakeBuffer | None:
        if source.backend is not self:
            return None
        self.wait(buffer)
        copied = self.allocate(spec, target)
        copied.contents[...] = buffer.contents
        return copied

    def write(self, buffer: FakeBuffer, value: FakeBuffer, spec: Spec) -> None:
        def overwrite() -> None:
            buffer.contents[...] = value.contents

        self.launch(overwrite, (value,), (buffer,))

    def shares(self, buffer: FakeBuffer, other: FakeBuffer) -> bool:
        return buffer.memory is other.memory

    def wrap(self, array: Array, device: Device) -> FakeBuffer | None:
        if not self.host_memory or not array.flags.c_contiguous:
            return None
        memory = FakeMemory(array.reshape(-1).view(np.uint8))
        return FakeBuffer(device, memory, dtypes.of(array.dtype), array.shape, row_major(array.shape))

    def expose(self, buffer: FakeBuffer, spec: Spec) -> Array | None:
        if not self.host_memory:
            return None
        self.wait(buffer)
        return buffer.contents

    def synchronize(self, device: Device) -> None:
        queue = self._queues.get(device)
        if queue is not None:
            queue.finish()

    def max_memory(self, device: Device) -> int | None:
        return self.memory

    def speed(self, device: Device) -> Speed | None:
        return self.declared

    def link(self, device: Device, other: Device | None = None) -> Link | None:
        if self.bandwidth is None or other is not None:
            return None
        return Link(self.bandwidth, self.latency)

    def describe(self, device: Device) -> dict[str, str]:
        limits = {"memory": self.memory, "bandwidth": self.bandwidth, "fails after": self.fail_after}
        habits = {"computes by": "the float64 references", **({"kernels run": "later"} if self.asynchronous else {})}
        return {**habits, **{k: str(v) for k, v in limits.items() if v is not None}}

    def has(self, op: Op) -> bool:
        """Whether there is a kernel for `op`."""
        return op.name not in self.missing and (self.only is None or op.name in self.only)

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], out: Any = None) -> Any:
        """The kernel of every op: a view where there are views, else new contents, now or later."""
        self.calls += 1
        lost = self.fail_after is not None and self.calls > self.fail_after
        device = buffers[0].device if buffers else settings["device"]
        inferred = op.infer(*(Spec(b.shape, b.dtype) for b in buffers), **settings)
        specs = inferred if isinstance(inferred, tuple) else (inferred,)
        if self.views and out is None and not lost:
            view = self.view(op, buffers, settings, specs[0])
            if view is not None:
                return view
        results: tuple[Any, ...] = out if isinstance(out, tuple) else (out,)
        if out is None:
            results = tuple(self.allocate(s, device) for s in specs)

        def work() -> None:
            if lost:
                raise DeviceError(
                    f"{self.name} failed at {op.name}: it was declared to fail after {self.fail_after} calls"
                )
            start = time.perf_counter()
            inputs = [self.read(b) for b in buffers]
            for result, array in zip(results, self.compute(op, inputs, settings, specs), strict=True):
                self.store(result, array)
            if self.declared is not None:
                time.sleep(max(0.0, self._seconds(op, inputs, specs, settings) - (time.perf_counter() - start)))

        self.launch(work, buffers, results)
        return results if isinstance(inferred, tuple) else results[0]

    def compute(
        self, op: Op, inputs: list[Array], settings: dict[str, Any], specs: tuple[Spec, ...]
    ) -> tuple[Array, ...]:
        """The reference on float64 copies of the inputs, rounded once to the dtypes of the results."""
        with np.errstate(all="ignore"):
            result = op.reference(*(widened(x) for x in inputs), **settings)
            several = result if isinstance(result, tuple) else (result,)
            return tuple(np.asarray(r).astype(s.dtype.numpy) for r, s in zip(several, specs, strict=True))

    def _seconds(self, op: Op, inputs: list[Array], specs: tuple[Spec, ...], settings: dict[str, Any]) -> float:
        """How long the declared speed says that a call takes."""
        assert self.declared is not None
        given = tuple(Spec(x.shape, dtypes.of(x.dtype)) for x in inputs)
        first, *others = specs
        cost = op.cost(*given, out=specs if others else first, **settings)
        return self.declared.seconds(op.name, op.kind, [first, *others][-1].dtype.name, cost.flops, cost.bytes)

    def read(self, buffer: FakeBuffer) -> Array:
        """What a kernel finds in a buffer."""
        return buffer.contents

    def store(self, buffer: FakeBuffer, array: Array) -> None:
        """Put a result where it belongs."""
        if array.shape != buffer.shape:  # assigning would broadcast it
            raise DeviceError(f"{self.name} computed a result of shape {array.shape} where {buffer.shape} was inferred")
        buffer.contents[...] = array

    def view(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], spec: Spec) -> FakeBuffer | None:
        """What a movement op gives without moving anything, or None if there is no such thing."""
        if op.name == "permute":
            x = buffers[0]
            return x.viewed(spec.shape, tuple(x.strides[a] for a in settings["axes"]))
        if op.name == "broadcast_to":
            x = buffers[0]
            padded = (1,) * (spec.ndim - len(x.shape)) + x.shape
            strides = (0,) * (spec.ndim - len(x.shape)) + x.strides
            stretched = zip(strides, padded, spec.shape, strict=True)
            return x.viewed(spec.shape, tuple(s if n == m else 0 for s, n, m in stretched))
        if op.name == "slice":
            x = buffers[0]
            steps = tuple(s * n for s, n in zip(x.strides, settings["step"], strict=True))
            first = sum(s * n for s, n in zip(x.strides, settings["start"], strict=True)) if spec.size else 0
            return x.viewed(spec.shape, steps, first)
        if op.name == "reshape":
            x = buffers[0]
            new = strides_as(x.shape, x.strides, spec.shape)
            return None if new is None else x.viewed(spec.shape, new)
        return None

    def launch(self, work: Any, reads: Iterable[FakeBuffer], writes: Iterable[FakeBuffer]) -> None:
        """Do work now, or put it on the device's queue."""
        if not self.asynchronous:
            work()
            return
        reads, writes = tuple(reads), tuple(writes)
        with self._lock:
            queue = self._queues.setdefault(writes[0].device, Later(self.seed))
        queue.add(work, [b.memory.trail for b in reads], [b.memory.trail for b in writes])

    def wait(self, buffer: FakeBuffer) -> None:
        """Wait until the contents of `buffer` are there; raises what went wrong on the way to them."""
        queue = self._queues.get(buffer.device)
        if queue is not None:
            queue.wait(buffer.memory.trail)

    def allocate(self, spec: Spec, device: Device) -> FakeBuffer:
        """A new buffer, with nothing in it.

        Raises:
            OutOfMemoryError: it does not fit.
        """
        queue = self._queues.get(device)
        if queue is not None and self._left(device) < spec.nbytes:
            queue.idle()  # what is still to run holds memory
        with self._lock:
            left, used = self._left(device), self._used.get(device, 0)
            if left < spec.nbytes:
                raise OutOfMemoryError(
                    f"{device} has {self.memory:,} bytes of memory, {used:,} in use by {self._buffers.get(device, 0)} "
                    f"buffers; a buffer of {spec.nbytes:,} bytes does not fit: free tensors, or use smaller batches"
                )
            self._count(device, spec.nbytes, 1)
        memory = FakeMemory(np.full(spec.nbytes, UNWRITTEN, np.uint8))
        # The collector may run this in any thread and at any time, so it takes no lock: adding to a deque is one step.
        weakref.finalize(memory, self._freed.append, (device, spec.nbytes)).atexit = False
        return FakeBuffer(device, memory, spec.dtype, spec.shape, row_major(spec.shape))

    def _left(self, device: Device) -> float:
        """Bytes that are free, when everything that was let go of is counted."""
        with self._lock:
            while self._freed:
                place, freed = self._freed.popleft()
                self._count(place, -freed, -1)
            return inf if self.memory is None else self.memory - self._used.get(device, 0)

    def _count(self, device: Device, nbytes: int, buffers: int) -> None:
        self._used[device] = self._used.get(device, 0) + nbytes
        self.most[device] = max(self.most.get(device, 0), self._used[device])
        self._buffers[device] = self._buffers.get(device, 0) + buffers

    def _travel(self, nbytes: int) -> None:
        if self.bandwidth is not None:
            time.sleep(self.latency + nbytes / self.bandwidth)


class _References(Kernels):
    """A kernel table that has every op of the op table, so that an added op needs nothing here."""

    def __init__(self, backend: Fake) -> None:
        super().__init__()
        self._backend = backend

    def find(self, op: Op, specs: Iterable[Spec], settings: Any) -> Kernel | None:
        if not self._backend.has(op):
            return None

        def kernel(*buffers: FakeBuffer, out: Any = None, **given: Any) -> Any:
            return self._backend.run(op, buffers, given, out)

        return Kernel(kernel, out=self._backend.out)

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


@hookimpl
def hal_backends() -> list[Backend]:
    """One plain fake device, chosen only by name: `HAL_BACKEND=fake`."""
    return [Fake()]
