"""Normalization of groups of channels of each sample of x (N, C, ...); with one channel in each group, of instances.

Source: Wu and He, "Group Normalization", arXiv:1803.08494; torch.nn.functional.group_norm and instance_norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from hal import ops
from hal.errors import ShapeError
from hal.op import Array, Grads, Op, Rng, Sample
from hal.ops.batch_normalization import (
    NORM,
    affine,
    check_channels,
    lazily,
    norm_cost,
    over_channels,
    per_channel,
    total,
)
from hal.ops.common import floating, uniform
from hal.ops.convolution import check_groups, mirrored
from hal.ops.precision import widened
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _check(who: str, x: Spec, groups: int, weight: Spec | None, bias: Spec | None = None) -> None:
    check_channels(who, x, weight=weight, bias=bias)
    check_groups(who, groups, channels=x.shape[1])


def _infer(x: Spec, weight: Spec | None = None, bias: Spec | None = None, *, groups: int, eps: float = 1e-5) -> Spec:
    _check("group_norm", x, groups, weight, bias)
    return x


def _infer_gradient(
    g: Spec, x: Spec, weight: Spec | None = None, *, groups: int, eps: float = 1e-5
) -> tuple[Spec, Spec, Spec]:
    _check("group_norm_gradient", x, groups, weight)
    if g.shape != x.shape:
        raise ShapeError(f"group_norm_gradient needs a gradient of the shape of x, {x.shape}; got {g.shape}")
    channels = x.with_shape(x.shape[1:2])
    return x, channels, channels


def _infer_instance(x: Spec, weight: Spec | None = None, bias: Spec | None = None, *, eps: float = 1e-5) -> Spec:
    check_channels("instance_norm", x, weight=weight, bias=bias)
    return x


def _rows(shape: Shape, groups: int) -> Shape:
    """One row for each group: (N, groups, elements)."""
    return (shape[0], groups, shape[1] // groups * prod(shape[2:]))


def _normal(x: Array, groups: int, eps: float) -> tuple[Array, Array]:
    """`x` normalised, in rows, and by what each row was multiplied."""
    rows = x.reshape(_rows(x.shape, groups))
    count = max(rows.shape[2], 1)
    away = rows - total(rows, (2,), keepdims=True) / count
    inverse = 1 / np.sqrt(total(np.square(away), (2,), keepdims=True) / count + eps)
    return away * inverse, inverse


def _reference(x: Array, weight: Array | None = None, bias: Array | None = None, *, groups: int, eps: float) -> Array:
    result = _normal(x, groups, eps)[0].reshape(x.shape)
    result = result if weight is None else result * per_channel(weight, x.ndim)
    return result if bias is None else result + per_channel(bias, x.ndim)


def _reference_instance(x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float) -> Array:
    return _reference(x, weight, bias, groups=x.shape[1], eps=eps)


def _reference_gradient(
    g: Array, x: Array, weight: Array | None = None, *, groups: int, eps: float
) -> tuple[Array, Array, Array]:
    normal, inverse = _normal(x, groups, eps)
    scaled = (g if weight is None else g * per_channel(weight, x.ndim)).reshape(normal.shape)
    count = max(normal.shape[2], 1)
    mean = total(scaled, (2,), keepdims=True) / count
    along = total(scaled * normal, (2,), keepdims=True) / count
    axes = over_channels(x.ndim)
    of_x = inverse * (scaled - mean - normal * along)
    return of_x.reshape(x.shape), total(g * normal.reshape(x.shape), axes), total(g, axes)


def _magnitude_of_gradient(g: Array, x: Array, weight: Array | None = None, *, groups: int, eps: float) -> float:
    scaled = (g if weight is None else g * per_channel(weight, x.ndim)).reshape(_rows(x.shape, groups))
    return float(np.max(np.abs(scaled * _normal(x, groups, eps)[1]), initial=0))


def _decompose(x: Tensor, *affine: Tensor, groups: int, eps: float) -> Tensor:
    rows = ops.reshape(x, shape=_rows(x.shape, groups))
    result = ops.reshape(ops.layer_norm(rows, dims=1, eps=eps), shape=x.shape)
    if affine:
        result = result * per_channel(affine[0], x.ndim)
    return result + per_channel(affine[1], x.ndim) if len(affine) == 2 else result


def _decompose_gradient(
    g: Tensor, x: Tensor, *weight: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    rows, axes = _rows(x.shape, groups), over_channels(x.ndim)
    flat = ops.reshape(x, shape=rows)
    scaled = g * per_channel(weight[0], x.ndim) if weight else g
    of_x = ops.layer_norm_gradient(ops.reshape(scaled, shape=rows), flat, dims=1, eps=eps)[0]
    normal = ops.reshape(ops.layer_norm(flat, dims=1, eps=eps), shape=x.shape)
    return ops.reshape(of_x, shape=x.shape), ops.sum(g * normal, axis=axes), ops.sum(g, axis=axes)


def _gradient(g: Tensor, out: Tensor, x: Tensor, *affine: Tensor, groups: int, eps: float) -> Grads:
    direct = lazily(lambda: ops.group_norm_gradient(g, x, *affine[:1], groups=groups, eps=eps))
    return tuple(direct(i) for i in range(1 + len(affine)))


def _gradient_instance(g: Tensor, out: Tensor, x: Tensor, *affine: Tensor, eps: float) -> Grads:
    return _gradient(g, out, x, *affine, groups=x.shape[1], eps=eps)


def _decompose_instance(x: Tensor, *affine: Tensor, eps: float) -> Tensor:
    return ops.group_norm(x, *affine, groups=x.shape[1], eps=eps)


def _cases() -> Iterator[tuple[Shape, int, int]]:
    """Shapes of inputs, numbers of groups, and how many of weight and bias there are."""
    yield (2, 4, 3), 2, 0
    yield (2, 4, 3), 4, 2
    yield (2, 4, 2, 3), 1, 1
    yield (1, 6, 2, 2), 3, 2
    yield (3, 4), 2, 2
    yield (0, 4, 3), 2, 2
    yield (2, 2, 2, 2, 2), 2, 2
    yield (3, 8, 31, 29), 4, 2


def _samples(rng: Rng) -> Iterator[Sample]:
    for shape, groups, count in _cases():
        given = affine(rng, shape[1:2], count)
        settings = {"groups": groups, "eps": 1e-5}
        yield Sample((uniform(rng, shape), *given), settings, smooth=prod(shape) < 100)
        yield Sample((mirrored(uniform(rng, shape)), *map(mirrored, given)), {**settings, "eps": 0.1}, smooth=False)


def _samples_of_instance(rng: Rng) -> Iterator[Sample]:
    for shape, _, count in _cases():
        if len(shape) > 2:
            given = affine(rng, shape[1:2], count)
            yield Sample((uniform(rng, shape), *given), {"eps": 1e-5}, smooth=prod(shape) < 100)


def _samples_of_gradient(rng: Rng) -> Iterator[Sample]:
    for shape, groups, count in _cases():
        given = (uniform(rng, shape), uniform(rng, shape), *affine(rng, shape[1:2], min(count, 1)))
        settings = {"groups": groups, "eps": 1e-5}
        yield Sample(given, settings, smooth=prod(shape) < 100)
        yield Sample(tuple(map(mirrored, given)), {**settings, "eps": 0.1}, smooth=False)


group_norm = Op(
    "group_norm", _infer, _reference, _samples, _gradient, widened(_decompose), norm_cost,
    promote=floating, tolerance=NORM,
    doc="Each group of channels of each sample of x (N, C, ...) normalised, then weight and bias for each channel.",
)  # fmt: skip
group_norm_gradient = Op(
    "group_norm_gradient", _infer_gradient, _reference_gradient, _samples_of_gradient, None,
    widened(_decompose_gradient), norm_cost, promote=floating, tolerance=NORM, magnitude=_magnitude_of_gradient,
    doc="The gradients of group_norm by x, weight and bias, given that of its result.",
)  # fmt: skip
instance_norm = Op(
    "instance_norm", _infer_instance, _reference_instance, _samples_of_instance, _gradient_instance,
    widened(_decompose_instance), norm_cost, promote=floating, tolerance=NORM,
    doc="Each channel of each sample of x (N, C, ...) normalised, then weight and bias for each channel.",
)  # fmt: skip
