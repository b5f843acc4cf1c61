"""Choosing between values, element by element: the primitive where, and maximum, minimum and clip made of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DTypeError
from hal.op import Array, Op, Rng, Sample
from hal.ops.common import (
    LARGE,
    REAL_KINDS,
    REAL_NUMBERS,
    SPECIAL,
    common,
    elementwise,
    integers,
    numeric,
    unbroadcast,
    uniform,
)  # fmt: skip
from hal.spec import Spec, broadcast_shapes

if TYPE_CHECKING:
    from hal.op import Grads
    from hal.tensor import Tensor


# where


def _infer_where(condition: Spec, a: Spec, b: Spec) -> Spec:
    if condition.dtype is not dtypes.bool_:
        raise DTypeError(
            f"where needs a bool condition, got {condition.dtype.name}; compare first, for example condition != 0"
        )
    return Spec(broadcast_shapes("where", condition.shape, a.shape, b.shape), a.dtype)


def _promote_where(condition: DType, a: DType, b: DType) -> tuple[DType, ...]:
    return condition, *common(a, b)


def _gradient_of_where(g: Tensor, out: Tensor, condition: Tensor, a: Tensor, b: Tensor) -> Grads:
    return (
        None,
        lambda: unbroadcast(ops.where(condition, g, 0), a.shape),
        lambda: unbroadcast(ops.where(condition, 0, g), b.shape),
    )


def _samples_of_where(rng: Rng) -> Iterator[Sample]:
    def condition(shape: tuple[int, ...]) -> Array:
        return rng.random(shape) < 0.5

    for c, a, b in (((2, 3),) * 3, ((2, 1), (3,), ()), ((), (2, 3), (3,)), ((0, 2), (2,), (1,)), ((3,), (2, 1), (3,))):
        yield Sample((condition(c), uniform(rng, a), uniform(rng, b)))
    yield Sample((condition((4, 3))[::-1].T, uniform(rng, (3, 4)), uniform(rng, (4, 3)).T))
    yield Sample((condition((LARGE,)), uniform(rng, (LARGE,)), uniform(rng, (LARGE,))), smooth=False)
    special = np.array(SPECIAL, np.float32)
    yield Sample((condition(special.shape), special, special[::-1].copy()), smooth=False)
    for dtype in (np.int8, np.int64, np.uint8, np.uint32):
        low = 0 if dtype in (np.uint8, np.uint32) else -9
        drawn = [integers(rng, (3, 4), low, 10, dtype) for _ in range(2)]
        yield Sample((condition((3, 4)), *drawn), smooth=False, exact=True)
    yield Sample((condition((5,)), condition((5,)), condition((5,))), smooth=False, exact=True)
    pairs = [(rng.normal(size=(2, 3)) + 1j * rng.normal(size=(2, 3))).astype(np.complex64) for _ in range(2)]
    yield Sample((condition((2, 3)), *pairs), smooth=False, exact=True)


where = Op(
    "where", _infer_where, np.where, _samples_of_where, _gradient_of_where, kind="elementwise", promote=_promote_where,
    doc="a where the bool condition is true, b elsewhere.",
)  # fmt: skip


# The larger, the smaller, and both.


def _maximum(a: Tensor, b: Tensor) -> Tensor:
    larger = ops.where(ops.less(a, b), b, a)
    return ops.where(ops.equal(b, b), larger, b) if a.dtype.is_floating else larger  # NaN, in a or b, stays


def _minimum(a: Tensor, b: Tensor) -> Tensor:
    smaller = ops.where(ops.less(b, a), b, a)
    return ops.where(ops.equal(b, b), smaller, b) if a.dtype.is_floating else smaller


def _by_first(g: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return ops.where(ops.equal(a, b), g * 0.5, ops.where(ops.equal(b, y), 0, g))  # ties share it, as in torch


def _by_second(g: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return ops.where(ops.equal(a, b), g * 0.5, ops.where(ops.equal(a, y), 0, g))


Bound = float | None


def _check_bounds(x: Spec, *, low: Bound, high: Bound) -> None:
    for bound in (low, high):
        if not x.dtype.is_floating and isinstance(bound, float) and isfinite(bound) and bound % 1:
            raise DTypeError(f"clip got the bound {bound} for {x.dtype.name}: use whole bounds, or .float() first")


def clip_bounds(dtype: DType, low: Bound, high: Bound) -> tuple[Bound, Bound]:
    """The bounds as numbers of `dtype`: an integer type has none outside its range."""
    if dtype.is_floating:
        return low, high
    least, most = int(np.iinfo(dtype.numpy).min), int(np.iinfo(dtype.numpy).max)

    def fit(bound: Bound) -> Bound:
        return None if bound is None else int(min(max(bound, least), most))

    return fit(low), fit(high)


def _clip(x: Tensor, *, low: Bound, high: Bound) -> Tensor:
    low, high = clip_bounds(x.dtype, low, high)
    y = x if low is None else ops.maximum(x, low)
    return y if high is None else ops.minimum(y, high)


def _numpy_clip(x: Array, *, low: Bound, high: Bound) -> Array:
    low, high = clip_bounds(dtypes.of(x.dtype), low, high)
    y = x.copy() if low is None else np.maximum(x, low)
    return y if high is None else np.minimum(y, high)


_choice = partial(elementwise, kinds=REAL_KINDS, wide=False)

# fmt: off
maximum = _choice("maximum", np.maximum, (_by_first, _by_second), decompose=_maximum,
                  doc="The larger of a and b; NaN if either is. Where they are equal, each gets half the gradient.")
minimum = _choice("minimum", np.minimum, (_by_first, _by_second), decompose=_minimum,
                  doc="The smaller of a and b; NaN if either is. Where they are equal, each gets half the gradient.")
clip    = _choice("clip", _numpy_clip, lambda g, y, x, **bounds: ops.where(ops.equal(x, y), g, 0), decompose=_clip,
                  kinds=REAL_NUMBERS, promote=numeric, check=_check_bounds, settings={"low": None, "high": None},
                  variants=({"low": -1.0, "high": 1}, {"low": 0.25, "high": 1.5}, {"low": 0.0}, {"high": 0.5}, {},
                            {"low": 1.0, "high": -1.0}), flops=2,
                  doc="x, but not below `low` nor above `high`; either may be left out, `high` wins, and NaN stays.")
# fmt: on
