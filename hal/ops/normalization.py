"""Normalization over the last axes of an array: layer_norm, rms_norm, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import ops
from hal.errors import SettingError, ShapeError
from hal.op import Array, Grads, Op, Rng, Sample
from hal.ops.batch_normalization import NORM, affine, lazily, norm_cost, total
from hal.ops.common import FLOATS, check_kind, floating, uniform
from hal.ops.convolution import mirrored
from hal.ops.precision import widened
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


# Layer normalization. Source: Ba, Kiros and Hinton, arXiv:1607.06450; torch.nn.functional.layer_norm.


def _check_last_axes(who: str, x: Spec, dims: int, **given: Spec | None) -> Shape:
    """The shape of what is normalised, or an error unless each given array has it."""
    check_kind(who, x, FLOATS)
    if not isinstance(dims, int) or dims < 1:
        raise SettingError(f"{who} needs dims= as the number of last axes to normalise, 1 or more; got {dims!r}")
    if dims > x.ndim:
        raise ShapeError(f"{who} cannot normalise the last {dims} axes of an input of shape {x.shape}")
    last = x.shape[x.ndim - dims :]
    for name, spec in given.items():
        if spec is not None and spec.shape != last:
            raise ShapeError(
                f"{who} over the last {dims} axes of {x.shape} needs {name} of shape {last}, got {spec.shape}"
            )
    return last


def _inside(x: Any, dims: int) -> tuple[int, ...]:
    return tuple(range(x.ndim - dims, x.ndim))


def _outside(x: Any, dims: int) -> tuple[int, ...]:
    return tuple(range(x.ndim - dims))


def _count(x: Any, dims: int) -> int:
    return max(prod(x.shape[x.ndim - dims :]), 1)


def _infer_layer(
    x: Spec, weight: Spec | None = None, bias: Spec | None = None, *, dims: int, eps: float = 1e-5
) -> Spec:
    _check_last_axes("layer_norm", x, dims, weight=weight, bias=bias)
    return x


def _infer_layer_gradient(
    g: Spec, x: Spec, weight: Spec | None = None, *, dims: int, eps: float = 1e-5
) -> tuple[Spec, Spec, Spec]:
    last = x.with_shape(_check_last_axes("layer_norm_gradient", x, dims, weight=weight))
    _check_same("layer_norm_gradient", g, x)
    return x, last, last


def _check_same(who: str, g: Spec, x: Spec) -> None:
    if g.shape != x.shape:
        raise ShapeError(f"{who} needs a gradient of the shape of x, {x.shape}; got {g.shape}")


def _normal(x: Array, dims: int, eps: float) -> tuple[Array, Array]:
    """`x` normalised, and by what it was multiplied."""
    axes, count = _inside(x, dims), _count(x, dims)
    away = x - total(x, axes, keepdims=True) / count
    inverse = 1 / np.sqrt(total(np.square(away), axes, keepdims=True) / count + eps)
    return away * inverse, inverse


def _reference_layer(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, dims: int, eps: float
) -> Array:
    result, _ = _normal(x, dims, eps)
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


def _reference_layer_gradient(
    g: Array, x: Array, weight: Array | None = None, *, dims: int, eps: float
) -> tuple[Array, Array, Array]:
    axes, count = _inside(x, dims), _count(x, dims)
    normal, inverse = _normal(x, dims, eps)
    scaled = g if weight is None else g * weight
    mean = total(scaled, axes, keepdims=True) / count
    along = total(scaled * normal, axes, keepdims=True) / count
    rows = _outside(x, dims)
    return inverse * (scaled - mean - normal * along), total(g * normal, rows), total(g, rows)


def _normal_in_ops(x: Tensor, dims: int, eps: float) -> tuple[Tensor, Tensor]:
    axes, count = _inside(x, dims), _count(x, dims)
    away = x - ops.sum(x, axis=axes, keepdims=True) / count
    inverse = ops.rsqrt(ops.sum(away * away, axis=axes, keepdims=True) / count + eps)
    return away * inverse, inverse


def _decompose_layer(x: Tensor, *affine: Tensor, dims: int, eps: float) -> Tensor:
    result, _ = _normal_in_ops(x, dims, eps)
    if affine:
        result = result * affine[0]
    return result + affine[1] if len(affine) == 2 else result


def _decompose_layer_gradient(
    g: Tensor, x: Tensor, *weight: Tensor, dims: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    axes, count, rows = _inside(x, dims), _count(x, dims), _outside(x, dims)
    normal, inverse = _normal_in_ops(x, dims, eps)
    scaled = g * weight[0] if weight else g
    mean = ops.sum(scaled, axis=axes, keepdims=True) / count
    along = ops.sum(scaled * normal, axis=axes, keepdims=True) / count
    of_x = inverse * (scaled - mean - normal * along)
    return of_x, ops.sum(g * normal, axis=rows), ops.sum(g, axis=rows)


def _magnitude_layer(x: Array, weight: Array | None = None, *bias: Array, dims: int, eps: float) -> float:
    scale = _normal(x, dims, eps)[1]
    return float(np.max(np.abs(x * scale * (1 if weight is None else weight)), initial=0))


def _magnitude_layer_gradient(g: Array, x: Array, weight: Array | None = None, *, dims: int, eps: float) -> float:
    scale = _normal(x, dims, eps)[1]
    return float(np.max(np.abs(g * scale * (1 if weight is None else weight)), initial=0))


def _gradient_layer(g: Tensor, out: Tensor, x: Tensor, *affine: Tensor, dims: int, eps: float) -> Grads:
    direct = lazily(lambda: ops.layer_norm_gradient(g, x, *affine[:1], dims=dims, eps=eps))
    return tuple(direct(i) for i in range(1 + len(affine)))


def _cases() -> Iterator[tuple[Shape, int, int]]:
    """Shapes of inputs, how many last axes are normalised, and how many of weight and bias there are."""
    yield (3, 5), 1, 0
    yield (3, 5), 1, 2
    yield (2, 3, 4), 1, 1
    yield (2, 3, 4), 2, 2
    yield (2, 3, 4), 3, 2
    yield (6,), 1, 2
    yield (0, 4), 1, 2
    yield (2, 1, 1), 2, 0
    yield (67, 301), 1, 2
    yield (3, 7, 50, 33), 3, 2


def _samples_layer(most: int) -> Callable[[Rng], Iterator[Sample]]:
    def samples(rng: Rng) -> Iterator[Sample]:
        for shape, dims, count in _cases():
            given = affine(rng, shape[len(shape) - dims :], min(count, most))
            smooth = 2 < prod(shape) < 100
            yield Sample((uniform(rng, shape), *given), {"dims": dims, "eps": 1e-5}, smooth=smooth)
            yield Sample(
                (mirrored(uniform(rng, shape)), *map(mirrored, given)), {"dims": dims, "eps": 0.1}, smooth=False
            )
        yield Sample((uniform(rng, (3, 40), 99, 101),), {"dims": 1}, smooth=False)

    return samples


def _samples_layer_gradient(rng: Rng) -> Iterator[Sample]:
    for shape, dims, count in _cases():
        given = (uniform(rng, shape), uniform(rng, shape), *affine(rng, shape[len(shape) - dims :], min(count, 1)))
        yield Sample(given, {"dims": dims, "eps": 1e-5}, smooth=2 < prod(shape) < 100)
        yield Sample(tuple(map(mirrored, given)), {"dims": dims, "eps": 0.1}, smooth=False)


layer_norm = Op(
    "layer_norm", _infer_layer, _reference_layer, _samples_layer(2), _gradient_layer, widened(_decompose_layer),
    norm_cost, promote=floating, tolerance=NORM, magnitude=_magnitude_layer,
    doc="(x - mean) / sqrt(var + eps) * weight + bias over the last `dims` axes, whose shape weight and bias have.",
)  # fmt: skip
layer_norm_gradient = Op(
    "layer_norm_gradient", _infer_layer_gradient, _reference_layer_gradient, _samples_layer_gradient, None,
    widened(_decompose_layer_gradient), norm_cost, promote=floating, tolerance=NORM,
    magnitude=_magnitude_layer_gradient,
    doc="The gradients of layer_norm by x, weight and bias, given that of its result.",
)  # fmt: skip


# Root mean square normalization. Source: Zhang and Sennrich, arXiv:1910.07467; torch.nn.functional.rms_norm.


def _infer_rms(x: Spec, weight: Spec | None = None, *, dims: int, eps: float = 1e-5) -> Spec:
    _check_last_axes("rms_norm", x, dims, weight=weight)
    return x


def _infer_rms_gradient(
    g: Spec, x: Spec, weight: Spec | None = None, *, dims: int, eps: float = 1e-5
) -> tuple[Spec, Spec]:
    last = x.with_shape(_check_last_axes("rms_norm_gradient", x, dims, weight=weight))
    _check_same("rms_norm_gradient", g, x)
    return x, last


def _reference_rms(x: Array, weight: Array | None = None, *, dims: int, eps: float) -> Array:
    result = x / np.sqrt(total(np.square(x), _inside(x, dims), keepdims=True) / _count(x, dims) + eps)
    return result if weight is None else result * weight


def _reference_rms_gradient(
    g: Array, x: Array, weight: Array | None = None, *, dims: int, eps: float
) -> tuple[Array, Array]:
    axes, count = _inside(x, dims), _count(x, dims)
    inverse = 1 / np.sqrt(total(np.square(x), axes, keepdims=True) / count + eps)
    normal = x * inverse
    scaled = g if weight is None else g * weight
    along = total(scaled * normal, axes, keepdims=True) / count
    return inverse * (scaled - normal * along), total(g * normal, _outside(x, dims))


def _magnitude_rms_gradient(g: Array, x: Array, weight: Array | None = None, *, dims: int, eps: float) -> float:
    scale = 1 / np.sqrt(total(np.square(x), _inside(x, dims), keepdims=True) / _count(x, dims) + eps)
    return float(np.max(np.abs(g * scale * (1 if weight is None else weight)), initial=0))


def _inverse_rms(x: Tensor, dims: int, eps: float) -> Tensor:
    return ops.rsqrt(ops.sum(x * x, axis=_inside(x, dims), keepdims=True) / _count(x, dims) + eps)


def _decompose_rms(x: Tensor, *weight: Tensor, dims: int, eps: float) -> Tensor:
    result = x * _inverse_rms(x, dims, eps)
    return result * weight[0] if weight else result


def _decompose_rms_gradient(g: Tensor, x: Tensor, *weight: Tensor, dims: int, eps: float) -> tuple[Tensor, Tensor]:
    inverse = _inverse_rms(x, dims, eps)
    normal = x * inverse
    scaled = g * weight[0] if weight else g
    along = ops.sum(scaled * normal, axis=_inside(x, dims), keepdims=True) / _count(x, dims)
    return inverse * (scaled - normal * along), ops.sum(g * normal, axis=_outside(x, dims))


def _gradient_rms(g: Tensor, out: Tensor, x: Tensor, *weight: Tensor, dims: int, eps: float) -> Grads:
    direct = lazily(lambda: ops.rms_norm_gradient(g, x, *weight, dims=dims, eps=eps))
    return tuple(direct(i) for i in range(1 + len(weight)))


rms_norm = Op(
    "rms_norm", _infer_rms, _reference_rms, _samples_layer(1), _gradient_rms, widened(_decompose_rms), norm_cost,
    promote=floating, tolerance=NORM, doc="x / sqrt(mean(x * x) + eps) * weight over the last `dims` axes.",
)  # fmt: skip
rms_norm_gradient = Op(
    "rms_norm_gradient", _infer_rms_gradient, _reference_rms_gradient, _samples_layer_gradient, None,
    widened(_decompose_rms_gradient), norm_cost, promote=floating, tolerance=NORM, magnitude=_magnitude_rms_gradient,
    doc="The gradients of rms_norm by x and weight, given that of its result.",
)  # fmt: skip
