"""Batch normalization in NumPy: each channel of (N, C, places) shifted and scaled, in blocks that stay in the cache."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cpu.normalization import Three, converted, delivered, ones, over_blocks
from hal_cpu.parallel import scratch
from hal_cpu.precision import working
from hal_cpu.table import kernels


def _samples(x: Array) -> Array:
    return x.reshape(x.shape[0], x.shape[1], prod(x.shape[2:]))


def _channels(given: Array, dtype: np.dtype[Any]) -> Array:
    """One number for each channel, shaped to broadcast to (N, C, places)."""
    return np.ascontiguousarray(given, dtype)[:, None]


def _total(block: Array) -> Array:
    """The sum of each channel of a block (n, C, places)."""
    count, channels, places = block.shape
    if places == 1:
        return np.asarray(ones(count, block.dtype) @ block.reshape(count, channels))
    sums = block.reshape(count * channels, places) @ ones(places, block.dtype)
    return np.asarray(np.add.reduce(sums.reshape(count, channels), 0))


def _total_product(a: Array, b: Array) -> Array:
    """The sum of a * b in each channel of two blocks (n, C, places)."""
    if a.shape[2] == 1:
        return np.asarray(np.einsum("nc,nc->c", a[:, :, 0], b[:, :, 0]))
    return np.asarray(np.add.reduce(np.vecdot(a, b), 0))


def _sum(parts: list[Array], like: Array) -> Array:
    """The sum of what each block gave."""
    total: Array = np.zeros(like.shape[1], working(like.dtype))
    for found in parts:
        total += found
    return total


def _apply(x: Array, mean: Array, inverse: Array, weight: Array | None, bias: Array | None, out: Array | None) -> Array:
    """(x - mean) * inverse * weight + bias."""
    result = np.empty(x.shape, x.dtype) if out is None else out
    if x.size == 0:
        return result
    kind = working(x.dtype)
    samples = _samples(x)
    direct = result.dtype == kind and result.flags.c_contiguous
    flat = _samples(result) if result.flags.c_contiguous else np.empty(samples.shape, x.dtype)
    center = _channels(mean, kind)
    scale = _channels(inverse if weight is None else inverse * weight.astype(inverse.dtype), kind)
    shift = None if bias is None else _channels(bias, kind)

    def block(low: int, high: int) -> None:
        target = flat[low:high] if direct else scratch("norm output", flat[low:high].shape, kind)
        np.subtract(converted("norm input", samples[low:high], kind), center, out=target)
        target *= scale
        if shift is not None:
            target += shift
        if not direct:
            np.copyto(flat[low:high], target, casting="unsafe")

    over_blocks(block, len(samples), samples[0].size, 4)
    if not result.flags.c_contiguous:
        np.copyto(result, flat.reshape(x.shape))
    return result


@kernels.register(ops.batch_norm, out=True)
def batch_norm(
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float,
    out: Array | None = None,
) -> Array:
    """Normalization by a mean and variance that are given."""
    return _apply(x, mean, 1 / np.sqrt(var.astype(working(var.dtype)) + eps), weight, bias, out)


@kernels.register(ops.batch_norm_train, out=True)
def batch_norm_train(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float, out: Three | None = None
) -> Three:
    """Normalization by the batch's own mean and variance, which are also results."""
    kind = working(x.dtype)
    samples = _samples(x)
    count = max(x.shape[0] * samples.shape[2], 1)
    size = samples.shape[1] * samples.shape[2]
    mean = _sum(over_blocks(lambda a, b: _total(converted("norm input", samples[a:b], kind)), len(x), size, 1), x)
    mean /= count
    center = mean[:, None]

    def spread(low: int, high: int) -> Array:
        away = scratch("norm output", samples[low:high].shape, kind)
        np.subtract(converted("norm input", samples[low:high], kind), center, out=away)
        return _total_product(away, away)

    var = _sum(over_blocks(spread, len(x), size, 2), x)
    var /= count
    result = _apply(x, mean, 1 / np.sqrt(var + eps), weight, bias, None if out is None else out[0])
    return delivered((result, mean, var), x.dtype, out)


@kernels.register(ops.batch_norm_train_gradient, out=True)
def batch_norm_train_gradient(
    g: Array,
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None = None,
    *,
    eps: float,
    out: Three | None = None,
) -> Three:
    """The gradients of batch_norm_train by x, weight and bias."""
    kind = working(x.dtype)
    samples, incoming = _samples(x), _samples(g)
    count, size = max(x.shape[0] * samples.shape[2], 1), samples.shape[1] * samples.shape[2]
    center = _channels(mean, kind)
    inverse = 1 / np.sqrt(var.astype(kind) + eps)

    def totals(low: int, high: int) -> tuple[Array, Array]:
        grad = converted("norm gradient", incoming[low:high], kind)
        away = scratch("norm output", grad.shape, kind)
        np.subtract(converted("norm input", samples[low:high], kind), center, out=away)
        return _total(grad), _total_product(grad, away)

    found = over_blocks(totals, len(x), size, 4)
    of_bias = _sum([by_bias for by_bias, _ in found], x)
    of_weight = _sum([by_weight for _, by_weight in found], x) * inverse
    scale = inverse if weight is None else inverse * weight.astype(kind)
    factor, slope = _channels(scale, kind), _channels(scale * inverse * of_weight / count, kind)
    offset = _channels(scale * of_bias / count, kind)
    whole = np.empty(x.shape, x.dtype) if out is None or not out[0].flags.c_contiguous else out[0]
    flat = _samples(whole)

    def block(low: int, high: int) -> None:
        grad = converted("norm gradient", incoming[low:high], kind)
        target = flat[low:high] if flat.dtype == kind else scratch("norm product", grad.shape, kind)
        np.multiply(grad, factor, out=target)
        away = scratch("norm output", grad.shape, kind)
        np.subtract(converted("norm input", samples[low:high], kind), center, out=away)
        away *= slope
        away += offset
        target -= away
        if flat.dtype != kind:
            np.copyto(flat[low:high], target, casting="unsafe")

    over_blocks(block, len(x), size, 7)
    return delivered((whole, of_weight, of_bias), x.dtype, out)
