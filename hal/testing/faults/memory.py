"""Faults in memory: copies in and out, views and strides, sharing that should not be, and what is never freed."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from hal import dtypes
from hal.errors import DeviceError, OutOfMemoryError
from hal.op import Array, Op
from hal.plugin import Device, Spec
from hal.testing.fake import Fake
from hal.testing.fake_memory import FakeBuffer, FakeMemory, row_major
from hal.testing.faults.fault import SEVERAL, SMALL, Fault

VIEWING: dict[str, Any] = {"dtypes": dtypes.ALL, "views": True}


class KeepsHostArray(Fake):
    """Uploads nothing: the buffer is the caller's own array."""

    def upload(self, array: Array, device: Device) -> FakeBuffer:
        if not array.flags.c_contiguous:
            return super().upload(array, device)
        memory = FakeMemory(array.reshape(-1).view(np.uint8))
        return FakeBuffer(device, memory, dtypes.of(array.dtype), array.shape, row_major(array.shape))


class GivesItselfAway(Fake):
    """Downloads nothing: the array is the buffer's own memory."""

    def download(self, buffer: FakeBuffer, spec: Spec) -> Array:
        return buffer.contents


class MemoryOrder(Fake):
    """Uploads elements as they lie in memory, transposed or not."""

    def upload(self, array: Array, device: Device) -> FakeBuffer:
        return super().upload(array.ravel("K").reshape(array.shape), device)


class NoScalars(Fake):
    """Downloads a scalar as an array of one element."""

    def download(self, buffer: FakeBuffer, spec: Spec) -> Array:
        return np.atleast_1d(super().download(buffer, spec))


class QuietNans(Fake):
    """Sends floats through a conversion, which changes the bits of NaNs."""

    def upload(self, array: Array, device: Device) -> FakeBuffer:
        if array.dtype == np.float32:
            array = np.where(np.isnan(array), np.float32(np.nan), array)
        return super().upload(array, device)


class Stale(Fake):
    """Gives the first result again whenever an op is called on such shapes."""

    def __init__(self, name: str, **limits: Any) -> None:
        super().__init__(name, **limits)
        self._first: dict[Any, Any] = {}

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], out: Any = None) -> Any:
        key = (op.name, *((b.shape, b.dtype) for b in buffers), *settings.items())
        return self._first.setdefault(key, super().run(op, buffers, settings, out))


class HandsOutTwice(Fake):
    """Frees memory that is in use: every fiftieth small buffer is that of twenty allocations before."""

    def __init__(self, name: str, **limits: Any) -> None:
        super().__init__(name, **limits)
        self._recent: deque[FakeMemory] = deque(maxlen=20)
        self._allocated = 0

    def allocate(self, spec: Spec, device: Device) -> FakeBuffer:
        buffer = super().allocate(spec, device)
        self._allocated += 1
        older = self._recent[0] if len(self._recent) == self._recent.maxlen else buffer.memory
        self._recent.append(buffer.memory)
        if self._allocated % 50 == 0 and older.bytes.nbytes >= spec.nbytes:
            buffer.memory = older
        return buffer


class Leaks(Fake):
    """Never frees a buffer."""

    def __init__(self, name: str, **limits: Any) -> None:
        super().__init__(name, **limits)
        self._kept: list[FakeMemory] = []

    def allocate(self, spec: Spec, device: Device) -> FakeBuffer:
        buffer = super().allocate(spec, device)
        self._kept.append(buffer.memory)
        return buffer


class Overcommits(Fake):
    """When memory is full, gives out memory that it does not have."""

    def allocate(self, spec: Spec, device: Device) -> FakeBuffer:
        try:
            return super().allocate(spec, device)
        except OutOfMemoryError:
            memory = FakeMemory(np.zeros(spec.nbytes, np.uint8))
            return FakeBuffer(device, memory, spec.dtype, spec.shape, row_major(spec.shape))


class Swallows(Fake):
    """Goes on when an op finds no memory for its result."""

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], out: Any = None) -> Any:
        try:
            return super().run(op, buffers, settings, out)
        except OutOfMemoryError:
            spec = op.infer(*(Spec(b.shape, b.dtype) for b in buffers), **settings)
            assert isinstance(spec, Spec)
            return buffers[0].viewed(spec.shape, (0,) * spec.ndim)


class LostAfterAnError(Fake):
    """Runs nothing any more after it was once out of memory."""

    lost = False

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], out: Any = None) -> Any:
        if self.lost:
            raise DeviceError("the context is lost")
        try:
            return super().run(op, buffers, settings, out)
        except OutOfMemoryError:
            self.lost = True
            raise


class IndicesUnchecked(Fake):
    """Writes into the memory of the input where an index does not exist."""

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], out: Any = None) -> Any:
        if op.name != "index_add" or not buffers[0].shape or out is not None:
            return super().run(op, buffers, settings, out)
        size, indices = buffers[0].shape[settings["axis"]], buffers[1].contents
        if ((indices >= size) | (indices < -size)).any():
            buffers[0].contents[...] = 0
        return super().run(op, buffers, settings, out)


class OffByOneStride(Fake):
    """Takes a step too short when it slices with one."""

    def view(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], spec: Spec) -> FakeBuffer | None:
        view = super().view(op, buffers, settings, spec)
        if op.name == "slice" and view is not None:
            strides = zip(view.strides, buffers[0].strides, settings["step"], strict=True)
            view.strides = tuple(s - given if step > 1 else s for s, given, step in strides)
        return view


class OffsetForgotten(Fake):
    """Forgets where a view began when it transposes it."""

    def view(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], spec: Spec) -> FakeBuffer | None:
        view = super().view(op, buffers, settings, spec)
        if op.name == "permute" and view is not None and min(view.strides, default=0) >= 0:
            view.offset = 0
        return view


class ReshapesAnything(Fake):
    """Reshapes a transposed view as if its elements lay in a row."""

    def view(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], spec: Spec) -> FakeBuffer | None:
        x = buffers[0] if buffers else None
        if op.name == "reshape" and x is not None and min(x.strides, default=0) > 0:
            return x.viewed(spec.shape, row_major(spec.shape))
        return super().view(op, buffers, settings, spec)


class StridesIgnored(Fake):
    """Kernels read the elements of a view one after the other."""

    def read(self, buffer: FakeBuffer) -> Array:
        if min(buffer.strides, default=0) < 0:
            return super().read(buffer)
        whole = buffer.memory.bytes.view(buffer.dtype.numpy)[buffer.offset :]
        return np.resize(whole, buffer.shape)


class ViewsThatCopy(Fake):
    """Declares views, and gives copies."""

    def view(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], spec: Spec) -> FakeBuffer | None:
        return None

    def shares(self, buffer: FakeBuffer, other: FakeBuffer) -> bool:
        return True


class WritesElsewhere(Fake):
    """Writes through a view into a copy of what it shows, unless its elements lie in a row."""

    def write(self, buffer: FakeBuffer, value: FakeBuffer, spec: Spec) -> None:
        if buffer.strides == row_major(buffer.shape):
            super().write(buffer, value, spec)


class SharesItsInput(Fake):
    """Gives the input itself where a cast has nothing to do."""

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], out: Any = None) -> Any:
        if op.name == "cast" and settings["dtype"] is buffers[0].dtype and out is None:
            return buffers[0]
        return super().run(op, buffers, settings, out)


class OverwritesItsInput(Fake):
    """relu works in place."""

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], out: Any = None) -> Any:
        result = super().run(op, buffers, settings, out)
        if op.name == "relu":
            buffers[0].contents[...] = result.contents
        return result


class WritesBeyond(Fake):
    """Writes one element too many into a buffer that it is given, if it lies in a larger block of the host."""

    def store(self, buffer: FakeBuffer, array: Array) -> None:
        super().store(buffer, array)
        given = buffer.memory.bytes
        if given.base is None or given.base.dtype != np.uint8:
            return
        end = given.ctypes.data - given.base.ctypes.data + given.nbytes
        given.base.reshape(-1)[end : end + buffer.dtype.itemsize] = 0


class OneResult(Fake):
    """Puts every square root of one shape into the same buffer."""

    def __init__(self, name: str, **limits: Any) -> None:
        super().__init__(name, **limits)
        self._results: dict[Any, FakeBuffer] = {}

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], out: Any = None) -> Any:
        result = super().run(op, buffers, settings, out)
        if op.name != "sqrt":
            return result
        kept = self._results.setdefault((result.shape, result.dtype), result)
        kept.contents[...] = result.contents
        return kept


class StridesDropped(Fake):
    """Copies a view to another device as it lies in memory, and forgets its strides."""

    def copy(self, buffer: FakeBuffer, spec: Spec, source: Device, target: Device) -> FakeBuffer | None:
        copied = super().copy(buffer, spec, source, target)
        if copied is not None and spec.size:
            whole = buffer.memory.bytes.view(buffer.dtype.numpy)
            copied.contents[...] = np.resize(whole[buffer.offset :], spec.shape)
        return copied


FAULTS = (
    Fault("host-array-kept", "A buffer is the host array that was uploaded, which the caller goes on to change.",
          lambda: KeepsHostArray("host-array-kept", dtypes=dtypes.ALL), "memory/upload-copies"),
    Fault("live-download", "A downloaded array is the buffer's own memory.",
          lambda: GivesItselfAway("live-download", dtypes=dtypes.ALL), "memory/download-copies"),
    Fault("layout-ignored", "A transposed host array is uploaded as it lies in memory.",
          lambda: MemoryOrder("layout-ignored", dtypes=dtypes.ALL), "memory/layout/*"),
    Fault("scalars-of-one-axis", "A scalar comes back as an array of one element.",
          lambda: NoScalars("scalars-of-one-axis", dtypes=dtypes.ALL), "memory/shape/scalar"),
    Fault("bits-of-nan-lost", "The bits of a NaN change on the way to the device.",
          lambda: QuietNans("bits-of-nan-lost", dtypes=dtypes.ALL), "memory/roundtrip/float32"),
    Fault("stale-result", "The first result of an op is given again, whatever the data.",
          lambda: Stale("stale-result", dtypes=dtypes.ALL), "memory/order"),
    Fault("memory-used-twice", "A buffer gets memory that another one still uses.",
          lambda: HandsOutTwice("memory-used-twice", dtypes=dtypes.ALL), "memory/many"),
    Fault("leak", "No buffer is ever freed.",
          lambda: Leaks("leak", dtypes=dtypes.ALL, memory=SMALL), "limits/given-back", twin="small"),
    Fault("out-of-memory-swallowed", "When memory is full, there is no error.",
          lambda: Overcommits("out-of-memory-swallowed", dtypes=dtypes.ALL, memory=SMALL), "limits/full", twin="small"),
    Fault("lost-after-an-error", "After it was once out of memory, the device runs nothing any more.",
          lambda: LostAfterAnError("lost-after-an-error", dtypes=dtypes.ALL, memory=SMALL), "limits/op", twin="small",
          says="the context is lost", status="crash"),
    Fault("indices-unchecked", "An index that does not exist is written to all the same, in somebody's memory.",
          lambda: IndicesUnchecked("indices-unchecked", dtypes=dtypes.ALL), "errors/out-of-range/index_add",
          says="an input is changed"),
    Fault("error-swallowed", "An op that finds no memory for its result goes on without.",
          lambda: Swallows("error-swallowed", dtypes=dtypes.ALL, memory=SMALL), "limits/op", twin="small"),
    Fault("off-by-one-stride", "A slice with a step takes one too short.",
          lambda: OffByOneStride("off-by-one-stride", **VIEWING), "primitives/slice/*", twin="views"),
    Fault("offset-forgotten", "The transpose of a slice begins where the whole does.",
          lambda: OffsetForgotten("offset-forgotten", **VIEWING), "views/*/transposed-slice", twin="views"),
    Fault("reshape-of-a-transpose", "A transposed view is reshaped as if its elements lay in a row.",
          lambda: ReshapesAnything("reshape-of-a-transpose", **VIEWING), "strides/reshape/*/transposed", twin="views"),
    Fault("strides-ignored", "Kernels read a view's elements one after the other.",
          lambda: StridesIgnored("strides-ignored", **VIEWING), "strides/matmul/*", twin="views"),
    Fault("views-that-copy", "Views are declared, and movement ops give copies: a change of one misses the other.",
          lambda: ViewsThatCopy("views-that-copy", **VIEWING), "views/declared/*", twin="views"),
    Fault("write-through-lost", "A change of a transposed view does not reach what it is a view of.",
          lambda: WritesElsewhere("write-through-lost", **VIEWING), "views/view-changes/transposed", twin="views"),
    Fault("input-shared", "A cast to the same dtype gives its input, so that a change of one changes the other.",
          lambda: SharesItsInput("input-shared", **VIEWING), "views/copies", twin="views",
          says="gave its input back", status="crash"),
    Fault("input-overwritten", "relu works in place, on an input that is still needed.",
          lambda: OverwritesItsInput("input-overwritten", dtypes=dtypes.ALL), "composites/relu/*",
          says="input 0 was changed"),
    Fault("writes-beyond", "A kernel that is given a buffer to write into writes one element too many.",
          lambda: WritesBeyond("writes-beyond", dtypes=dtypes.ALL, **SEVERAL), "buffers/out/add/*", twin="host",
          says="memory beside the buffer was overwritten"),
    Fault("result-used-again", "A kernel gives the same buffer each time, with other contents.",
          lambda: OneResult("result-used-again", dtypes=dtypes.ALL), "buffers/own-memory/sqrt/*",
          says="overwritten by the next call"),
    Fault("strides-dropped-by-copy", "A view that is copied to another device loses its strides.",
          lambda: StridesDropped("strides-dropped-by-copy", **VIEWING, count=2), "copies/views/*", twin="pair"),
)  # fmt: skip
