"""Calls of hal whose arguments differ from torch's, and the samples that cannot be run, with the reason.

Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import hal
from nn import functional as F

# What cannot be run, sample by sample: known before, or refused by hal with a message.

REFUSED = {
    "a tensor without axes has no axis 0, in the Array API's words; torch takes it for a vector":
        ("", r"has 0 axes|needs at least one axis"),
    "tensordot repeats nothing, in the Array API's words; torch repeats sizes of 1": ("tensordot", "equal sizes"),
    "an index has as many axes as what it indexes; torch takes an empty one of any shape": ("gather", "with the axes"),
    "what is joined has as many axes; torch passes over vectors of no elements": ("cat", "got axis 1"),
    "a stride is a number for each axis; torch takes () for the size of the window": (
        "nn.functional.avg_pool2d", "stride="),
    "a batch has an axis of channels; torch takes a vector of no elements": (
        "nn.functional.batch_norm", r"layout \(N, C, \.\.\.\)|more than one value per channel, got \(0,\)"),
    "a vector of scores has one class, a number; torch takes a vector with one": (
        "nn.functional.multi_margin_loss", r"got \(5,\) and \(1,\)"),
}  # fmt: skip


def by_chance(*args: Any, p: float = 0.5, training: bool = True, **kwargs: Any) -> str | None:
    return "random numbers differ between generators" if training and p else None


def not_attention(*args: Any, dropout_p: float = 0.0, enable_gqa: bool = False, **kwargs: Any) -> str | None:
    if dropout_p:
        return "random numbers differ between generators"
    return "grouped queries are not offered" if enable_gqa else None


def accumulating(*args: Any, accumulate: bool = False, **kwargs: Any) -> str | None:
    return "x[...] = y does not accumulate" if accumulate else None


def reducing(*args: Any, **kwargs: Any) -> str | None:
    return "scatter has no reduce=: scatter_add is its own function" if "reduce" in kwargs else None


def scalar(x: Any, *args: Any, **kwargs: Any) -> str | None:
    """Torch takes a number for a vector."""
    return "a number is no vector; torch takes it for one" if x.ndim == 0 else None


def by_frequency(*args: Any, **kwargs: Any) -> str | None:
    return "embedding has no scale_grad_by_freq" if kwargs.get("scale_grad_by_freq") else None


# Calls whose arguments differ.


def values_only(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pooling without the indices of the maxima, which hal does not offer."""

    def call(x: Any, *args: Any, return_indices: bool = False, **kwargs: Any) -> Any:
        return function(x, *args, **kwargs)

    return call


def adaptive(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, size, return_indices=False: function(x, size)


def pool_gradient(x: Any, *, return_indices: bool, **kwargs: Any) -> Any:
    """The gradient of a sum of maxima."""
    x = x.detach().requires_grad_()
    return hal.grad(F.max_pool2d(x, **kwargs).sum(), [x])[0]


def with_part(x: Any, key: Any, value: Any, **kwargs: Any) -> Any:
    x = x.clone()
    x[key] = value
    return x


def inplace(name: str) -> Callable[..., Any]:
    return lambda x, **kwargs: getattr(x.clone(), name)(*kwargs.values())


def sliced(x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)]


def slice_scatter(x: Any, src: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    return with_part(x, (slice(None),) * (dim % x.ndim) + (slice(start, end, step),), src)


def select_scatter(x: Any, src: Any, dim: int, index: int) -> Any:
    return with_part(x, (slice(None),) * (dim % x.ndim) + (index,), src)


def converted(x: Any, *args: Any, memory_format: Any = None, **kwargs: Any) -> Any:
    return x.to(*args, **kwargs)


def native_batch_norm(x: Any, weight: Any, bias: Any, *rest: Any) -> Any:
    """(running mean, running variance, training, momentum, eps), the first two left out by some samples."""
    mean, var, training, momentum, eps = rest if len(rest) == 5 else (None, None, *rest)
    return F.batch_norm(x, mean, var, weight, bias, training, momentum, eps)


def split_at(x: Any, positions: Any, dim: int = 0) -> Any:
    return hal.tensor_split(x, positions.tolist() if hal.is_tensor(positions) else positions, dim)


def with_eps(args: Any, kwargs: Any) -> Any:
    """rms_norm's eps is that of the type if none is given: say which."""
    given = dict(kwargs)
    if len(args) < 4 and given.get("eps") is None:
        given["eps"] = float(np.finfo(np.float32).eps)
    return args, given
