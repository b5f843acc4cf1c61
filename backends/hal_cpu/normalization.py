"""Normalization of rows in NumPy: layer, root mean square, group and instance norms, and their gradients.

All are the same work on rows: those of a layer norm are what its last axes hold, those of a group norm are the groups
of channels of each sample. It is done in blocks that stay in the cache, with the sums as products in BLAS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cpu.parallel import in_parts, scratch
from hal_cpu.precision import working
from hal_cpu.table import kernels

BLOCK = 1 << 16  # elements at a time: a few arrays of this size fit a second-level cache


@lru_cache(maxsize=64)
def ones(n: int, dtype: np.dtype[Any]) -> Array:
    """`n` ones, by which a product in BLAS is a sum."""
    return np.ones(n, dtype)


def converted(name: str, block: Array, dtype: np.dtype[Any]) -> Array:
    """`block` in the type to compute in, copied only if it must be."""
    if block.dtype == dtype and block.flags.c_contiguous:
        return block
    copy = scratch(name, block.shape, dtype)
    np.copyto(copy, block, casting="unsafe")
    return copy


def over_blocks(function: Callable[..., Any], count: int, size: int, steps: int) -> list[Any]:
    """What each thread's calls function(start, stop) over blocks of a range of `count` things of `size` elements gave.

    `steps` is the number of steps over each element, for `in_parts`.
    """
    at_once = max(BLOCK // max(size, 1), 1)

    def part(first: int, last: int) -> list[Any]:
        return [function(low, min(low + at_once, last)) for low in range(first, last, at_once)]

    return [found for results in in_parts(part, count, float(steps) * count * size) for found in results]


def _normalize(rows: Array, eps: float, centered: bool, out: Array) -> Array:
    """Write the normalised rows into `out`; the result is by what each was multiplied, (rows, 1)."""
    size = max(rows.shape[1], 1)
    if centered:
        mean = rows @ ones(rows.shape[1], rows.dtype)
        mean /= size
        np.subtract(rows, mean[:, None], out=out)
        rows = out
    inverse = np.vecdot(rows, rows)
    inverse /= size
    inverse += eps
    np.sqrt(inverse, out=inverse)
    np.reciprocal(inverse, out=inverse)
    np.multiply(rows, inverse[:, None], out=out)
    return inverse[:, None]


def _pull_back(normal: Array, inverse: Array, g: Array, centered: bool, out: Array) -> None:
    """Write the gradient by the rows into `out`, given their normalised form and the gradient `g` of that."""
    size = max(g.shape[1], 1)
    along = np.vecdot(g, normal)
    along /= -size
    np.multiply(normal, along[:, None], out=out)
    out += g
    if centered:
        mean = g @ ones(g.shape[1], g.dtype)
        mean /= size
        out -= mean[:, None]
    out *= inverse


class _Layout:
    """How an array is cut into samples of rows, and how weights apply to a block of them.

    Attributes:
        rows: how many rows one sample has; the rest of its elements are in one row.
        affine: the shape of a sample to which weights of shape `weights` broadcast.
    """

    def __init__(
        self, shape: tuple[int, ...], samples: int, rows: int, affine: tuple[int, ...], per_place: bool
    ) -> None:
        self.samples = samples
        self.size = prod(shape) // samples if samples else 0
        self.rows = rows
        self.affine = affine
        self.per_place = per_place  # whether there is a weight for each place of a row, and not one for each channel

    def as_rows(self, block: Array) -> Array:
        return block.reshape(len(block) * self.rows, -1 if block.size else self.size // max(self.rows, 1))

    def as_affine(self, block: Array) -> Array:
        return block.reshape(len(block), *self.affine)

    def weight(self, weight: Array, dtype: np.dtype[Any]) -> Array:
        flat = np.ascontiguousarray(weight.reshape(-1), dtype)
        return flat if self.per_place else flat[:, None]

    def total(self, block: Array) -> Array:
        """The sum of what belongs to each weight."""
        if self.per_place:
            return np.asarray(ones(len(block), block.dtype) @ block)
        count, channels, places = self.as_affine(block).shape
        sums = block.reshape(count * channels, places) @ ones(places, block.dtype)
        return np.asarray(np.add.reduce(sums.reshape(count, channels), 0))


def _of_last_axes(x: Array, dims: int) -> _Layout:
    size = prod(x.shape[x.ndim - dims :])
    return _Layout(x.shape, prod(x.shape[: x.ndim - dims]), 1, (size,), True)


def _of_groups(x: Array, groups: int) -> _Layout:
    return _Layout(x.shape, x.shape[0], groups, (x.shape[1], prod(x.shape[2:])), False)


def _forward(
    x: Array, weight: Array | None, bias: Array | None, layout: _Layout, eps: float, centered: bool, out: Array | None
) -> Array:
    result = np.empty(x.shape, x.dtype) if out is None else out
    if x.size == 0:
        return result
    kind = working(x.dtype)
    samples = x.reshape(layout.samples, layout.size)
    direct = result.dtype == kind and result.flags.c_contiguous
    flat = result.reshape(samples.shape) if result.flags.c_contiguous else np.empty(samples.shape, x.dtype)
    scale = None if weight is None else layout.weight(weight, kind)
    shift = None if bias is None else layout.weight(bias, kind)

    def block(low: int, high: int) -> None:
        given = converted("norm input", samples[low:high], kind)
        target = flat[low:high] if direct else scratch("norm output", given.shape, kind)
        _normalize(layout.as_rows(given), eps, centered, layout.as_rows(target))
        view = layout.as_affine(target)
        if scale is not None:
            view *= scale
        if shift is not None:
            view += shift
        if not direct:
            np.copyto(flat[low:high], target, casting="unsafe")

    over_blocks(block, layout.samples, layout.size, 6)
    if not result.flags.c_contiguous:
        np.copyto(result, flat.reshape(x.shape))
    return result


Three = tuple[Array, ...]  # the gradients by the input, the weight and the bias


def _backward(
    g: Array, x: Array, weight: Array | None, layout: _Layout, eps: float, centered: bool, out: tuple[Array, ...] | None
) -> Three:
    kind = working(x.dtype)
    of_weight = np.zeros(prod(layout.affine) if layout.per_place else layout.affine[0], kind)
    of_bias = np.zeros_like(of_weight)
    whole = np.empty(x.shape, x.dtype) if out is None or not out[0].flags.c_contiguous else out[0]
    if x.size:
        samples, incoming = x.reshape(layout.samples, layout.size), g.reshape(layout.samples, layout.size)
        flat = whole.reshape(samples.shape)
        scale = None if weight is None else layout.weight(weight, kind)

        def block(low: int, high: int) -> tuple[Array, Array]:
            given = converted("norm input", samples[low:high], kind)
            grad = converted("norm gradient", incoming[low:high], kind)
            normal = scratch("norm normal", given.shape, kind)
            inverse = _normalize(layout.as_rows(given), eps, centered, layout.as_rows(normal))
            product = scratch("norm product", given.shape, kind)
            np.multiply(grad, normal, out=product)
            totals = layout.total(product), layout.total(grad)
            if scale is not None:
                np.multiply(layout.as_affine(grad), scale, out=layout.as_affine(product))
                grad = product
            target = flat[low:high] if flat.dtype == kind else scratch("norm output", given.shape, kind)
            rows = layout.as_rows
            _pull_back(rows(normal), inverse, rows(grad), centered, rows(target))
            if flat.dtype != kind:
                np.copyto(flat[low:high], target, casting="unsafe")
            return totals

        for by_weight, by_bias in over_blocks(block, layout.samples, layout.size, 14):
            of_weight += by_weight
            of_bias += by_bias
    return delivered((whole, of_weight, of_bias), x.dtype, out)


def delivered(results: Three, dtype: np.dtype[Any], out: tuple[Array, ...] | None) -> Three:
    """Results in the type that was asked for, in `out` if that was given."""
    if out is None:
        return tuple(r if r.dtype == dtype else r.astype(dtype) for r in results)
    for result, target in zip(results, out, strict=True):
        if result is not target:
            np.copyto(target, result.reshape(target.shape), casting="unsafe")
    return out


@kernels.register(ops.layer_norm, out=True)
def layer_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    dims: int,
    eps: float,
    out: Array | None = None,
) -> Array:
    """Layer normalization of the last `dims` axes."""
    return _forward(x, weight, bias, _of_last_axes(x, dims), eps, True, out)


@kernels.register(ops.rms_norm, out=True)
def rms_norm(x: Array, weight: Array | None = None, *, dims: int, eps: float, out: Array | None = None) -> Array:
    """Root mean square normalization of the last `dims` axes."""
    return _forward(x, weight, None, _of_last_axes(x, dims), eps, False, out)


@kernels.register(ops.group_norm, out=True)
def group_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    groups: int,
    eps: float,
    out: Array | None = None,
) -> Array:
    """Normalization of groups of channels."""
    return _forward(x, weight, bias, _of_groups(x, groups), eps, True, out)


@kernels.register(ops.instance_norm, out=True)
def instance_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float, out: Array | None = None
) -> Array:
    """Normalization of each channel of each sample."""
    return _forward(x, weight, bias, _of_groups(x, x.shape[1]), eps, True, out)


@kernels.register(ops.layer_norm_gradient, out=True)
def layer_norm_gradient(
    g: Array, x: Array, weight: Array | None = None, *, dims: int, eps: float, out: Three | None = None
) -> Three:
    """The gradients of layer_norm by x, weight and bias."""
    of_x, of_weight, of_bias = _backward(g, x, weight, _of_last_axes(x, dims), eps, True, out)
    last = x.shape[x.ndim - dims :]
    return out or (of_x, of_weight.reshape(last), of_bias.reshape(last))


@kernels.register(ops.rms_norm_gradient)
def rms_norm_gradient(g: Array, x: Array, weight: Array | None = None, *, dims: int, eps: float) -> tuple[Array, Array]:
    """The gradients of rms_norm by x and weight."""
    of_x, of_weight, _ = _backward(g, x, weight, _of_last_axes(x, dims), eps, False, None)
    return of_x, of_weight.reshape(x.shape[x.ndim - dims :])


@kernels.register(ops.group_norm_gradient, out=True)
def group_norm_gradient(
    g: Array, x: Array, weight: Array | None = None, *, groups: int, eps: float, out: Three | None = None
) -> Three:
    """The gradients of group_norm by x, weight and bias."""
    return _backward(g, x, weight, _of_groups(x, groups), eps, True, out)
