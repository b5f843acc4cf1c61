"""Pooling to a given output size in NumPy: one axis after another, window by window, since there are few."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.ops.adaptive_pooling import bounds
from hal.plugin import Array
from hal_cpu.normalization import converted, ones, over_blocks
from hal_cpu.parallel import scratch
from hal_cpu.precision import working
from hal_cpu.table import kernels

Sizes = tuple[int, ...]


def _along(axis: int, cut: slice) -> tuple[slice, ...]:
    return (slice(None),) * axis + (cut,)


def _result(shape: tuple[int, ...], dtype: np.dtype[Any], out: Array | None) -> Array:
    return np.empty(shape, dtype) if out is None or not out.flags.c_contiguous else out


def _given(result: Array, out: Array | None) -> Array:
    if out is None or result is out:
        return result
    np.copyto(out, result)
    return out


def _pool(ufunc: np.ufunc, x: Array, output: Sizes, mean: bool, out: Array | None) -> Array:
    result = _result((*x.shape[:2], *output), x.dtype, out)
    kind, sizes = working(x.dtype), x.shape[2:]
    images, flat = x.reshape(-1, *sizes), result.reshape(-1, *output)

    def block(low: int, high: int) -> None:
        current = converted("adaptive input", images[low:high], kind)
        for axis, (size, count) in enumerate(zip(sizes, output, strict=True), 1):
            shape = (*current.shape[:axis], count, *current.shape[axis + 1 :])
            target = scratch(f"adaptive {axis % 2}", shape, kind)
            for i, (start, stop) in enumerate(bounds(size, count)):
                place = target[_along(axis, slice(i, i + 1))]
                ufunc.reduce(current[_along(axis, slice(start, stop))], axis=axis, keepdims=True, out=place)
                if mean:
                    place *= 1 / (stop - start)
            current = target
        np.copyto(flat[low:high], current, casting="unsafe")

    def whole(low: int, high: int) -> None:
        rows = converted("adaptive input", images[low:high], kind).reshape(high - low, -1)
        total = rows @ ones(rows.shape[1], kind)
        np.multiply(total, 1 / rows.shape[1], out=flat[low:high].reshape(-1), casting="unsafe")

    if x.size:
        over_blocks(whole if mean and prod(output) == 1 else block, len(images), prod(sizes), 2)
    return _given(result, out)


def adaptive_avg_pool(x: Array, *, output: Sizes, out: Array | None = None) -> Array:
    """The mean of each window."""
    return _pool(np.add, x, output, True, out)


def adaptive_max_pool(x: Array, *, output: Sizes, out: Array | None = None) -> Array:
    """The maximum of each window."""
    return _pool(np.maximum, x, output, False, out)


def adaptive_avg_pool_gradient(g: Array, *, sizes: Sizes, out: Array | None = None) -> Array:
    """The gradient of adaptive_avg_pool: each window's share to all its elements."""
    result = _result((*g.shape[:2], *sizes), g.dtype, out)
    kind, output = working(g.dtype), g.shape[2:]
    incoming, flat = g.reshape(-1, *output), result.reshape(-1, *sizes)

    def block(low: int, high: int) -> None:
        current = converted("adaptive input", incoming[low:high], kind)
        for axis, (size, count) in enumerate(zip(sizes, output, strict=True), 1):
            target = scratch(f"adaptive {axis % 2}", (*current.shape[:axis], size, *current.shape[axis + 1 :]), kind)
            target.fill(0)
            for i, (start, stop) in enumerate(bounds(size, count)):
                target[_along(axis, slice(start, stop))] += current[_along(axis, slice(i, i + 1))] * (
                    1 / (stop - start)
                )
            current = target
        np.copyto(flat[low:high], current, casting="unsafe")

    if result.size:
        over_blocks(block, len(incoming), prod(sizes), 3)
    return _given(result, out)


def adaptive_max_pool_gradient(g: Array, x: Array, *, out: Array | None = None) -> Array:
    """The gradient of adaptive_max_pool: to the first maximum, in row-major order, of each window."""
    result = _result(x.shape, x.dtype, out)
    kind, sizes, output = working(x.dtype), x.shape[2:], g.shape[2:]
    images, incoming, flat = x.reshape(-1, *sizes), g.reshape(-1, *output), result.reshape(-1, *sizes)
    edges = [bounds(size, count) for size, count in zip(sizes, output, strict=True)]

    def block(low: int, high: int) -> None:
        current = converted("adaptive input", images[low:high], kind)
        target = scratch("adaptive 0", current.shape, kind)
        target.fill(0)
        each = np.arange(high - low)
        for place in np.ndindex(*output):
            reach = [edge[i] for edge, i in zip(edges, place, strict=True)]
            seen = current[(slice(None), *(slice(*r) for r in reach))]
            rows = seen.reshape(high - low, -1)
            first = rows.argmax(axis=1)
            share = np.where(np.isnan(rows[each, first]), 0, incoming[(slice(low, high), *place)])
            corner = np.unravel_index(first, seen.shape[1:])
            target[(each, *(c + start for c, (start, _) in zip(corner, reach, strict=True)))] += share
        np.copyto(flat[low:high], target, casting="unsafe")

    if x.size:
        over_blocks(block, len(images), prod(sizes), 8)
    return _given(result, out)


for _op in (ops.adaptive_avg_pool1d, ops.adaptive_avg_pool2d, ops.adaptive_avg_pool3d):
    kernels.register(_op, out=True)(adaptive_avg_pool)
for _op in (ops.adaptive_max_pool1d, ops.adaptive_max_pool2d, ops.adaptive_max_pool3d):
    kernels.register(_op, out=True)(adaptive_max_pool)
for _op in (
    ops.adaptive_avg_pool1d_gradient,
    ops.adaptive_avg_pool2d_gradient,
    ops.adaptive_avg_pool3d_gradient,
):
    kernels.register(_op, out=True)(adaptive_avg_pool_gradient)
for _op in (
    ops.adaptive_max_pool1d_gradient,
    ops.adaptive_max_pool2d_gradient,
    ops.adaptive_max_pool3d_gradient,
):
    kernels.register(_op, out=True)(adaptive_max_pool_gradient)
