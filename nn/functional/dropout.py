"""Dropout as functions: elements, or whole channels, become zero by chance, and the others larger in proportion."""

from __future__ import annotations

from math import sqrt

import hal
from hal import ops
from hal.errors import SettingError, ShapeError
from hal.random import next_state
from hal.tensor import Tensor

_SELU_LOW = -1.7580993408473766  # what selu tends to for large negative numbers: - scale * alpha


def check_probability(who: str, p: float) -> None:
    """Raise SettingError unless `p` is a probability."""
    if not 0 <= p <= 1:
        raise SettingError(f"{who} needs p= between 0 and 1, got {p}")


def _finish(input: Tensor, out: Tensor, inplace: bool) -> Tensor:
    return input.copy_(out) if inplace else out


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zeros with probability `p`, and x / (1 - p) elsewhere; the input as it is if not `training`.

    Raises:
        SettingError: `p` is no probability.

    Source: torch.nn.functional.dropout.
    """
    check_probability("dropout", p)
    if not training or p == 0:
        return input
    return _finish(input, ops.dropout(input, next_state(input.spec.size, input.device), p=float(p)), inplace)


def _channels(who: str, n: int, input: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    check_probability(who, p)
    if input.ndim not in (n + 1, n + 2):
        raise ShapeError(f"{who} needs an input with {n + 1} or {n + 2} axes, got shape {input.shape}")
    if not training or p == 0:
        return input
    shape = (*input.shape[: input.ndim - n], *(1,) * n)
    keep = hal.ones(shape, dtype=input.dtype, device=input.device)
    return _finish(input, input * ops.dropout(keep, next_state(keep.spec.size, input.device), p=float(p)), inplace)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, L) or (C, L). Source: torch.nn.functional.dropout1d."""
    return _channels("dropout1d", 1, input, p, training, inplace)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, H, W) or (C, H, W). Source: torch.nn.functional.dropout2d."""
    return _channels("dropout2d", 2, input, p, training, inplace)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, D, H, W) or (C, D, H, W). Source: torch.nn.functional.dropout3d."""
    return _channels("dropout3d", 3, input, p, training, inplace)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout after selu: what is dropped gets selu's lowest value, and mean 0 and variance 1 stay.

    Source: torch.nn.functional.alpha_dropout; Klambauer et al., "Self-Normalizing Neural Networks", 2017.
    """
    return _alpha("alpha_dropout", input, input.shape, p, training, inplace)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """alpha_dropout of whole channels of (N, C, ...). Source: torch.nn.functional.feature_alpha_dropout.

    Raises:
        ShapeError: there are no channels.
    """
    if input.ndim < 2:
        raise ShapeError(f"feature_alpha_dropout needs an input (N, C, ...), got shape {input.shape}")
    shape = (*input.shape[:2], *(1,) * (input.ndim - 2))
    return _alpha("feature_alpha_dropout", input, shape, p, training, inplace)


def _alpha(who: str, input: Tensor, shape: tuple[int, ...], p: float, training: bool, inplace: bool) -> Tensor:
    check_probability(who, p)
    if not training or p == 0:
        return input
    if p == 1:
        return _finish(input, input * 0.0, inplace)
    ones = hal.ones(shape, dtype=input.dtype, device=input.device)
    kept = ops.dropout(ones, next_state(ones.spec.size, input.device), p=float(p)) * (1 - p)
    scale = 1 / sqrt((1 - p) * (1 + p * _SELU_LOW**2))
    return _finish(input, (input * kept + (1 - kept) * _SELU_LOW) * scale - scale * p * _SELU_LOW, inplace)
