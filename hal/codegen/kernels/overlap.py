"""Whether buffers share elements: results must not be written where elements are still to be read."""

from __future__ import annotations

from collections.abc import Sequence

from hal.codegen.kernels.buffer import Buffer


def overlaps(out: Buffer, buffers: Sequence[Buffer]) -> bool:
    """Whether `out` shares elements with one of the buffers: several may lie in one block of memory."""
    low, high = _reach(out)
    for x in buffers:
        if x.memory is out.memory:
            first, last = _reach(x)
            if first < high and low < last:
                return True
    return False


def _reach(x: Buffer) -> tuple[int, int]:
    """The bytes from the first that belong to an element of `x` to behind the last."""
    ends = [(n - 1) * s for n, s in zip(x.shape, x.strides, strict=True)]
    low = x.offset + sum(min(e, 0) for e in ends)
    high = x.offset + sum(max(e, 0) for e in ends) + 1
    return low * x.dtype.itemsize, high * x.dtype.itemsize
