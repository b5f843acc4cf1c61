"""Activations that draw random numbers, as functions: the same ones on every device, from the default generator."""

from __future__ import annotations

import hal
from hal import ops
from hal.errors import SettingError
from hal.tensor import Tensor


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    """x above 0; below it a slope times x: one drawn for each element in training, else the middle of both ends.

    Raises:
        SettingError: `lower` is above `upper`.

    Source: torch.nn.functional.rrelu; Xu et al., 2015.
    """
    if lower > upper:
        raise SettingError(f"rrelu needs lower= of at most upper=, got {lower} and {upper}")
    slope: Tensor | float = (lower + upper) / 2
    if training:
        slope = hal.rand(*input.shape, dtype=input.dtype, device=input.device) * (upper - lower) + lower
    out = ops.where(ops.greater(input, 0), input, input * slope)
    return input.copy_(out) if inplace else out


def gumbel_softmax(logits: Tensor, tau: float = 1.0, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """A draw from the categories that `logits` weigh, softened so that gradients pass.

    Args:
        tau: how soft; towards 0 the result becomes a one-hot code.
        hard: give the one-hot code, with the gradient of the soft one.
        eps: not used, as in torch.

    Source: torch.nn.functional.gumbel_softmax; Jang, Gu, Poole, 2017.
    """
    drawn = hal.rand(*logits.shape, dtype=logits.dtype, device=logits.device)
    smallest = float(hal.finfo(logits.dtype).tiny)
    noise = -ops.log(-ops.log(ops.maximum(drawn, smallest)))
    soft = ops.softmax((logits + noise) / tau, axis=dim)
    if not hard:
        return soft
    best = ops.argmax(soft.detach(), axis=dim, keepdims=True)
    axis = dim % logits.ndim
    place = hal.arange(logits.shape[axis], device=logits.device)
    place = ops.reshape(place, shape=tuple(n if i == axis else 1 for i, n in enumerate(logits.shape)))
    return ops.cast(ops.equal(place, best), dtype=soft.dtype) - soft.detach() + soft
