"""Products as the array computes them: bfloat16 summed in float32, in one to six passes, and exact integers.

Two ways give the same product. The exact one adds in the order in which partial sums run down the array: to the last
bit what the registers of every cell give. The fast one leaves the order to BLAS, so that the last bit of a sum may be
another; its bits are the same on every run and for any number of threads, since BLAS is kept to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hal.plugin import Array, one_blas_thread
from hal_systolic.rounding import flush, rounded, split

EXACT_IN_FLOAT32 = 1 << 24  # integers up to here
Passes = Literal[1, 3, 6]
# Which parts of a and b are multiplied, the smallest products first, so that they are not lost beside the largest.
PASSES: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((0, 0),),
    3: ((1, 0), (0, 1), (0, 0)),
    6: ((2, 0), (1, 1), (0, 2), (1, 0), (0, 1), (0, 0)),
}
PARTS = {1: 1, 3: 2, 6: 3}


@dataclass(frozen=True)
class Numerics:
    """How the array multiplies and adds.

    Attributes:
        rows: of the array: so many products are summed in it before the sum is added to the accumulator.
        group: how many neighbouring products are summed among themselves first.
        ftz: whether numbers too small to be normal are zeros.
        passes: products of bfloat16 parts for one product of float32: 1 (the default), 3 ("high") or 6 ("highest").
        exact: whether sums are in the order of the array, or in that of BLAS.
    """

    rows: int
    group: int = 1
    ftz: bool = False
    passes: Passes = 1
    exact: bool = False

    def product(self, a: Array, b: Array) -> Array:
        """a @ b for (..., m, k) and (..., k, n) of one dtype, in that dtype: `sums`, rounded once."""
        return self.sums(a, b).astype(a.dtype, copy=False)

    def sums(self, a: Array, b: Array, ready: str = "") -> Array:
        """a @ b for (..., m, k) and (..., k, n) of one dtype, as it stands in the accumulators.

        float32 goes through the array as bfloat16, in so many passes, bfloat16 as it is; both give float32. Integers
        are exact, and wrap around in their own dtype.

        Args:
            ready: which of `a` and `b` are made of what `rounded` gave.
        """
        if a.dtype.kind in "iub":
            return whole_product(a, b)
        passes = self.passes if a.dtype == np.float32 else 1
        return self.float_product(a.astype(np.float32, copy=False), b.astype(np.float32, copy=False), passes, ready)

    def rounded(self, x: Array) -> Array:
        """`x` as the array takes it, where that is one number for each; else as it is."""
        return rounded(x, self.ftz) if x.dtype == np.float32 and self.passes == 1 else x

    def float_product(self, a: Array, b: Array, passes: int = 1, ready: str = "") -> Array:
        """a @ b for float32 matrices (..., m, k) and (..., k, n), as `passes` products of their bfloat16 parts."""
        left, right = (
            [x] if passes == 1 and name in ready else split(x, PARTS[passes], self.ftz)
            for name, x in (("a", a), ("b", b))
        )
        if not self.exact:
            total = _sum_of_products([(left[i], right[j]) for i, j in PASSES[passes]])
            return flush(total) if self.ftz else total
        total = np.zeros((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), np.float32)
        for i, j in PASSES[passes]:
            accumulate(total, left[i], right[j], self.rows, self.group, self.ftz)
        return total


def accumulate(total: Array, a: Array, b: Array, rows: int, group: int = 1, ftz: bool = False) -> None:
    """Add a @ b to `total` (..., m, n) in the order of an array of `rows` rows: the definition of the exact product.

    Down a column, `sum = 0; for each group of rows: sum += product of the group`; then `total += sum` for each tile of
    `rows` rows, all in float32, rounded to nearest, ties to even. The products of a group are summed one after another.
    A product of bfloat16 numbers is exact in float32, so that whether it is fused with the addition does not matter.

    Args:
        a, b: (..., m, k) and (..., k, n), bfloat16 numbers in float32.
        ftz: sums too small to be normal become zero.
    """
    terms = a.shape[-1]
    for start in range(0, terms, rows):
        stop = min(start + rows, terms)
        column = np.zeros_like(total)
        for first in range(start, stop, group):
            step = a[..., :, first, None] * b[..., None, first, :]
            for r in range(first + 1, min(first + group, stop)):
                step = step + a[..., :, r, None] * b[..., None, r, :]
                if ftz:
                    flush(step)
            np.add(column, step, out=column)
            if ftz:
                flush(column)
        np.add(total, column, out=total)
        if ftz:
            flush(total)


def _sum_of_products(pairs: list[tuple[Array, Array]]) -> Array:
    """The sum of a @ b over `pairs` in float32, through BLAS."""
    with one_blas_thread():
        total = _matmul(*pairs[0])
        for a, b in pairs[1:]:
            total += _matmul(a, b)
    return total


def _matmul(a: Array, b: Array) -> Array:
    """np.matmul, as one product where a batch only makes the left matrix taller."""
    if a.ndim > 2 and b.ndim == 2 and a.size:
        flat = np.matmul(a.reshape(-1, a.shape[-1]), b)
        return np.asarray(flat.reshape(*a.shape[:-1], b.shape[-1]))
    return np.asarray(np.matmul(a, b))


# Integers.


def _largest(dtype: np.dtype[Any]) -> int:
    """The largest magnitude that the dtype holds."""
    return 1 << (8 * dtype.itemsize - 1) if dtype.kind == "i" else (1 << 8 * dtype.itemsize) - 1


def integer_product(a: Array, b: Array) -> Array:
    """a @ b for matrices (..., m, k) and (..., k, n) of 8- or 16-bit integers, in int32, which wraps around.

    Exact: 1024 products of int8 sum up to no more than 2^24, and all integers up to there are float32 numbers, so BLAS
    in float32 adds them without rounding, in any order. Pairs with 16 bits go through float64 in the same way.
    """
    largest = _largest(a.dtype) * _largest(b.dtype)
    wide: Any = np.float32 if largest * 64 <= EXACT_IN_FLOAT32 else np.float64
    chunk = (EXACT_IN_FLOAT32 if wide is np.float32 else 1 << 53) // largest
    terms = a.shape[-1]
    left, right = a.astype(wide), b.astype(wide)
    middle: Any = np.int32 if wide is np.float32 else np.int64
    with one_blas_thread():
        total = _matmul(left[..., :chunk], right[..., :chunk, :]).astype(middle)
        for start in range(chunk, terms, chunk):
            total += _matmul(left[..., start : start + chunk], right[..., start : start + chunk, :]).astype(middle)
    return total.astype(np.int32)


def whole_product(a: Array, b: Array) -> Array:
    """a @ b for integers (or bools) of one dtype, in that dtype, which wraps around."""
    if a.dtype.kind in "iu" and a.dtype.itemsize <= 2:
        return integer_product(a, b).astype(a.dtype)
    return np.asarray(np.matmul(a, b))


def limbs(dtype: np.dtype[Any]) -> int:
    """In how many passes of 8-bit digits integers of `dtype` are multiplied: only those digits that the result keeps.

    n digits by n digits, of which the result keeps n: n (n + 1) / 2.
    """
    digits = dtype.itemsize
    return digits * (digits + 1) // 2
