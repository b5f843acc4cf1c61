"""What a layer's weight and bias begin with, for networks that do not leave it to the layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nn
from hal.tensor import Tensor
from nn.module import Module


def begin(layer: Module, draw: Callable[[Tensor], Any], bias: float = 0.0) -> None:
    """Let `draw` fill the weight, and set the bias, if there is one."""
    weight, offset = layer.weight, getattr(layer, "bias", None)
    draw(weight)
    if offset is not None:
        nn.init.constant_(offset, bias)


def he_fan_out(weight: Tensor) -> None:
    """Normal numbers that keep the size of what flows backwards. Source: He and others, 2015, equation 14."""
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")


def normal(std: float) -> Callable[[Tensor], Any]:
    """Normal numbers with this deviation."""
    return lambda weight: nn.init.normal_(weight, 0.0, std)


def truncated(std: float) -> Callable[[Tensor], Any]:
    """Normal numbers with this deviation, those beyond two of it drawn again."""
    return lambda weight: nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
