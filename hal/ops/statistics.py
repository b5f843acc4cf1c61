"""Reductions to a typical value: mean, variance, standard deviation, and the logarithm of a sum of exponentials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import ops
from hal.op import SUMS, Array, Cost, Grads, Op, Rng, Sample, in_norm
from hal.ops.common import FLOATS, INEXACT, LARGE, check_kind, floating, quiet, uniform
from hal.ops.reduction import reduction
from hal.ops.steps import Axes, count, in_float32, kept, kept_shape, spread
from hal.spec import Spec, normalize_axes

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _mean(x: Tensor, *, axis: Axes, keepdims: bool) -> Tensor:
    return ops.sum(x, axis=axis, keepdims=keepdims) / count(x.shape, axis)


def _gradient_of_mean(g: Tensor, out: Tensor, x: Tensor, *, axis: Axes, keepdims: bool) -> Grads:
    return (spread(g / count(x.shape, axis), x.shape, axis),)


def _mean_in_numpy(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    return np.asarray(np.sum(x, axis=axis, keepdims=keepdims) / np.float64(count(x.shape, axis)))


def _logsumexp_in_numpy(x: Array, *, axis: Axes = None, keepdims: bool = False) -> Array:
    if count(x.shape, axis) == 0:
        return np.asarray(np.log(np.sum(x, axis=axis, keepdims=keepdims)))
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isinf(top), 0, top)
    out = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return np.asarray(out if keepdims else out.reshape(np.sum(x, axis=axis).shape))


def _logsumexp(x: Tensor, *, axis: Axes, keepdims: bool) -> Tensor:
    if count(x.shape, axis) == 0:
        return ops.log(ops.sum(x, axis=axis, keepdims=keepdims))
    top = ops.max(x, axis=axis, keepdims=True)
    top = ops.where(ops.isinf(top), 0, top)  # inf - inf is not a number
    out = ops.log(ops.sum(ops.exp(x - top), axis=axis, keepdims=True)) + top
    axes = normalize_axes("logsumexp", axis, x.ndim)
    shape = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    return out if keepdims else ops.reshape(out, shape=shape)


def _gradient_of_logsumexp(g: Tensor, out: Tensor, x: Tensor, *, axis: Axes, keepdims: bool) -> Grads:
    # The share of each element. An infinite result: its infinite elements have the share 1, and where there is
    # nothing but minus infinity the share is 0.
    top = kept(out, x.shape, axis)
    top = ops.where(ops.equal(top, -np.inf), 0, top)
    share = ops.exp(ops.where(ops.equal(x, top), 0, x - top))
    return (kept(g, x.shape, axis) * share,)


# fmt: off
mean = reduction("mean", _mean_in_numpy, _gradient_of_mean, decompose=in_float32(_mean), kinds=INEXACT,
                 promote=floating, tolerance=SUMS,
                 doc="The mean over `axis`, of integers in float32; NaN if there are no elements.")
logsumexp = reduction("logsumexp", _logsumexp_in_numpy, _gradient_of_logsumexp, decompose=in_float32(_logsumexp),
                      kinds=FLOATS, promote=floating, tolerance=in_norm(16),
                      doc="log(sum(exp(x))) over `axis`, without overflow; minus infinity if there are no elements.")
# fmt: on


# Variance and standard deviation, with torch's `correction`: the sum of squares is divided by n - correction.


def _infer_spread(name: str) -> Callable[..., Spec]:
    def infer(x: Spec, *, axis: Axes = None, keepdims: bool = False, correction: int | float = 1) -> Spec:
        check_kind(name, x, FLOATS)
        axes = normalize_axes(name, axis, x.ndim)
        shape = kept_shape(x.shape, axis) if keepdims else tuple(n for i, n in enumerate(x.shape) if i not in axes)
        return Spec(shape, x.dtype)

    return infer


def _freedom(x: Tensor, axis: Axes, correction: int | float) -> int | float:
    """By how much the sum of squares is divided: never less than zero, as in NumPy and torch."""
    return max(count(x.shape, axis) - correction, 0)


def _var(x: Tensor, *, axis: Axes, keepdims: bool, correction: int | float) -> Tensor:
    away = x - ops.mean(x, axis=axis, keepdims=True)
    return ops.sum(away * away, axis=axis, keepdims=keepdims) / _freedom(x, axis, correction)


def _std(x: Tensor, *, axis: Axes, keepdims: bool, correction: int | float) -> Tensor:
    return ops.sqrt(ops.var(x, axis=axis, keepdims=keepdims, correction=correction))


def _gradient_of_var(
    g: Tensor, out: Tensor, x: Tensor, *, axis: Axes, keepdims: bool, correction: int | float
) -> Grads:
    away = x - ops.mean(x, axis=axis, keepdims=True)
    return (away * (kept(g, x.shape, axis) * 2 / _freedom(x, axis, correction)),)


def _gradient_of_std(
    g: Tensor, out: Tensor, x: Tensor, *, axis: Axes, keepdims: bool, correction: int | float
) -> Grads:
    away = x - ops.mean(x, axis=axis, keepdims=True)
    still = ops.equal(out, 0)  # where nothing varies the gradient is zero, as in torch
    scale = ops.where(still, 0, g / (ops.where(still, 1, out) * _freedom(x, axis, correction)))
    return (away * kept(scale, x.shape, axis),)


def _samples_of_spread(rng: Rng) -> Iterator[Sample]:
    axes: list[Axes] = [None, 0, -1, (0, 2), (-1, 1)]
    for axis in axes:
        for correction in (0, 1):
            settings = {"axis": axis, "keepdims": axis in (None, -1), "correction": correction}
            yield Sample((uniform(rng, (3, 4, 5)),), settings)
    yield Sample((uniform(rng, (3, 4)),), {"axis": 0, "correction": 0.5})
    yield Sample((uniform(rng, (3, 4), 100, 101),), {"axis": 1}, smooth=False)
    yield Sample((uniform(rng, (2, 1)),), {"axis": 1}, smooth=False)  # 0 / 0
    yield Sample((uniform(rng, (0, 3)),), {"axis": 0}, smooth=False)
    yield Sample((uniform(rng, (0, 3)),), {"axis": 1})
    yield Sample((uniform(rng, (6, 3))[::-2].T,), {"axis": 1})
    yield Sample((uniform(rng, (LARGE,)),), {}, smooth=False)
    yield Sample((uniform(rng, (LARGE // 2, 3)),), {"axis": 0}, smooth=False)
    odd = np.array([[np.nan, 1, 2], [np.inf, 1, 2], [5, 5, 5], [-1, 0, 1]], np.float32)
    yield Sample((odd,), {"axis": 1}, smooth=False)
    yield Sample((np.array([[1, 2, 4], [5, 5, 6]], np.int32),), {"axis": 1}, smooth=False, exact=True)


def _cost_of_spread(x: Spec, *, out: Spec, **settings: object) -> Cost:
    return Cost(4 * x.size, 2 * x.nbytes + out.nbytes)


def _var_in_numpy(x: Array, *, axis: Axes = None, keepdims: bool = False, correction: int | float = 1) -> Array:
    n = count(x.shape, axis)
    away = x - np.sum(x, axis=axis, keepdims=True) / n if n else x
    return np.asarray(np.sum(away * away, axis=axis, keepdims=keepdims) / np.float64(max(n - correction, 0)))


def _std_in_numpy(x: Array, **settings: Any) -> Array:
    return np.asarray(np.sqrt(_var_in_numpy(x, **settings)))


_SPREAD = in_norm(64, "a rounding of each square and of their sum; the squares are of differences from the mean")
var = Op(
    "var", _infer_spread("var"), quiet(_var_in_numpy), _samples_of_spread, _gradient_of_var, in_float32(_var),
    _cost_of_spread, "reduction", promote=floating, tolerance=_SPREAD,
    doc="The variance over `axis`: the sum of squared differences from the mean, divided by n - `correction`.",
)  # fmt: skip
std = Op(
    "std", _infer_spread("std"), quiet(_std_in_numpy), _samples_of_spread, _gradient_of_std, in_float32(_std),
    _cost_of_spread, "reduction", promote=floating, tolerance=_SPREAD,
    doc="The standard deviation over `axis`: the square root of `var`. Its gradient is zero where nothing varies.",
)  # fmt: skip
