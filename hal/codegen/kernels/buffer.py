"""The buffer of this backend: a place in device memory, and how elements lie there."""

from __future__ import annotations

from math import prod

from hal.codegen.kernels.layout import Shape, lies_in_rows, row_strides
from hal.codegen.kernels.memory import Memory
from hal.plugin import DType, Spec, dtypes

_BITS = {1: dtypes.uint8, 2: dtypes.uint16, 4: dtypes.uint32, 8: dtypes.uint64}
__all__ = ["Buffer", "Shape", "row_strides"]


class Buffer:
    """Elements in device memory: where they begin and how far apart they are. Views are other buffers on one memory.

    Attributes:
        memory: the block; `memory.data` is the driver's object for it.
        shape, dtype: what the elements are. A bool is a byte, 0 or 1.
        strides: elements from one to the next along each axis; negative or zero in views.
        offset: the first element's place, in elements.
        contiguous: whether the elements lie row by row without gaps.
    """

    __slots__ = ("contiguous", "dtype", "memory", "offset", "shape", "strides")

    def __init__(self, memory: Memory, shape: Shape, dtype: DType, strides: Shape, offset: int) -> None:
        self.memory = memory
        self.shape = shape
        self.dtype = dtype
        self.strides = strides
        self.offset = offset
        self.contiguous = lies_in_rows(shape, strides)

    @property
    def spec(self) -> Spec:
        """Shape and dtype."""
        return Spec(self.shape, self.dtype)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    def view(self, shape: Shape, strides: Shape, offset: int | None = None) -> Buffer:
        """Other elements of the same memory."""
        return Buffer(self.memory, shape, self.dtype, strides, self.offset if offset is None else offset)

    def as_bits(self) -> Buffer:
        """The same elements as unsigned integers of their size: what only moves them needs no more."""
        return Buffer(self.memory, self.shape, _BITS[self.dtype.itemsize], self.strides, self.offset)

    def __repr__(self) -> str:
        return f"<{self.spec} on {self.memory.runtime.name}, strides {self.strides} from {self.offset}>"
