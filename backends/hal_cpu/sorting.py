"""Sorting in NumPy, with NaN greater than every number and equal elements in order."""

from __future__ import annotations

from math import prod
from typing import Literal

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cpu.table import kernels


def _sortable(x: Array) -> Array:
    """bfloat16 as float32, which NumPy can sort."""
    return x.astype(np.float32) if x.dtype.kind == "V" else x


@kernels.register(ops.argsort)
def argsort(x: Array, *, axis: int, descending: bool, stable: bool) -> Array:
    x = _sortable(x)
    kind: Literal["stable"] | None = "stable" if stable else None
    if not descending:
        return x.argsort(axis, kind)
    # Sorting from the back and reading from the back keeps equal elements in order.
    positions = np.flip(np.flip(x, axis).argsort(axis, kind), axis)
    return np.subtract(x.shape[axis] - 1, positions)


@kernels.register(ops.sort)
def sort(x: Array, *, axis: int, descending: bool) -> Array:
    values = _sortable(x)
    kind: Literal["stable"] | None = None
    if values.dtype.kind == "f" and np.signbit(values[values == 0]).any():
        kind = "stable"  # the quick way mixes up zeros of both signs
    if descending:
        values = np.flip(np.sort(np.flip(values, axis), axis, kind), axis).copy()
    else:
        values = np.sort(values, axis, kind)
    return values.astype(x.dtype, copy=False)


@kernels.register(ops.topk)
def topk(x: Array, *, k: int, axis: int, largest: bool) -> tuple[Array, Array]:
    rows = _sortable(x)
    last = axis % x.ndim == x.ndim - 1
    if not last:
        rows = np.moveaxis(rows, axis, -1)
    shape, n = (*rows.shape[:-1], k), rows.shape[-1]
    rows = np.ascontiguousarray(rows).reshape(prod(shape[:-1]), n)
    found = _few_of_many(rows, k, largest) if 0 < 16 * k <= n and rows.size else None
    if found is None:
        found = argsort(rows, axis=-1, descending=largest, stable=True)[:, :k]
    values = rows.reshape(-1).take(found + np.arange(rows.shape[0])[:, None] * n).astype(x.dtype, copy=False)
    values, found = values.reshape(shape), found.reshape(shape)
    return (values, found) if last else (np.moveaxis(values, -1, axis), np.moveaxis(found, -1, axis))


def _few_of_many(rows: Array, k: int, largest: bool) -> Array | None:
    """The positions of the first k of each row in order, without sorting the rows; None where that does not pay.

    Each row is dealt into 8 k blocks. The k-th best of the blocks' best is a bound that k elements reach for certain,
    and few more do; only those are sorted.
    """
    front, n = rows.shape
    blocks = 8 * k
    deals = n // blocks
    dealt = rows[:, : deals * blocks].reshape(front, deals, blocks)
    best = (np.maximum if largest else np.minimum).reduce(dealt, 1)
    rest = rows[:, deals * blocks :]
    if rows.dtype.kind == "f" and (np.isnan(best).any() or np.isnan(rest).any()):
        return None  # comparisons do not see NaN
    edge = blocks - k if largest else k - 1
    bound = np.partition(best, edge, 1)[:, edge : edge + 1]
    row, column = np.nonzero(rows >= bound if largest else rows <= bound)
    if row.size > rows.size // 4:
        return None  # too many equal the bound
    order = argsort(rows[row, column], axis=0, descending=largest, stable=True)
    order = order[row[order].argsort(kind="stable")]
    first = np.searchsorted(row, np.arange(front))
    return column[order[first[:, None] + np.arange(k)]]
