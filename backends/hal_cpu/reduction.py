"""Reductions and scans in NumPy, with large sums done by BLAS."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod, sqrt
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cpu.table import kernels

Axes = int | tuple[int, ...] | None
Reduce = Callable[..., Any]
# Under these names because NumPy's types do not know a `keepdims` that is a variable.
_add: Reduce = np.add.reduce
_multiply: Reduce = np.multiply.reduce
_maximum: Reduce = np.maximum.reduce
_minimum: Reduce = np.minimum.reduce
_logical_or: Reduce = np.logical_or.reduce
_logical_and: Reduce = np.logical_and.reduce

_IN_BLAS = (np.dtype(np.float32), np.dtype(np.float64))
_FEW = 32_768  # below this many elements NumPy's own sum is as fast as BLAS
PIECE = 1024  # BLAS sums a row of this length in so many lanes that the error stays small
SHORT = 64  # so many terms one after another stay within the error bound of a sum


def _axes(axis: Axes, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    return tuple(a % ndim for a in ((axis,) if isinstance(axis, int) else axis))


def _is_half(x: Array) -> bool:
    """Whether `x` is float16 or bfloat16, which are computed in float32 and rounded once."""
    return x.dtype.itemsize == 2 and x.dtype.kind not in "iu"


@lru_cache(maxsize=256)
def _ones(n: int, dtype: np.dtype[Any]) -> Array:
    return np.ones(n, dtype)


def sum_of_rows(x: Array) -> Array:
    """The sums of the rows of a contiguous matrix, as products with ones, in pieces that keep the error small.

    A product with ones takes a fifth of the time of NumPy's sum (measured), since BLAS uses every lane and core.
    """
    rows, n = x.shape
    if n <= PIECE:
        return x @ _ones(n, x.dtype)
    pieces = n // PIECE
    whole = x[:, : pieces * PIECE].reshape(rows, pieces, PIECE)
    sums = _add(np.matmul(whole, _ones(PIECE, x.dtype)), 1)
    rest = x[:, pieces * PIECE :]
    return sums + rest @ _ones(rest.shape[1], x.dtype) if rest.shape[1] else sums


def sum_of_columns(x: Array) -> Array:
    """The sums over the middle axis: first of neighbours together, as products with ones, then of what these give.

    The error of the two steps grows with the square root of the number of terms, and not with the number.
    """
    front, n, columns = x.shape
    piece = int(sqrt(n))
    pieces = n // piece
    whole = x[:, : pieces * piece].reshape(front, pieces, piece, columns)
    result = _add(np.matmul(_ones(piece, x.dtype), whole), 1)
    return result + _add(x[:, pieces * piece :], 1) if pieces * piece < n else result


def _large_sum(x: Array, axes: tuple[int, ...]) -> Array:
    """The sum of a large array over `axes`, reduced axes left out; in the order in which its elements lie in memory."""
    order = sorted(range(x.ndim), key=lambda i: -abs(x.strides[i]))
    x = np.ascontiguousarray(x.transpose(order))
    kept = [i for i in order if i not in axes]
    groups: list[tuple[bool, int]] = []  # neighbouring axes that are reduced, or kept, count as one
    for i in order:
        reduced = i in axes
        if groups and groups[-1][0] == reduced:
            groups[-1] = (reduced, groups[-1][1] * x.shape[order.index(i)])
        else:
            groups.append((reduced, x.shape[order.index(i)]))
    shape = tuple(x.shape[order.index(i)] for i in kept)
    while any(reduced for reduced, _ in groups):
        reduced, n = groups.pop()
        front = prod(size for _, size in groups)
        if reduced:
            x = sum_of_rows(x.reshape(front, n))
            continue
        _, m = groups.pop()
        front //= m
        x = x.reshape(front, m, n)
        x = sum_of_columns(x) if m > SHORT else _add(x, 1)
        groups = [*groups[:-1], (False, groups[-1][1] * n)] if groups else [(False, n)]
    x = x.reshape(shape)
    return x.transpose([kept.index(i) for i in sorted(kept)]) if kept != sorted(kept) else x


def total(x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
    """The sum of floating-point `x`, in float32 if it has half precision."""
    if _is_half(x):
        x = x.astype(np.float32)
    if x.size < _FEW:
        # NumPy sums pairwise what lies side by side in memory, anything else one after another.
        few = axis.__class__ is int and x.shape[axis] <= SHORT
        if few or x.size <= SHORT or (axis is None and x.flags.c_contiguous):
            return _add(x, axis, keepdims=keepdims)
    axes = _axes(axis, x.ndim)
    if x.dtype not in _IN_BLAS or x.size == 0 or not axes:
        return _add(x, axis, keepdims=keepdims)
    out = _large_sum(x, axes)
    return out.reshape([1 if i in axes else n for i, n in enumerate(x.shape)]) if keepdims else out


@kernels.register(ops.sum, out=True)
def sum_(x: Array, *, axis: Axes, keepdims: bool, out: Array | None = None) -> Array:
    if x.dtype.kind in "biu" or x.dtype.kind == "c":
        return _add(x, axis, out=out, keepdims=keepdims)
    return _finished(total(x, axis, keepdims), x.dtype, out)


@kernels.register(ops.sum, when=lambda x, *, axis, keepdims: x.dtype.name in ("float32", "float64") and x.size <= SHORT)
def sum_of_few(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    return _add(x, axis, keepdims=keepdims)


def _finished(result: Array, dtype: np.dtype[Any], out: Array | None) -> Array:
    """`result` in `dtype`, in `out` if there is one."""
    if out is None:
        return result if result.dtype == dtype else result.astype(dtype)
    np.copyto(out, result, casting="unsafe")
    return out


@kernels.register(ops.mean, out=True)
def mean(x: Array, *, axis: Axes, keepdims: bool, out: Array | None = None) -> Array:
    return _finished(total(x, axis, keepdims) / _count(x, axis), x.dtype, out)


def _count(x: Array, axis: Axes) -> int:
    return prod(x.shape[i] for i in _axes(axis, x.ndim))


def _variance(x: Array, axis: Axes, keepdims: bool, correction: int | float) -> Array:
    if _is_half(x):
        x = x.astype(np.float32)
    n = _count(x, axis)
    away = np.subtract(x, np.divide(total(x, axis, True), n))
    squares = np.multiply(away, away, out=away if x.ndim else None)
    return np.divide(total(squares, axis, keepdims), max(n - correction, 0))


@kernels.register(ops.var)
def var(x: Array, *, axis: Axes, keepdims: bool, correction: int | float) -> Array:
    return _finished(_variance(x, axis, keepdims, correction), x.dtype, None)


@kernels.register(ops.std)
def std(x: Array, *, axis: Axes, keepdims: bool, correction: int | float) -> Array:
    return _finished(np.sqrt(_variance(x, axis, keepdims, correction)), x.dtype, None)


@kernels.register(ops.logsumexp)
def logsumexp(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    dtype = x.dtype
    if _is_half(x):
        x = x.astype(np.float32)
    if _count(x, axis) == 0:
        return _finished(np.log(_add(x, axis, keepdims=keepdims)), dtype, None)
    top = _maximum(x, axis, keepdims=True)
    top = np.where(np.isinf(top), x.dtype.type(0), top)
    away = np.subtract(x, top)
    result = np.log(total(np.exp(away, out=away if x.ndim else None), axis, True)) + top
    if not keepdims:
        result = result.reshape([n for i, n in enumerate(x.shape) if i not in _axes(axis, x.ndim)])
    return _finished(result, dtype, None)


@kernels.register(ops.max, out=True)
def max_(x: Array, *, axis: Axes, keepdims: bool, out: Array | None = None) -> Array:
    return _maximum(x, axis, out=out, keepdims=keepdims)


@kernels.register(ops.min, out=True)
def min_(x: Array, *, axis: Axes, keepdims: bool, out: Array | None = None) -> Array:
    return _minimum(x, axis, out=out, keepdims=keepdims)


@kernels.register(ops.prod)
def prod_(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    if _is_half(x):
        return _multiply(x.astype(np.float32), axis, keepdims=keepdims).astype(x.dtype)
    return _multiply(x, axis, keepdims=keepdims)


@kernels.register(ops.any, out=True)
def any_(x: Array, *, axis: Axes, keepdims: bool, out: Array | None = None) -> Array:
    return _logical_or(x, axis, out=out, keepdims=keepdims)


@kernels.register(ops.all, out=True)
def all_(x: Array, *, axis: Axes, keepdims: bool, out: Array | None = None) -> Array:
    return _logical_and(x, axis, out=out, keepdims=keepdims)


@kernels.register(ops.count_nonzero)
def count_nonzero(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    return _add(x if x.dtype == bool else x != 0, axis, keepdims=keepdims)


@kernels.register(ops.argmax)
def argmax(x: Array, *, axis: int | None, keepdims: bool) -> Array:
    return np.asarray(np.argmax(x, axis, keepdims=True) if keepdims else x.argmax(axis))


@kernels.register(ops.argmin)
def argmin(x: Array, *, axis: int | None, keepdims: bool) -> Array:
    return np.asarray(np.argmin(x, axis, keepdims=True) if keepdims else x.argmin(axis))


def _scan(ufunc: np.ufunc, x: Array, axis: int) -> Array:
    # One after another in float32, the error would grow with the number of terms; float64 has room for it.
    if x.dtype.itemsize <= 4 and x.dtype.kind not in "biu":
        return ufunc.accumulate(x.astype(np.float64), axis).astype(x.dtype)
    wide = {"b": np.int64, "i": np.int64, "u": np.uint64}.get(x.dtype.kind)
    return ufunc.accumulate(x, axis, dtype=wide)


@kernels.register(ops.cumsum)
def cumsum(x: Array, *, axis: int) -> Array:
    return _scan(np.add, x, axis)


@kernels.register(ops.cumprod)
def cumprod(x: Array, *, axis: int) -> Array:
    return _scan(np.multiply, x, axis)
