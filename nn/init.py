"""Initialisation: functions that fill a tensor in place with values of a distribution, as torch.nn.init has them.

All of them return the tensor, record nothing, and take a `generator=` where they draw random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np

import hal
from hal.errors import SettingError, ShapeError
from hal.tensor import Tensor

_GAINS: dict[str, float] = {
    "linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv3d": 1.0, "conv_transpose1d": 1.0, "conv_transpose2d": 1.0,
    "conv_transpose3d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4,
}  # fmt: skip


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By how much weights before this nonlinearity are scaled up, so that variances stay the same.

    Args:
        param: for `leaky_relu`, the slope below zero (0.01 if not given).

    Raises:
        SettingError: there is no such nonlinearity.

    >>> calculate_gain("tanh")
    1.6666666666666667

    Source: torch.nn.init.calculate_gain.
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in _GAINS:
        known = ", ".join([*_GAINS, "leaky_relu"])
        raise SettingError(f"calculate_gain knows {known}, got {nonlinearity!r}")
    return _GAINS[nonlinearity]


def fans(tensor: Tensor, who: str = "fans") -> tuple[int, int]:
    """How many inputs each output of a weight has, and how many outputs each input: (fan_in, fan_out).

    Raises:
        ShapeError: the tensor has fewer than two axes.
    """
    if tensor.ndim < 2:
        raise ShapeError(f"{who} needs a weight of at least two axes (out, in, ...), got shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


@hal.no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform in [a, b)."""
    return tensor.uniform_(a, b, generator=generator)


@hal.no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normal, with this mean and standard deviation."""
    return tensor.normal_(mean, std, generator=generator)


@hal.no_grad()
def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None
) -> Tensor:
    """Normal, but only values in [a, b]: others are drawn again.

    Raises:
        SettingError: a is not less than b.
    """
    if not (a < b and std > 0):
        raise SettingError(f"trunc_normal_ needs a < b and std > 0, got a={a}, b={b}, std={std}")
    cdf = NormalDist(mean, std).cdf
    draw = _from_normal(mean, std, a, b) if cdf(b) - cdf(a) > 0.25 else _from_uniform(mean, std, a, b)
    values, accepted = draw(tensor, generator)
    while not accepted.all().item():
        more, also = draw(tensor, generator)
        values, accepted = hal.where(accepted, values, more), hal.logical_or(accepted, also)
    return tensor.copy_(values)


Draw = Callable[[Tensor, Any], tuple[Tensor, Tensor]]


def _from_normal(mean: float, std: float, a: float, b: float) -> Draw:
    """Normal values, accepted inside the bounds: good where the bounds hold much of the distribution."""

    def draw(like: Tensor, generator: Any) -> tuple[Tensor, Tensor]:
        x = hal.empty_like(like).normal_(mean, std, generator=generator)
        return x, hal.logical_and(x >= a, x <= b)

    return draw


def _from_uniform(mean: float, std: float, a: float, b: float) -> Draw:
    """Uniform values, accepted with the density there, relative to the largest one: good in the tails."""
    peak = min(max(mean, a), b)

    def draw(like: Tensor, generator: Any) -> tuple[Tensor, Tensor]:
        x = hal.empty_like(like).uniform_(a, b, generator=generator)
        level = hal.empty_like(like).uniform_(generator=generator)
        below = (peak - mean) ** 2 - (x - mean) ** 2
        return x, level <= hal.exp(below * (0.5 / std**2))

    return draw


@hal.no_grad()
def constant_(tensor: Tensor, val: float) -> Tensor:
    """`val` everywhere."""
    return tensor.fill_(val)


@hal.no_grad()
def ones_(tensor: Tensor) -> Tensor:
    """Ones."""
    return tensor.fill_(1.0)


@hal.no_grad()
def zeros_(tensor: Tensor) -> Tensor:
    """Zeros."""
    return tensor.fill_(0.0)


@hal.no_grad()
def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix.

    Raises:
        ShapeError: not a matrix.
    """
    if tensor.ndim != 2:
        raise ShapeError(f"eye_ needs a matrix, got shape {tensor.shape}")
    return tensor.copy_(hal.eye(*tensor.shape, dtype=tensor.dtype, device=tensor.device))


@hal.no_grad()
def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution's weight that passes as many channels on, unchanged, as it can.

    Raises:
        ShapeError: not the weight of a convolution, or its outputs cannot be divided into the groups.
    """
    if not 3 <= tensor.ndim <= 5 or tensor.shape[0] % groups:
        raise ShapeError(f"dirac_ needs the weight of a convolution with {groups} groups, got shape {tensor.shape}")
    values = np.zeros(tensor.shape, np.float32)
    per_group = tensor.shape[0] // groups
    centre = tuple(n // 2 for n in tensor.shape[2:])
    for group in range(groups):
        for channel in range(min(per_group, tensor.shape[1])):
            values[(group * per_group + channel, channel, *centre)] = 1
    return tensor.copy_(hal.tensor(values, device=tensor.device))


@hal.no_grad()
def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform between ± gain * sqrt(6 / (fan_in + fan_out)).

    Source: Glorot, Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural Networks", 2010.
    """
    limit = gain * math.sqrt(6 / sum(fans(tensor, "xavier_uniform_")))
    return tensor.uniform_(-limit, limit, generator=generator)


@hal.no_grad()
def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with the standard deviation gain * sqrt(2 / (fan_in + fan_out)). Source: as `xavier_uniform_`."""
    std = gain * math.sqrt(2 / sum(fans(tensor, "xavier_normal_")))
    return tensor.normal_(0.0, std, generator=generator)


def _kaiming_std(who: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise SettingError(f"{who} needs mode= 'fan_in' or 'fan_out', got {mode!r}")
    fan_in, fan_out = fans(tensor, who)
    return calculate_gain(nonlinearity, a) / math.sqrt(max(1, fan_in if mode == "fan_in" else fan_out))


@hal.no_grad()
def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """Uniform between ± gain * sqrt(3 / fan).

    Args:
        a: the slope below zero of the leaky_relu that follows.
        mode: `fan_in` keeps the variance in the forward pass, `fan_out` in the backward pass.

    Source: He et al., "Delving Deep into Rectifiers", 2015.
    """
    limit = math.sqrt(3) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return tensor.uniform_(-limit, limit, generator=generator)


@hal.no_grad()
def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """Normal with the standard deviation gain / sqrt(fan). Arguments and source: as `kaiming_uniform_`."""
    return tensor.normal_(0.0, _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity), generator=generator)


@hal.no_grad()
def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """A random matrix with orthogonal rows or columns (all axes but the first count as one), times `gain`.

    Raises:
        ShapeError: fewer than two axes.

    Source: Saxe et al., "Exact Solutions to the Nonlinear Dynamics of Learning in Deep Linear Networks", 2013.
    """
    if tensor.ndim < 2:
        raise ShapeError(f"orthogonal_ needs at least two axes, got shape {tensor.shape}")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    flat = hal.empty(rows, columns, device=tensor.device).normal_(generator=generator).cpu().numpy().astype(np.float64)
    q, r = np.linalg.qr(flat.T if rows < columns else flat)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)  # without this, q would not be uniform among orthogonal matrices
    q = (q.T if rows < columns else q) * gain
    return tensor.copy_(hal.tensor(q.reshape(tensor.shape).astype(np.float32), device=tensor.device))


@hal.no_grad()
def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """A normal matrix in which a part `sparsity` of each column is zero.

    Raises:
        ShapeError: not a matrix.

    Source: Martens, "Deep Learning via Hessian-free Optimization", 2010.
    """
    if tensor.ndim != 2:
        raise ShapeError(f"sparse_ needs a matrix, got shape {tensor.shape}")
    zeros = math.ceil(sparsity * tensor.shape[0])
    tensor.normal_(0.0, std, generator=generator)
    rank = hal.empty_like(tensor).uniform_(generator=generator).argsort(dim=0).argsort(dim=0)
    return tensor.copy_(hal.where(rank < zeros, 0.0, tensor.detach()))
