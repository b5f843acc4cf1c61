"""Activation functions of torch's signatures; with `inplace=True` the input itself gets the new values."""

from __future__ import annotations

from typing import Any

import hal
from hal import dtypes, ops
from hal.op import Op
from hal.tensor import Tensor


def _activate(op: Op, x: Tensor, inplace: bool, **settings: Any) -> Tensor:
    if not inplace:
        out: Tensor = op(x, **settings)
        return out
    # Gradients of most activations need the input as it was before.
    source = x.clone() if x.requires_grad and hal.is_grad_enabled() else x
    hal.run_into((x,), op, (source,), settings)
    return x


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0). Source: torch.nn.functional.relu."""
    return _activate(ops.relu, input, inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6). Source: torch.nn.functional.relu6."""
    return _activate(ops.relu6, input, inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x above 0, `negative_slope` x below. Source: torch.nn.functional.leaky_relu."""
    return _activate(ops.leaky_relu, input, inplace, negative_slope=negative_slope)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x above 0, `weight` x below; one weight, or one for each channel. Source: torch.nn.functional.prelu."""
    return ops.prelu(input, weight)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, alpha (exp(x) - 1) below. Source: torch.nn.functional.elu."""
    return _activate(ops.elu, input, inplace, alpha=alpha)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """elu, scaled so that mean 0 and variance 1 stay. Source: torch.nn.functional.selu."""
    return _activate(ops.selu, input, inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x above 0, alpha (exp(x / alpha) - 1) below. Source: torch.nn.functional.celu."""
    return _activate(ops.celu, input, inplace, alpha=alpha)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution's share below x. Source: torch.nn.functional.gelu.

    Raises:
        SettingError: `approximate` is neither 'none' nor 'tanh'.
    """
    return ops.gelu(input, approximate=approximate)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x sigmoid(x). Source: torch.nn.functional.silu."""
    return _activate(ops.silu, input, inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x tanh(softplus(x)). Source: torch.nn.functional.mish."""
    return _activate(ops.mish, input, inplace)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x)). Source: torch.nn.functional.sigmoid."""
    return ops.sigmoid(input)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)). Source: torch.nn.functional.logsigmoid."""
    return ops.log_sigmoid(input)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6. Source: torch.nn.functional.hardsigmoid."""
    return _activate(ops.hardsigmoid, input, inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x hardsigmoid(x). Source: torch.nn.functional.hardswish."""
    return _activate(ops.hardswish, input, inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x, kept between two bounds. Source: torch.nn.functional.hardtanh."""
    return _activate(ops.hardtanh, input, inplace, low=min_val, high=max_val)


def tanh(input: Tensor) -> Tensor:
    """Hyperbolic tangent. Source: torch.nn.functional.tanh."""
    return ops.tanh(input)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x). Source: torch.nn.functional.tanhshrink."""
    return ops.tanhshrink(input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta, and x itself where beta x > threshold. Source: torch.nn.functional.softplus."""
    return ops.softplus(input, beta=beta, threshold=threshold)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + abs(x)). Source: torch.nn.functional.softsign."""
    return ops.softsign(input)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where its magnitude is above `lambd`, else 0. Source: torch.nn.functional.hardshrink."""
    return ops.hardshrink(input, lambd=lambd)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by `lambd`. Source: torch.nn.functional.softshrink."""
    return ops.softshrink(input, lambd=lambd)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x above `threshold`, else `value`. Source: torch.nn.functional.threshold."""
    return _activate(ops.threshold, input, inplace, threshold=threshold, value=value)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half of axis `dim` times the sigmoid of the second. Source: torch.nn.functional.glu.

    Raises:
        ShapeError: the axis has an odd size.
    """
    return ops.glu(input, axis=dim)


def _axis(x: Tensor, dim: int | None) -> int:
    """The axis meant by `dim`; torch's choice if there is none."""
    return (0 if x.ndim in (0, 1, 3) else 1) if dim is None else dim


def _as(x: Tensor, dtype: Any) -> Tensor:
    return x if dtype is None else x.to(dtypes.dtype(dtype))


def softmax(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """exp(x), divided by its sum along axis `dim`. Source: torch.nn.functional.softmax.

    Args:
        dim: the axis; without one, axis 0 of inputs with 0, 1 or 3 axes, else axis 1.
        dtype: to convert the input to first.
    """
    return ops.softmax(_as(input, dtype), axis=_axis(input, dim))


def softmin(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """softmax of -x. Source: torch.nn.functional.softmin."""
    return softmax(-input, dim, dtype=dtype)


def log_softmax(input: Tensor, dim: int | None = None, *, dtype: Any = None) -> Tensor:
    """The logarithm of softmax, accurate where that is nearly 0. Source: torch.nn.functional.log_softmax."""
    return ops.log_softmax(_as(input, dtype), axis=_axis(input, dim))
