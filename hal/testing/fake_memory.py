"""The memory of fake devices: bytes, and buffers that show them with strides of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from hal.dtypes import DType
from hal.errors import DeviceError
from hal.plugin import Array, Device
from hal.testing.later import Trail

Shape = tuple[int, ...]


class FakeMemory:
    """Bytes of a fake device, which several buffers may share."""

    __slots__ = ("__weakref__", "bytes", "trail")

    def __init__(self, data: Array) -> None:
        self.bytes = data
        self.trail = Trail()


class FakeBuffer:
    """Memory of a fake device, and which elements of it, in which order; only its backend may look inside.

    Attributes:
        device: where it is.
        memory: the bytes.
        offset: of the first element, in elements.
        shape, strides: as of an array; strides in elements.
        dtype: of the elements.
    """

    __slots__ = ("__weakref__", "device", "dtype", "memory", "offset", "shape", "strides")

    def __init__(
        self, device: Device, memory: FakeMemory, dtype: DType, shape: Shape, strides: Shape, offset: int = 0
    ) -> None:
        self.device = device
        self.memory = memory
        self.dtype = dtype
        self.shape = shape
        self.strides = strides
        self.offset = offset

    @property
    def contents(self) -> Array:
        """The elements, as an array that shares the memory. What is still to be computed is not in it."""
        size = self.dtype.itemsize
        strides = tuple(size * s for s in self.strides)
        return np.ndarray(self.shape, self.dtype.numpy, self.memory.bytes, size * self.offset, strides)

    def viewed(self, shape: Shape, strides: Shape, offset: int = 0) -> FakeBuffer:
        """Another buffer on the same memory, which starts `offset` elements after this one."""
        return FakeBuffer(self.device, self.memory, self.dtype, shape, strides, self.offset + offset)

    def __array__(self, *args: Any, **kwargs: Any) -> Array:
        raise DeviceError(
            "a buffer of a fake device was read as if it were a NumPy array: only its backend may do that"
        )


def row_major(shape: Shape) -> Shape:
    """The strides of an array whose last axis lies in a row, in elements."""
    strides = [1]
    for n in shape[:0:-1]:
        strides.append(strides[-1] * n)
    return tuple(reversed(strides)) if shape else ()
