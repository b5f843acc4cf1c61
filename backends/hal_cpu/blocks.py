"""Formulas of many steps over one array, in blocks that stay in the cache from the first step to the last.

A step over a whole large array reads and writes main memory each time; over a block, only the first and last do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from hal.plugin import Array

BLOCK = 16384  # elements: large enough to hide the cost of a NumPy call, and a few such arrays fit a second-level cache
Formula = Callable[..., None]


def in_blocks(temporaries: int) -> Callable[[Formula], Callable[..., Array]]:
    """Make a kernel of `formula(x, out, *temporaries, **settings)`, which is given one-dimensional pieces.

    `out` may be the same memory as `x`, so the formula must not read `x` after it wrote to `out`.
    Half precision is computed in float32 and rounded once.
    """

    def decorate(formula: Formula) -> Callable[..., Array]:
        def kernel(x: Array, out: Array | None = None, **settings: Any) -> Array:
            if out is None:
                out = np.empty_like(x)
            if x.flags.c_contiguous and out.flags.c_contiguous:
                flat_x, flat_out = x.reshape(-1), out.reshape(-1)
            elif x.flags.f_contiguous and out.flags.f_contiguous:
                flat_x, flat_out = x.T.reshape(-1), out.T.reshape(-1)
            else:
                np.copyto(out, kernel(np.ascontiguousarray(x), **settings))
                return out
            half = x.dtype.itemsize == 2 and x.dtype.kind not in "iu"
            dtype = np.dtype(np.float32) if half else x.dtype
            size = flat_x.size
            spare = np.empty((temporaries + 2 * half, min(size, BLOCK)), dtype)
            for start in range(0, size, BLOCK):
                piece, result = flat_x[start : start + BLOCK], flat_out[start : start + BLOCK]
                rows = list(spare if len(piece) == spare.shape[1] else spare[:, : len(piece)])
                if not half:
                    formula(piece, result, *rows, **settings)
                    continue
                np.copyto(rows[0], piece)
                formula(rows[0], rows[1], *rows[2:], **settings)
                np.copyto(result, rows[1], casting="unsafe")
            return out

        return kernel

    return decorate


@lru_cache(maxsize=32)
def _repeated(value: float, dtype: np.dtype[Any]) -> Array:
    return np.full(BLOCK, value, dtype)


def constant(value: float, like: Array) -> Array:
    """`value` as often as `like`, a piece of an array, has elements.

    NumPy's maximum and minimum take half as long for two arrays as for an array and a number (measured, NumPy 2.4).
    """
    return _repeated(value, like.dtype)[: like.size]


def select(mask: Array, a: Array, b: Array, out: Array, spare: Array, bits: Array) -> None:
    """`a` where `mask`, else `b`, for pieces of equal shape, by bits and not by branches.

    Where a mask is as good as random, NumPy's where mispredicts every other element: five times slower (measured).
    `spare` and `bits` are memory of unsigned integers as wide as the elements.
    """
    a, b, out = a.view(bits.dtype), b.view(bits.dtype), out.view(bits.dtype)
    np.copyto(bits, mask)
    np.negative(bits, out=bits)  # all ones where true
    np.bitwise_xor(a, b, out=spare)
    np.bitwise_and(spare, bits, out=spare)
    np.bitwise_xor(spare, b, out=out)
