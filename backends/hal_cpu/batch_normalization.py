"""Batch normalization in NumPy: each channel of (N, C, places) shifted and scaled, in blocks that stay in the cache."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cpu.images_last import empty, lie_last, turned
from hal_cpu.normalization import Three, converted, delivered, ones, over_blocks
from hal_cpu.parallel import scratch
from hal_cpu.precision import working
from hal_cpu.reduction import PIECE, sum_of_rows
from hal_cpu.table import kernels

WHOLE = 1 << 22  # elements up to which copies of all of them may be made on the way
TOGETHER = 4096  # elements that one step goes over without a break, where channels lie side by side


@lru_cache(maxsize=256)
def _largest_divisor(n: int, limit: int) -> int:
    return max(d for d in range(1, max(min(n, limit), 1) + 1) if n % d == 0)


class _View:
    """An array (N, C, places...) as samples (n, channels, places), without a copy for the layouts that matter.

    In row-major order these are the array's own. Where images lie last, all are one sample, whose channels are long
    rows; or if that is large, each row of all images is one. Where channels lie side by side in memory, a sample is as
    many neighbouring groups of them as fit, and each of those counts as channels of its own, until sums are folded.
    """

    def __init__(self, x: Array) -> None:
        self.to_last = (0, *range(2, x.ndim), 1)
        self.to_first = (0, x.ndim - 1, *range(1, x.ndim - 1))
        self.channels = x.shape[1]
        self.images_last = not x.flags.c_contiguous and lie_last(x)
        self.side_by_side = not x.flags.c_contiguous and x.transpose(self.to_last).flags.c_contiguous
        groups = x.size // max(self.channels, 1)
        self.times = _largest_divisor(groups, TOGETHER // max(self.channels, 1)) if self.side_by_side else 1

    def samples(self, x: Array) -> Array:
        """The samples of `x`: a view where `fits`."""
        if self.images_last:
            if x.size <= WHOLE:
                return turned(x).reshape(1, x.shape[1], -1)
            return turned(x).swapaxes(0, 1).reshape(x.shape[2], x.shape[1], -1)
        if not self.side_by_side:
            return x.reshape(x.shape[0], x.shape[1], prod(x.shape[2:]))
        return x.transpose(self.to_last).reshape(-1, self.times * self.channels, 1)

    def fits(self, out: Array) -> bool:
        """Whether `out` lies in memory in this way, without gaps."""
        if self.images_last:
            return lie_last(out)
        return (out.transpose(self.to_last) if self.side_by_side else out).flags.c_contiguous

    def empty(self, like: Array) -> Array:
        """New memory for an array of the same shape and dtype, which `fits`."""
        if self.images_last:
            return empty(like.shape, like.dtype)
        if not self.side_by_side:
            return np.empty(like.shape, like.dtype)
        return np.empty(like.transpose(self.to_last).shape, like.dtype).transpose(self.to_first)

    def per_channel(self, given: Array, dtype: np.dtype[Any]) -> Array:
        """One number for each channel, shaped to broadcast to samples."""
        return np.tile(np.asarray(given, dtype), self.times)[:, None]

    def total(self, parts: list[Array], dtype: np.dtype[Any]) -> Array:
        """The sum for each channel of what each block gave for its own."""
        total: Array = np.zeros(self.times * self.channels, dtype)
        for found in parts:
            total += found
        return np.asarray(np.add.reduce(total.reshape(self.times, self.channels), 0))


def _total(block: Array) -> Array:
    """The sum of each channel of a block (n, C, places)."""
    count, channels, places = block.shape
    if places == 1:
        return np.asarray(ones(count, block.dtype) @ block.reshape(count, channels))
    sums = sum_of_rows(block.reshape(count * channels, places))
    return np.asarray(np.add.reduce(sums.reshape(count, channels), 0))


def _total_product(a: Array, b: Array) -> Array:
    """The sum of a * b in each channel of two blocks (n, C, places)."""
    if a.shape[2] == 1:
        return np.asarray(np.einsum("nc,nc->c", a[:, :, 0], b[:, :, 0]))
    long = a.shape[2] // PIECE * PIECE
    sums = np.vecdot(a[:, :, long:], b[:, :, long:])
    if long:  # in pieces, which keeps the error small
        shape = (*a.shape[:2], -1, PIECE)
        sums += np.add.reduce(np.vecdot(a[:, :, :long].reshape(shape), b[:, :, :long].reshape(shape)), 2)
    return np.asarray(np.add.reduce(sums, 0))


def _apply(
    view: _View, x: Array, mean: Array, inverse: Array, weight: Array | None, bias: Array | None, out: Array | None
) -> Array:
    """(x - mean) * inverse * weight + bias."""
    result = out if out is not None and view.fits(out) else view.empty(x)
    kind = working(x.dtype)
    samples, flat = view.samples(x), view.samples(result)
    center = view.per_channel(mean, kind)
    scale = view.per_channel(inverse if weight is None else inverse * weight.astype(inverse.dtype), kind)
    shift = None if bias is None else view.per_channel(bias, kind)

    def block(low: int, high: int) -> None:
        target = flat[low:high] if flat.dtype == kind else scratch("norm output", flat[low:high].shape, kind)
        np.subtract(converted("norm input", samples[low:high], kind), center, out=target)
        target *= scale
        if shift is not None:
            target += shift
        if flat.dtype != kind:
            np.copyto(flat[low:high], target, casting="unsafe")

    if x.size:
        over_blocks(block, len(samples), samples[0].size, 4)
    if out is None or result is out:
        return result
    np.copyto(out, result)
    return out


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
    return _apply(_View(x), x, mean, 1 / np.sqrt(var.astype(working(var.dtype)) + eps), weight, bias, out)


@kernels.register(ops.batch_norm_train, out=True)
def batch_norm_train(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float, out: Three | None = None
) -> Three:
    """Normalization by the batch's own mean and variance, which are also results."""
    kind, view = working(x.dtype), _View(x)
    samples = view.samples(x)
    count, size = max(x.size // max(view.channels, 1), 1), samples.shape[1] * samples.shape[2]
    sums = over_blocks(lambda a, b: _total(converted("norm input", samples[a:b], kind)), len(samples), size, 1)
    mean = view.total(sums, kind)
    mean /= count
    center = view.per_channel(mean, kind)

    def spread(low: int, high: int) -> Array:
        away = scratch("norm output", samples[low:high].shape, kind)
        np.subtract(converted("norm input", samples[low:high], kind), center, out=away)
        return _total_product(away, away)

    var = view.total(over_blocks(spread, len(samples), size, 2), kind)
    var /= count
    result = _apply(view, x, mean, 1 / np.sqrt(var + eps), weight, bias, None if out is None else out[0])
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
    kind, view = working(x.dtype), _View(x)
    samples, incoming = view.samples(x), view.samples(g)
    count, size = max(x.size // max(view.channels, 1), 1), samples.shape[1] * samples.shape[2]
    center = view.per_channel(mean, kind)
    inverse = 1 / np.sqrt(var.astype(kind) + eps)

    def totals(low: int, high: int) -> tuple[Array, Array]:
        grad = converted("norm gradient", incoming[low:high], kind)
        away = scratch("norm output", grad.shape, kind)
        np.subtract(converted("norm input", samples[low:high], kind), center, out=away)
        return _total(grad), _total_product(grad, away)

    found = over_blocks(totals, len(samples), size, 4)
    of_bias = view.total([by_bias for by_bias, _ in found], kind)
    of_weight = view.total([by_weight for _, by_weight in found], kind) * inverse
    scale = inverse if weight is None else inverse * weight.astype(kind)
    factor, slope = view.per_channel(scale, kind), view.per_channel(scale * inverse * of_weight / count, kind)
    offset = view.per_channel(scale * of_bias / count, kind)
    whole = out[0] if out is not None and view.fits(out[0]) else view.empty(x)
    flat = view.samples(whole)

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

    over_blocks(block, len(samples), size, 7)
    return delivered((whole, of_weight, of_bias), x.dtype, out)
