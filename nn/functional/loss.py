"""Losses as functions: what a prediction costs, as the mean, the sum, or for each element."""

from __future__ import annotations

import warnings

from hal import ops
from hal.errors import ShapeError
from hal.ops.losses import check_reduction, reduced
from hal.tensor import Tensor


def _given(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Optional inputs as ops take them: left out at the end."""
    return tuple(t for t in tensors if t is not None)


def _like_target(who: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise ShapeError(
            f"{who} needs a target of the input's shape {input.shape}, got {target.shape}: reshape it, "
            "or broadcasting would compare every element with every other"
        )


def _compared(who: str, input: Tensor, target: Tensor) -> None:
    """Warn, as torch does, where broadcasting compares what was most likely not meant to be compared."""
    if input.shape != target.shape:
        warnings.warn(
            f"{who} got an input {input.shape} and a target {target.shape}, and compares every element of one with "
            "several of the other: give both one shape, if that is not meant",
            UserWarning,
            stacklevel=3,
        )


def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """What scores (N, C, ...) cost whose largest should be that of the target class.

    Args:
        target: class indices (N, ...) of integers, or probabilities of the scores' shape.
        weight: one for each class.
        ignore_index: a target that costs nothing.
        label_smoothing: which part of the target is spread over all classes.

    Raises:
        ShapeError, DTypeError: the target fits neither form.

    Source: torch.nn.functional.cross_entropy.
    """
    return ops.cross_entropy(
        input, target, *_given(weight), reduction=reduction, ignore_index=ignore_index, label_smoothing=label_smoothing
    )


def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """What log-probabilities (N, C, ...) cost for target classes (N, ...). Source: torch.nn.functional.nll_loss.

    Raises:
        ShapeError, DTypeError: the target has another shape, or no integers.
    """
    return ops.nll_loss(input, target, *_given(weight), reduction=reduction, ignore_index=ignore_index)


def _weighted(who: str, costs: Tensor, weight: Tensor, reduction: str, over: str) -> Tensor:
    """Costs times weights, and their mean over the sum of the `weight`s or over the `count`."""
    check_reduction(who, reduction)
    if weight.shape != costs.shape:
        raise ShapeError(f"{who} needs a weight for each element {costs.shape}, got {weight.shape}")
    if reduction == "mean" and over == "weight":
        return ops.sum(costs * weight) / ops.sum(weight)
    return reduced(costs * weight, reduction)


def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """(x - target) squared.

    Args:
        weight: one for each element; the mean is then over the sum of the weights.

    Source: torch.nn.functional.mse_loss.
    """
    _compared("mse_loss", input, target)
    if weight is not None:
        costs = ops.mse_loss(input, target, reduction="none")
        return _weighted("mse_loss", costs, weight, reduction, over="weight")
    return ops.mse_loss(input, target, reduction=reduction)


def l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """abs(x - target); `weight` as in `mse_loss`. Source: torch.nn.functional.l1_loss."""
    _compared("l1_loss", input, target)
    if weight is not None:
        costs = ops.l1_loss(input, target, reduction="none")
        return _weighted("l1_loss", costs, weight, reduction, over="weight")
    return ops.l1_loss(input, target, reduction=reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """abs(x - target), but a parabola for differences below `beta`. Source: torch.nn.functional.smooth_l1_loss."""
    _compared("smooth_l1_loss", input, target)
    return ops.smooth_l1_loss(input, target, reduction=reduction, beta=beta)


def huber_loss(
    input: Tensor, target: Tensor, *, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Half the square of differences below `delta`, a straight line above.

    Args:
        weight: one for each element; the mean is over their number, as in torch.

    Source: torch.nn.functional.huber_loss.
    """
    _compared("huber_loss", input, target)
    if weight is not None:
        costs = ops.huber_loss(input, target, reduction="none", delta=delta)
        return _weighted("huber_loss", costs, weight, reduction, over="count")
    return ops.huber_loss(input, target, reduction=reduction, delta=delta)


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """What probabilities cost for targets between 0 and 1. Source: torch.nn.functional.binary_cross_entropy.

    Raises:
        ShapeError: the target has another shape.
    """
    _like_target("binary_cross_entropy", input, target)
    return ops.binary_cross_entropy(input, target, *_given(weight), reduction=reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """binary_cross_entropy of sigmoid(x), without overflow.

    Args:
        pos_weight: multiplies the cost of missing a target of 1.

    Raises:
        ShapeError: the target has another shape.

    Source: torch.nn.functional.binary_cross_entropy_with_logits.
    """
    _like_target("binary_cross_entropy_with_logits", input, target)
    extra = _given(weight) if pos_weight is None else (1.0 if weight is None else weight, pos_weight)
    return ops.bce_with_logits(input, target, *extra, reduction=reduction)


def kl_div(input: Tensor, target: Tensor, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log(target) - x) for log-probabilities x. Source: torch.nn.functional.kl_div.

    Args:
        reduction: also `batchmean`, the sum divided by the size of axis 0: the divergence's own definition.
    """
    return ops.kl_div(input, target, reduction=reduction, log_target=log_target)
