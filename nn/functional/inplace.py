"""Activations that change their input, by the names that torch gives them."""

from __future__ import annotations

from hal.tensor import Tensor
from nn.functional import activation
from nn.functional.chance import rrelu


def relu_(input: Tensor) -> Tensor:
    """`relu` in place. Source: torch.nn.functional.relu_."""
    return activation.relu(input, inplace=True)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """`leaky_relu` in place. Source: torch.nn.functional.leaky_relu_."""
    return activation.leaky_relu(input, negative_slope, inplace=True)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`elu` in place. Source: torch.nn.functional.elu_."""
    return activation.elu(input, alpha, inplace=True)


def selu_(input: Tensor) -> Tensor:
    """`selu` in place. Source: torch.nn.functional.selu_."""
    return activation.selu(input, inplace=True)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`celu` in place. Source: torch.nn.functional.celu_."""
    return activation.celu(input, alpha, inplace=True)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """`hardtanh` in place. Source: torch.nn.functional.hardtanh_."""
    return activation.hardtanh(input, min_val, max_val, inplace=True)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """`threshold` in place. Source: torch.nn.functional.threshold_."""
    return activation.threshold(input, threshold, value, inplace=True)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """`rrelu` in place. Source: torch.nn.functional.rrelu_."""
    return rrelu(input, lower, upper, training, inplace=True)
