"""Activations with a second input: prelu, whose slope is learned, and glu, one half of which gates the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hal import ops
from hal.errors import ShapeError
from hal.op import Array, Grads, Op, Rng, Sample
from hal.ops.common import FLOATS, check_kind, floating, in_float32, quiet, unbroadcast, uniform
from hal.ops.steps import cut
from hal.spec import Spec, normalize_axis
from hal.tolerance import webnn

if TYPE_CHECKING:
    from hal.tensor import Tensor


# prelu


def _infer_prelu(x: Spec, weight: Spec) -> Spec:
    check_kind("prelu", x, FLOATS)
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.ndim > 1 or weight.size not in (1, channels):
        raise ShapeError(
            f"prelu needs one slope, or one for each of the {channels} channels of axis 1 of {x.shape}, "
            f"got a weight of shape {weight.shape}"
        )
    return x


def _slope_shape(x: tuple[int, ...], weight: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which the slopes broadcast against an input of shape `x`."""
    return (*weight, *[1] * (len(x) - 2)) if weight != (1,) and weight != () else ()


def _numpy_prelu(x: Array, weight: Array) -> Array:
    return np.where(x > 0, x, x * weight.reshape(_slope_shape(x.shape, weight.shape)))


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    slope = ops.reshape(weight, shape=_slope_shape(x.shape, weight.shape))
    return ops.where(ops.less(0, x), x, x * slope)


def _gradient_of_prelu(g: Tensor, out: Tensor, x: Tensor, weight: Tensor) -> Grads:
    shape = _slope_shape(x.shape, weight.shape)

    def by_input() -> Tensor:
        return ops.where(ops.less(0, x), g, g * ops.reshape(weight, shape=shape))

    def by_weight() -> Tensor:
        return ops.reshape(unbroadcast(ops.where(ops.less(0, x), 0, g * x), shape), shape=weight.shape)

    return by_input, by_weight


def _samples_of_prelu(rng: Rng) -> Iterator[Sample]:
    for x, weight in (((2, 3), (3,)), ((2, 3, 4, 5), (3,)), ((2, 3), (1,)), ((2, 3), ()), ((4,), (1,)), ((0, 3), (3,))):
        yield Sample((uniform(rng, x), uniform(rng, weight, -0.5, 0.5)))
    yield Sample((uniform(rng, (5, 4, 3)).T, uniform(rng, (8,), -0.5, 0.5)[::2]))
    odd = np.array([[np.nan, np.inf, -np.inf], [0.0, -0.0, 3e30]], np.float32)
    yield Sample((odd, np.array([0.25, 0.5, -1], np.float32)), smooth=False)


prelu = Op(
    "prelu", _infer_prelu, quiet(_numpy_prelu), _samples_of_prelu, _gradient_of_prelu, in_float32(_prelu),
    promote=floating, tolerance=webnn("prelu"),
    doc="x above zero, x times a learned slope below: one slope, or one for each channel (axis 1).",
)  # fmt: skip


# glu


def _infer_glu(x: Spec, *, axis: int = -1) -> Spec:
    check_kind("glu", x, FLOATS)
    where = normalize_axis("glu", axis, x.ndim)
    if x.shape[where] % 2:
        raise ShapeError(f"glu halves axis {axis}, so its size must be even, got shape {x.shape}")
    return x.with_shape(n // 2 if i == where else n for i, n in enumerate(x.shape))


def _numpy_glu(x: Array, *, axis: int) -> Array:
    a, b = np.split(x, 2, axis=axis)
    return a / (1 + np.exp(-b))


def _halves(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    where = axis % x.ndim
    n = x.shape[where] // 2
    return cut(x, where, 0, n), cut(x, where, n, 2 * n)


def _glu(x: Tensor, *, axis: int) -> Tensor:
    a, b = _halves(x, axis)
    return a * ops.sigmoid(b)


def _gradient_of_glu(g: Tensor, out: Tensor, x: Tensor, *, axis: int) -> Grads:
    _, b = _halves(x, axis)
    open_ = ops.sigmoid(b)
    return (ops.concat(g * open_, g * (out * (1 - open_)), axis=axis),)


def _samples_of_glu(rng: Rng) -> Iterator[Sample]:
    for shape, axis in (((2, 4), -1), ((4, 3), 0), ((2, 6, 3), 1), ((2,), 0), ((0, 4), -1)):
        yield Sample((uniform(rng, shape),), {"axis": axis})
    yield Sample((uniform(rng, (6, 4)).T,), {"axis": -1})


glu = Op(
    "glu", _infer_glu, quiet(_numpy_glu), _samples_of_glu, _gradient_of_glu, in_float32(_glu),
    promote=floating, tolerance=webnn("sigmoid"),
    doc="The first half of `axis` times the sigmoid of the second.",
)  # fmt: skip
