"""Losses that compare a prediction with a target element by element, then take the mean, the sum, or nothing.

Each is a row of the table at the end: what one element costs, and the slopes of that in the prediction and the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import ops
from hal.errors import SettingError, ShapeError
from hal.op import Array, Cost, Grads, Op, Rng, Sample, Specs, Tolerance, in_norm
from hal.ops.common import FLOATS, check_kind, floating, quiet, unbroadcast, uniform
from hal.ops.precision import widened
from hal.spec import Shape, Spec, broadcast_shapes

if TYPE_CHECKING:
    from hal.tensor import Tensor

REDUCTIONS = ("mean", "sum", "none")
_SUMS = in_norm(32, "a few roundings of each element, and a sum of positive terms, which errs like a mean")


def check_reduction(who: str, reduction: str, also: tuple[str, ...] = ()) -> None:
    """Raise SettingError for a reduction that there is not."""
    if reduction not in (*REDUCTIONS, *also):
        raise SettingError(f"{who} needs reduction= one of {', '.join((*REDUCTIONS, *also))}, got {reduction!r}")


def reduced(values: Tensor, reduction: str) -> Tensor:
    """The mean, the sum, or the values themselves; `batchmean` is the sum divided by the size of axis 0."""
    if reduction == "none":
        return values
    if reduction == "mean":
        return ops.mean(values)
    total = ops.sum(values)
    return total / values.shape[0] if reduction == "batchmean" else total


def reference_reduced(values: Array, reduction: str) -> Array:
    """The same in NumPy, where the mean of nothing is NaN."""
    if reduction == "none":
        return values
    total = np.sum(values)
    count = {"mean": values.size, "batchmean": values.shape[0] if values.ndim else 1, "sum": 1}[reduction]
    return total / np.float64(count)


def share(g: Tensor, shape: Shape, reduction: str) -> Tensor:
    """The gradient of each of the reduced values, of `shape`: it broadcasts to that shape."""
    if reduction == "mean":
        size = int(np.prod(shape))
        return g / size if size else g
    return g / shape[0] if reduction == "batchmean" and shape[0] else g


# The meaning of one element, in operators and functions of `m`: NumPy for the reference, hal.ops for the decomposition.
# Slopes are in ops, and take what the element's function takes.
