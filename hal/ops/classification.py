"""Losses of a classifier: cross_entropy from scores and nll_loss from log-probabilities, with torch's conventions.

The class axis is axis 1, or axis 0 of a vector. A target holds class indices (any integers, of the shape without the
class axis) or, for cross_entropy, the probability of each class (floating, of the scores' shape).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DTypeError, ShapeError
from hal.op import Array, Cost, Grads, Op, Rng, Sample, Specs, in_norm
from hal.ops.common import FLOATS, INTEGERS, check_kind, floating, integers, quiet, uniform
from hal.ops.losses import check_reduction, reduced, reference_reduced
from hal.ops.precision import HALVES, widened
from hal.ops.steps import kept, positions
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor

IGNORE = -100  # torch's default for ignore_index


def class_axis(ndim: int) -> int:
    """The axis along which scores of `ndim` axes list the classes."""
    return 1 if ndim > 1 else 0


def _without_classes(shape: Shape) -> Shape:
    axis = class_axis(len(shape))
    return shape[:axis] + shape[axis + 1 :]


def _promote(*given: DType) -> tuple[DType, ...]:
    """Scores, weights and probabilities in one floating type; class indices as they are."""
    float_type = floating(*(d for i, d in enumerate(given) if i != 1 or d.is_floating))[0]
    return tuple(d if i == 1 and not d.is_floating else float_type for i, d in enumerate(given))


def _check(who: str, x: Spec, target: Spec, weight: Spec | None, reduction: str, probabilities: bool) -> None:
    check_reduction(who, reduction)
    check_kind(who, x, FLOATS)
    if x.ndim == 0:
        raise ShapeError(f"{who} needs scores of shape (classes,) or (batch, classes, ...), got a single number")
    if probabilities and target.dtype.is_floating:
        if target.shape != x.shape:
            raise ShapeError(
                f"{who} with probabilities needs a target of the scores' shape {x.shape}, got {target.shape}; "
                "for class indices convert the target to int64"
            )
    elif target.dtype.kind not in INTEGERS:
        also = f" or probabilities of shape {x.shape}" if probabilities else ""
        raise DTypeError(f"{who} needs class indices of int64{also}, got a target of {target.dtype.name}")
    elif target.shape != _without_classes(x.shape):
        raise ShapeError(
            f"{who} needs class indices of shape {_without_classes(x.shape)} for scores of shape {x.shape}, whose axis "
            f"{class_axis(x.ndim)} lists the classes; got {target.shape}"
        )
    if weight is not None and weight.shape != (x.shape[class_axis(x.ndim)],):
        raise ShapeError(
            f"{who} needs one weight for each of the {x.shape[class_axis(x.ndim)]} classes, got shape {weight.shape}"
        )


def _infer_cross_entropy(
    x: Spec, target: Spec, weight: Spec | None = None, /, *, reduction: str = "mean", ignore_index: int = IGNORE,
    label_smoothing: float = 0.0,
) -> Spec:  # fmt: skip
    _check("cross_entropy", x, target, weight, reduction, True)
    if not 0 <= label_smoothing <= 1:
        raise ShapeError(f"cross_entropy needs a label_smoothing between 0 and 1, got {label_smoothing}")
    return Spec(_without_classes(x.shape) if reduction == "none" else (), x.dtype)
