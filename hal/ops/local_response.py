"""Local response normalization: each element divided by a power of the mean square of its neighbours in channels.

Source: Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012), with
the mean in place of the sum, as in torch.nn.functional.local_response_norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import ops
from hal.errors import SettingError, ShapeError
from hal.op import Array, Cost, Grads, Op, Rng, Sample, in_norm
from hal.ops.common import FLOATS, check_kind, floating, uniform
from hal.ops.convolution import mirrored
from hal.ops.precision import widened
from hal.ops.steps import cut, widen
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _check(who: str, x: Spec, size: int) -> None:
    check_kind(who, x, FLOATS)
    if x.ndim < 3:
        raise ShapeError(f"{who} needs an input of layout (N, C, ...) with three axes or more, got {x.shape}")
    if not isinstance(size, int) or size < 1:
        raise SettingError(f"{who} needs size= as a number of channels, 1 or more; got {size!r}")


def _infer(x: Spec, *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Spec:
    _check("local_response_norm", x, size)
    return x


def _infer_gradient(g: Spec, x: Spec, *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Spec:
    _check("local_response_norm_gradient", x, size)
    if g.shape != x.shape:
        raise ShapeError(f"local_response_norm_gradient needs a gradient of the shape of x, {x.shape}; got {g.shape}")
    return x


def _near(x: Array, below: int, above: int) -> Array:
    """For each channel the sum of the channels from `below` before it to `above` after it."""
    total = np.zeros_like(x)
    for channel in range(x.shape[1]):
        total[:, channel] = x[:, max(channel - below, 0) : channel + above + 1].sum(axis=1)
    return total


def _reference(x: Array, *, size: int, alpha: float, beta: float, k: float) -> Array:
    return x / (k + alpha / size * _near(x * x, size // 2, (size - 1) // 2)) ** beta


def _reference_gradient(g: Array, x: Array, *, size: int, alpha: float, beta: float, k: float) -> Array:
    base = k + alpha / size * _near(x * x, size // 2, (size - 1) // 2)
    others = _near(g * x * base ** (-beta - 1), (size - 1) // 2, size // 2)
    return g * base**-beta - 2 * alpha * beta / size * x * others


def _near_in_ops(x: Tensor, below: int, above: int) -> Tensor:
    spread = widen(x, 1, below, above)
    total = cut(spread, 1, 0, x.shape[1])
    for start in range(1, below + above + 1):
        total = total + cut(spread, 1, start, start + x.shape[1])
    return total


def _decompose(x: Tensor, *, size: int, alpha: float, beta: float, k: float) -> Tensor:
    base = _near_in_ops(x * x, size // 2, (size - 1) // 2) * (alpha / size) + k
    return x * ops.pow(base, -beta)


def _decompose_gradient(g: Tensor, x: Tensor, *, size: int, alpha: float, beta: float, k: float) -> Tensor:
    base = _near_in_ops(x * x, size // 2, (size - 1) // 2) * (alpha / size) + k
    scale = ops.pow(base, -beta)
    others = _near_in_ops(g * x * scale / base, (size - 1) // 2, size // 2)
    return g * scale - x * others * (2 * alpha * beta / size)


def _gradient(g: Tensor, out: Tensor, x: Tensor, **settings: Any) -> Grads:
    return (lambda: ops.local_response_norm_gradient(g, x, **settings),)


def _cost(*specs: Spec, out: Spec, size: int, **settings: Any) -> Cost:
    return Cost(len(specs) * (size + 20) * out.size, sum(s.nbytes for s in specs) + out.nbytes)


def _cases() -> Iterator[tuple[Shape, dict[str, float]]]:
    yield (2, 5, 3), {"size": 3, "alpha": 0.5, "beta": 0.75, "k": 1.0}
    yield (1, 7, 2, 2), {"size": 4, "alpha": 0.3, "beta": 0.5, "k": 2.0}
    yield (2, 3, 2), {"size": 9, "alpha": 1.0, "beta": 1.0, "k": 1.0}  # more neighbours than channels
    yield (2, 3, 2), {"size": 1, "alpha": 1.0, "beta": 0.75, "k": 1.0}
    yield (0, 3, 2), {"size": 2}
    yield (2, 4, 1, 2, 2), {"size": 2, "alpha": 0.5}
    yield (3, 19, 13, 11), {"size": 5, "alpha": 0.1}


def _samples(rng: Rng) -> Iterator[Sample]:
    for shape, settings in _cases():
        yield Sample((uniform(rng, shape),), settings, smooth=prod(shape) < 100)
        yield Sample((mirrored(uniform(rng, shape)),), settings, smooth=False)


def _samples_of_gradient(rng: Rng) -> Iterator[Sample]:
    for shape, settings in _cases():
        yield Sample((uniform(rng, shape), uniform(rng, shape)), settings, smooth=prod(shape) < 100)
        yield Sample((mirrored(uniform(rng, shape)), mirrored(uniform(rng, shape))), settings, smooth=False)


_TOLERANCE = in_norm(64, "OpenCL's 16 ULP for pow, twice in the gradient, and a sum of neighbours")
local_response_norm = Op(
    "local_response_norm", _infer, _reference, _samples, _gradient, widened(_decompose), _cost,
    promote=floating, tolerance=_TOLERANCE,
    doc="x / (k + alpha * m) ** beta, where m is the mean of x * x over `size` neighbouring channels of x (N, C, ...).",
)  # fmt: skip
local_response_norm_gradient = Op(
    "local_response_norm_gradient", _infer_gradient, _reference_gradient, _samples_of_gradient, None,
    widened(_decompose_gradient), _cost, promote=floating, tolerance=_TOLERANCE,
    doc="The gradient of local_response_norm at x, given that of its result.",
)  # fmt: skip
