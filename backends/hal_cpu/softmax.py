"""softmax, log_softmax and their gradients in NumPy: a few passes over pieces that stay in the cache."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cpu.parallel import in_parts, scratch
from hal_cpu.table import kernels

BLOCK = 32_768  # elements of a piece
SMALL = 4096  # elements of a piece that is not worth a call of its own
FEW = 16  # so few columns are better compared one after another than row by row
OPERATIONS = 8  # of an element, about: most of them are those of exp

Lines = Callable[..., None]


@lru_cache(maxsize=64)
def _starts(rows: int, n: int) -> Array:
    return np.arange(0, rows * n, n)


@lru_cache(maxsize=64)
def ones(n: int, dtype: np.dtype[Any]) -> Array:
    """A vector of ones: a product with it is the quickest sum."""
    return np.ones(n, dtype)


def row_max(x: Array) -> Array:
    """The largest of each row of a contiguous matrix that has columns, as a column."""
    rows, n = x.shape
    if (
        n > FEW or rows < 16 * FEW
    ):  # NumPy's reduceat takes half the time of its reduce over the last axis (measured, NumPy 2.4)
        return np.maximum.reduceat(x.reshape(-1), _starts(rows, n)).reshape(rows, 1)
    top = x[:, 0].copy()
    for column in range(1, n):
        np.maximum(top, x[:, column], out=top)
    return top.reshape(rows, 1)


def row_sum(x: Array) -> Array:
    """The sum of each row of a contiguous matrix, as a column."""
    return (x @ ones(x.shape[1], x.dtype)).reshape(-1, 1)


def row_dot(x: Array, y: Array) -> Array:
    """The inner product of each row of one contiguous matrix with that of another, as a column."""
    dots = np.vecdot(x, y) if x.shape[1] > 4 * FEW else np.einsum("ij,ij->i", x, y)
    return np.asarray(dots).reshape(-1, 1)


def along(function: Lines, axis: int, out: Array | None, *inputs: Array) -> Array:
    """Run function(*pieces, result, by_row) on pieces of whole lines along `axis`: contiguous matrices whose rows are
    lines (by_row), or matrices whose columns are. Half precision is computed in float32 and rounded once."""
    x = inputs[-1]
    if out is None:
        out = np.empty(x.shape, x.dtype)
    axis %= x.ndim
    front, n, back = prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :])
    if x.size == 0:
        return out
    if (back > 1 and n * back < SMALL) or not out.flags.c_contiguous:
        moved = along(function, -1, None, *(np.ascontiguousarray(np.moveaxis(a, axis, -1)) for a in inputs))
        np.copyto(out, np.moveaxis(moved, -1, axis))
        return out
    given = [np.ascontiguousarray(a).reshape(front, n, back) for a in inputs]
    result = out.reshape(front, n, back)
    by_row = back == 1
    half = x.dtype.itemsize == 2

    def run(piece: tuple[Any, ...]) -> None:
        pieces = [a[piece] for a in given]
        target = result[piece]
        if not half:
            function(*pieces, target, by_row)
            return
        wide = [np.array(p, np.float32, order="C") for p in pieces]
        function(*wide, wide[-1], by_row)
        np.copyto(target, wide[-1], casting="unsafe")

    def rows(start: int, stop: int) -> None:
        step = max(1, BLOCK // n)
        for i in range(start, stop, step):
            run((slice(i, min(i + step, stop)), slice(None), 0))

    def columns(start: int, stop: int) -> None:
        step = max(64, BLOCK // n)
        for i in range(start, stop):
            for j in range(0, back, step):
                run((i, slice(None), slice(j, j + step)))

    in_parts(rows if by_row else columns, front, OPERATIONS * x.size)
    return out


def _top(x: Array, by_row: bool) -> Array:
    return row_max(x) if by_row else np.maximum.reduce(x, 0)


def _total(x: Array, by_row: bool) -> Array:
    return row_sum(x) if by_row else np.add.reduce(x, 0)


def _spare(like: Array) -> Array:
    return scratch("softmax", like.shape, like.dtype)


def _softmax(x: Array, out: Array, by_row: bool) -> None:
    np.subtract(x, _top(x, by_row), out=out)
    np.exp(out, out=out)
    np.divide(out, _total(out, by_row), out=out)


def _log_softmax(x: Array, out: Array, by_row: bool) -> None:
    np.subtract(x, _top(x, by_row), out=out)
    total = _total(np.exp(out, out=_spare(out)), by_row)
    np.subtract(out, np.log(total, out=total), out=out)


def _softmax_gradient(g: Array, y: Array, out: Array, by_row: bool) -> None:
    product = row_dot(g, y) if by_row else np.add.reduce(np.multiply(g, y, out=_spare(y)), 0)
    slope = np.subtract(g, product, out=_spare(y))
    np.multiply(slope, y, out=out)


def _log_softmax_gradient(g: Array, y: Array, out: Array, by_row: bool) -> None:
    total = _total(g, by_row)
    share = np.exp(y, out=_spare(y))
    np.multiply(share, total, out=share)
    np.subtract(g, share, out=out)


@kernels.register(ops.softmax, out=True)
def softmax(x: Array, *, axis: int, out: Array | None = None) -> Array:
    return along(_softmax, axis, out, x)


@kernels.register(ops.log_softmax, out=True)
def log_softmax(x: Array, *, axis: int, out: Array | None = None) -> Array:
    return along(_log_softmax, axis, out, x)


@kernels.register(ops.softmax_gradient)
def softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    return along(_softmax_gradient, axis, None, g, y)


@kernels.register(ops.log_softmax_gradient)
def log_softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    return along(_log_softmax_gradient, axis, None, g, y)
