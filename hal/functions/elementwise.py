"""Elementwise functions whose calling conventions differ from their ops': clip, softmax, lerp, round, and the like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hal import dtypes, ops
from hal.errors import SettingError
from hal.functions.arguments import Scalar, is_tensor, one_axis

if TYPE_CHECKING:
    from hal.tensor import Tensor

Bound = Any  # a tensor, a Python number, or None


def clip(x: Tensor, /, min: Bound = None, max: Bound = None) -> Tensor:
    """Elements below `min` or above `max` replaced by it; each a number, a tensor that broadcasts, or None.

    Raises:
        SettingError: neither is given.

    Source: torch.clamp; Array API, clip.
    """
    if min is None and max is None:
        raise SettingError("clip needs min, max, or both")
    if is_tensor(min) or is_tensor(max):
        x = x if min is None else ops.maximum(x, min)
        return x if max is None else ops.minimum(x, max)
    if x.dtype.kind in ("int", "uint") and (isinstance(min, float) or isinstance(max, float)):
        x = ops.cast(x, dtype=dtypes.DEFAULT_FLOAT)
    return ops.clip(x, low=min, high=max)


def clamp_min(x: Tensor, min: Bound) -> Tensor:
    """Elements below `min` replaced by it. Source: torch.clamp_min."""
    return clip(x, min)


def clamp_max(x: Tensor, max: Bound) -> Tensor:
    """Elements above `max` replaced by it. Source: torch.clamp_max."""
    return clip(x, None, max)


def add(a: Tensor, b: Tensor | Scalar, *, alpha: Scalar = 1) -> Tensor:
    """a + alpha b. Source: torch.add."""
    return ops.add(a, b if alpha == 1 else b * alpha)


def sub(a: Tensor, b: Tensor | Scalar, *, alpha: Scalar = 1) -> Tensor:
    """a - alpha b. Source: torch.sub."""
    return ops.sub(a, b if alpha == 1 else b * alpha)


def div(a: Tensor, b: Tensor | Scalar, *, rounding_mode: str | None = None) -> Tensor:
    """a / b, rounded down (`floor`) or towards zero (`trunc`) if asked. Source: torch.div."""
    if rounding_mode is None:
        return ops.div(a, b)
    if rounding_mode == "floor":
        return ops.floor_divide(a, b)
    if rounding_mode != "trunc":
        raise SettingError(f"div takes rounding_mode=None, 'floor' or 'trunc', got {rounding_mode!r}")
    quotient = ops.floor_divide(a, b)
    if quotient.dtype.is_inexact:
        return ops.trunc(ops.div(a, b))
    inexact = ops.not_equal(ops.mul(quotient, b), a)
    return ops.where(ops.logical_and(inexact, ops.less(quotient, 0)), ops.add(quotient, 1), quotient)


def round(x: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest number with so many decimals, the even one of two. Source: torch.round."""
    if decimals == 0:
        return ops.round(x)
    return ops.round(x * 10.0**decimals) / 10.0**decimals


def lerp(x: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """x + weight (end - x). Source: torch.lerp."""
    return x + weight * (end - x)


def addcmul(x: Tensor, a: Tensor, b: Tensor, *, value: Scalar = 1) -> Tensor:
    """x + value a b. Source: torch.addcmul."""
    return x + a * b * value


def addcdiv(x: Tensor, a: Tensor, b: Tensor, *, value: Scalar = 1) -> Tensor:
    """x + value a / b. Source: torch.addcdiv."""
    return x + a / b * value


def positive(x: Tensor, /) -> Tensor:
    """+x. Source: Array API, positive."""
    return x


def frac(x: Tensor) -> Tensor:
    """What is behind the point: x - trunc(x). Source: torch.frac."""
    return ops.sub(x, ops.trunc(x))


def logit(x: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), of x clipped to [eps, 1 - eps] if given. Source: torch.logit."""
    x = x if eps is None else ops.clip(x, low=eps, high=1 - eps)
    return ops.log(x / (1 - x))


def nan_to_num(x: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """NaN replaced by `nan`, infinities by these numbers or the largest finite ones. Source: torch.nan_to_num."""
    if not x.dtype.is_floating:
        return x
    largest = float(_largest(x))
    high, low = largest if posinf is None else posinf, -largest if neginf is None else neginf
    finite = ops.where(ops.isnan(x), nan, x)
    finite = ops.where(ops.equal(finite, float("inf")), high, finite)
    return ops.where(ops.equal(finite, float("-inf")), low, finite)


def _largest(x: Tensor) -> float:
    from hal.functions.datatypes import finfo

    return finfo(x.dtype).max


def hardshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """Zero where |x| <= lambd, else x. Source: torch.Tensor.hardshrink."""
    return ops.hardshrink(x, lambd=lambd)


def _in(x: Tensor, dtype: Any) -> Tensor:
    return x if dtype is None else ops.cast(x, dtype=dtypes.dtype(dtype))


def softmax(x: Tensor, /, dim: int | None = None, *, axis: int | None = None, dtype: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, the last by default. Source: torch.softmax."""
    return ops.softmax(_in(x, dtype), axis=one_axis("softmax", dim, axis, -1))


def log_softmax(x: Tensor, /, dim: int | None = None, *, axis: int | None = None, dtype: Any = None) -> Tensor:
    """The logarithm of softmax, without overflow. Source: torch.log_softmax."""
    return ops.log_softmax(_in(x, dtype), axis=one_axis("log_softmax", dim, axis, -1))
