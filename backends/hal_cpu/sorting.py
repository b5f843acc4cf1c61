"""Sorting in NumPy, with NaN greater than every number and equal elements in order."""

from __future__ import annotations

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
    kind = "stable" if stable else None
    if not descending:
        return x.argsort(axis, kind)
    # Sorting from the back and reading from the back keeps equal elements in order.
    positions = np.flip(np.flip(x, axis).argsort(axis, kind), axis)
    return np.subtract(x.shape[axis] - 1, positions)


@kernels.register(ops.sort)
def sort(x: Array, *, axis: int, descending: bool) -> Array:
    values = _sortable(x)
    kind = None
    if values.dtype.kind == "f" and np.signbit(values[values == 0]).any():
        kind = "stable"  # the quick way mixes up zeros of both signs
    if descending:
        values = np.flip(np.sort(np.flip(values, axis), axis, kind), axis).copy()
    else:
        values = np.sort(values, axis, kind)
    return values.astype(x.dtype, copy=False)


@kernels.register(ops.topk)
def topk(x: Array, *, k: int, axis: int, largest: bool) -> tuple[Array, Array]:
    rows = np.moveaxis(_sortable(x), axis, -1)
    n = rows.shape[-1]
    positions = None
    if 0 < k < n // 8 and n >= 256 and x.size:
        positions = _few_of_many(np.ascontiguousarray(rows.reshape(-1, n)), k, largest)
    if positions is None:
        positions = argsort(rows, axis=-1, descending=largest, stable=True)[..., :k]
    positions = np.ascontiguousarray(np.moveaxis(positions.reshape(*rows.shape[:-1], k), -1, axis))
    return np.take_along_axis(x, positions, axis), positions


def _few_of_many(rows: Array, k: int, largest: bool) -> Array | None:
    """The positions of the first k of each row in order, found by a partial sort; None if there is a NaN."""
    if rows.dtype.kind == "f" and np.isnan(rows).any():
        return None
    n = rows.shape[1]
    edge = n - k if largest else k - 1
    bound = np.partition(rows, edge, 1)[:, edge : edge + 1]
    inside = rows > bound if largest else rows < bound
    # Of those that equal the bound, the first ones fill up to k.
    ties = rows == bound
    missing = k - np.count_nonzero(inside, 1, keepdims=True)
    inside |= ties & (np.cumsum(ties, 1) <= missing)
    found = np.nonzero(inside)[1].reshape(-1, k)
    order = argsort(np.take_along_axis(rows, found, 1), axis=1, descending=largest, stable=True)
    return np.take_along_axis(found, order, 1)
