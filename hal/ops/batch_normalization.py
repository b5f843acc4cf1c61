"""Batch normalization: each channel of x (N, C, ...) shifted and scaled by a mean and a variance, given or its own.

Source: Ioffe and Szegedy, "Batch Normalization", arXiv:1502.03167; torch.nn.functional.batch_norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import ops
from hal.errors import ShapeError
from hal.op import Array, Cost, Grads, Op, Rng, Sample, Specs, in_norm
from hal.ops.common import FLOATS, check_kind, floating, uniform
from hal.ops.convolution import mirrored
from hal.ops.precision import widened
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor

NORM = in_norm(32, "the rounding of mean and variance, and a few operations on values as large as the largest result")


def check_channels(who: str, x: Spec, **given: Spec | None) -> None:
    """Raise unless `x` is floating, of layout (N, C, ...), and each given array has one number for each channel."""
    check_kind(who, x, FLOATS)
    if x.ndim < 2:
        raise ShapeError(f"{who} needs an input of layout (N, C, ...), got {x.shape}")
    for name, spec in given.items():
        if spec is not None and spec.shape != x.shape[1:2]:
            raise ShapeError(
                f"{who} needs {name} with one number for each of the {x.shape[1]} channels of its input (N, C, ...) "
                f"{x.shape}, so of shape ({x.shape[1]},); got {spec.shape}"
            )


def per_channel(x: Any, ndim: int) -> Any:
    """One number for each channel (tensor or array), shaped so that it broadcasts to (N, C, ...)."""
    shape = (x.shape[0], *[1] * (ndim - 2))
    return x.reshape(shape) if isinstance(x, np.ndarray) else ops.reshape(x, shape=shape)


def over_channels(ndim: int) -> tuple[int, ...]:
    """All axes but that of the channels."""
    return (0, *range(2, ndim))


def many(shape: Shape) -> int:
    """How many elements a channel has; 1 if there are none, so that the mean of nothing is 0."""
    size = 1
    for axis in over_channels(len(shape)):
        size *= shape[axis]
    return max(size, 1)


def total(x: Array, axis: tuple[int, ...], keepdims: bool = False) -> Array:
    """The sum in the widest type there is: a reference must be better than what it judges."""
    return np.asarray(x.sum(axis=axis, keepdims=keepdims, dtype=np.longdouble)).astype(x.dtype)


def lazily(function: Callable[[], Any]) -> Callable[[int], Callable[[], Any]]:
    """`lazily(f)(i)` is a function that gives result `i` of f(), which is called once, by whoever needs it first."""
    results = cache(function)
    return lambda i: lambda: results()[i]


# With a mean and a variance that are given.


def _infer(
    x: Spec, mean: Spec, var: Spec, weight: Spec | None = None, bias: Spec | None = None, *, eps: float = 1e-5
) -> Spec:
    check_channels("batch_norm", x, mean=mean, var=var, weight=weight, bias=bias)
    return x


def _reference(
    x: Array, mean: Array, var: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float
) -> Array:
    result = (x - per_channel(mean, x.ndim)) / np.sqrt(per_channel(var, x.ndim) + eps)
    result = result if weight is None else result * per_channel(weight, x.ndim)
    return result if bias is None else result + per_channel(bias, x.ndim)


def _decompose(x: Tensor, mean: Tensor, var: Tensor, *affine: Tensor, eps: float) -> Tensor:
    scale = ops.rsqrt(var + eps)
    if affine:
        scale = scale * affine[0]
    result = (x - per_channel(mean, x.ndim)) * per_channel(scale, x.ndim)
    return result + per_channel(affine[1], x.ndim) if len(affine) == 2 else result


def _gradient(g: Tensor, out: Tensor, x: Tensor, mean: Tensor, var: Tensor, *affine: Tensor, eps: float) -> Grads:
    inverse = cache(lambda: ops.rsqrt(var + eps))
    scale = cache(lambda: inverse() * affine[0] if affine else inverse())
    total = cache(lambda: ops.sum(g, axis=over_channels(x.ndim)))
    product = cache(lambda: ops.sum(g * (x - per_channel(mean, x.ndim)), axis=over_channels(x.ndim)))
    entries = (
        lambda: g * per_channel(scale(), x.ndim),
        lambda: -total() * scale(),
        lambda: product() * scale() * ops.square(inverse()) * -0.5,
        lambda: product() * inverse(),
        total,
    )
    return entries[: 3 + len(affine)]


def norm_cost(*specs: Spec, out: Specs, **settings: Any) -> Cost:
    """Some eight operations for each element: for the mean, the variance, and the result."""
    outs = out if isinstance(out, tuple) else (out,)
    return Cost(8 * max(s.size for s in specs), sum(s.nbytes for s in (*specs, *outs)))


def _shapes() -> Iterator[tuple[Shape, int]]:
    """Shapes of inputs, and how many of weight and bias there are."""
    yield (4, 3), 0
    yield (4, 3), 2
    yield (3, 2, 5), 1
    yield (2, 3, 2, 4), 2
    yield (2, 3, 2, 2, 2), 2
    yield (1, 2, 3), 0
    yield (0, 3, 2), 2
    yield (5, 7, 19, 23), 2


def affine(rng: Rng, shape: Shape, count: int) -> tuple[Array, ...]:
    """A weight, if `count` is 1, and a bias, if it is 2."""
    return (uniform(rng, shape, 0.5, 1.5), uniform(rng, shape))[:count]


def _samples(rng: Rng) -> Iterator[Sample]:
    for shape, count in _shapes():
        channels = shape[1:2]
        given = (uniform(rng, channels), uniform(rng, channels, 0.5, 2), *affine(rng, channels, count))
        yield Sample((uniform(rng, shape), *given), smooth=shape[0] < 5 and len(shape) < 5)
        yield Sample((mirrored(uniform(rng, shape)), *map(mirrored, given)), {"eps": 0.1}, smooth=False)


batch_norm = Op(
    "batch_norm", _infer, _reference, _samples, _gradient, widened(_decompose), norm_cost,
    promote=floating, tolerance=NORM,
    doc="(x - mean) / sqrt(var + eps) * weight + bias, with one number for each channel of x (N, C, ...).",
)  # fmt: skip


# With the mean and variance of the batch.


def _infer_train(
    x: Spec, weight: Spec | None = None, bias: Spec | None = None, *, eps: float = 1e-5
) -> tuple[Spec, Spec, Spec]:
    check_channels("batch_norm_train", x, weight=weight, bias=bias)
    channels = x.with_shape(x.shape[1:2])
    return x, channels, channels


def _reference_train(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float
) -> tuple[Array, Array, Array]:
    mean = total(x, over_channels(x.ndim)) / many(x.shape)
    var = total(np.square(x - per_channel(mean, x.ndim)), over_channels(x.ndim)) / many(x.shape)
    return _reference(x, mean, var, weight, bias, eps=eps), mean, var


def _decompose_train(x: Tensor, *affine: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    axes = over_channels(x.ndim)
    mean = ops.sum(x, axis=axes) / many(x.shape)
    away = x - per_channel(mean, x.ndim)
    var = ops.sum(away * away, axis=axes) / many(x.shape)
    return ops.batch_norm(x, mean, var, *affine, eps=eps), mean, var


def _gradient_train(
    gs: tuple[Tensor | None, ...], outs: tuple[Tensor, ...], x: Tensor, *affine: Tensor, eps: float
) -> Grads:
    g, g_mean, g_var = gs
    _, mean, var = outs
    direct = lazily(lambda: ops.batch_norm_train_gradient(g, x, mean, var, *affine[:1], eps=eps))

    def of_x() -> Tensor | None:
        total = None if g is None else direct(0)()
        if g_mean is not None:
            part = ops.broadcast_to(per_channel(g_mean / many(x.shape), x.ndim), shape=x.shape)
            total = part if total is None else total + part
        if g_var is not None:
            part = (x - per_channel(mean, x.ndim)) * per_channel(g_var * (2 / many(x.shape)), x.ndim)
            total = part if total is None else total + part
        return total

    if g is None:
        return of_x, *(None for _ in affine)
    return of_x, *(direct(i + 1) for i in range(len(affine)))


def _samples_train(rng: Rng) -> Iterator[Sample]:
    for shape, count in _shapes():
        given = affine(rng, shape[1:2], count)
        yield Sample((uniform(rng, shape), *given), smooth=shape[0] < 5 and len(shape) < 5)
        yield Sample((mirrored(uniform(rng, shape)), *map(mirrored, given)), {"eps": 0.1}, smooth=False)


batch_norm_train = Op(
    "batch_norm_train", _infer_train, _reference_train, _samples_train, _gradient_train, widened(_decompose_train),
    norm_cost, promote=floating, tolerance=NORM,
    doc="batch_norm with the mean and (biased) variance of each channel of x itself, which are also results.",
)  # fmt: skip


# Its gradient.


def _infer_gradient(
    g: Spec, x: Spec, mean: Spec, var: Spec, weight: Spec | None = None, *, eps: float = 1e-5
) -> tuple[Spec, Spec, Spec]:
    who = "batch_norm_train_gradient"
    check_channels(who, x, mean=mean, var=var, weight=weight)
    if g.shape != x.shape:
        raise ShapeError(f"{who} needs a gradient of the shape of x, {x.shape}; got {g.shape}")
    channels = x.with_shape(x.shape[1:2])
    return x, channels, channels


def _reference_gradient(
    g: Array, x: Array, mean: Array, var: Array, weight: Array | None = None, *, eps: float
) -> tuple[Array, Array, Array]:
    axes, count = over_channels(x.ndim), many(x.shape)
    inverse = 1 / np.sqrt(var + eps)
    normal = (x - per_channel(mean, x.ndim)) * per_channel(inverse, x.ndim)
    of_bias, of_weight = total(g, axes), total(g * normal, axes)
    centered = g - per_channel(of_bias / count, x.ndim) - normal * per_channel(of_weight / count, x.ndim)
    return centered * per_channel(inverse if weight is None else inverse * weight, x.ndim), of_weight, of_bias


def _decompose_gradient(
    g: Tensor, x: Tensor, mean: Tensor, var: Tensor, *weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    axes, count = over_channels(x.ndim), many(x.shape)
    inverse = ops.rsqrt(var + eps)
    normal = (x - per_channel(mean, x.ndim)) * per_channel(inverse, x.ndim)
    of_bias, of_weight = ops.sum(g, axis=axes), ops.sum(g * normal, axis=axes)
    centered = g - per_channel(of_bias / count, x.ndim) - normal * per_channel(of_weight / count, x.ndim)
    return centered * per_channel(inverse * weight[0] if weight else inverse, x.ndim), of_weight, of_bias


def _magnitude_of_gradient(
    g: Array, x: Array, mean: Array, var: Array, weight: Array | None = None, *, eps: float
) -> float:
    scale = 1 / np.sqrt(var + eps) * (1 if weight is None else np.abs(weight))
    return float(np.max(np.abs(g) * per_channel(scale, x.ndim), initial=0))


def _samples_of_gradient(rng: Rng) -> Iterator[Sample]:
    for shape, count in _shapes():
        x = uniform(rng, shape)
        _, mean, var = _reference_train(x.astype(np.float64), eps=1e-5)
        weight = affine(rng, shape[1:2], min(count, 1))
        given = (uniform(rng, shape), x, mean.astype(np.float32), var.astype(np.float32), *weight)
        yield Sample(given, smooth=0 < shape[0] < 5 and len(shape) < 5)
        yield Sample(tuple(map(mirrored, given)), {"eps": 0.1}, smooth=False)


batch_norm_train_gradient = Op(
    "batch_norm_train_gradient", _infer_gradient, _reference_gradient, _samples_of_gradient, None,
    widened(_decompose_gradient), norm_cost, promote=floating, tolerance=NORM, magnitude=_magnitude_of_gradient,
    doc="The gradients of batch_norm_train by x, weight and bias, given that of its first result and its other two.",
)  # fmt: skip
