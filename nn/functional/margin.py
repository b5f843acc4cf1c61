"""Losses that are content once a score is ahead of another by a margin, as functions."""

from __future__ import annotations

from collections.abc import Callable

import hal
from hal import ops
from hal.errors import SettingError, ShapeError
from hal.ops.losses import check_reduction, reduced
from hal.tensor import Tensor
from nn.functional.distance import pairwise_distance

Distance = Callable[[Tensor, Tensor], Tensor]


def _at_least_zero(x: Tensor) -> Tensor:
    return ops.maximum(x, 0.0)


def _same_shapes(who: str, **given: Tensor) -> None:
    if len({x.shape for x in given.values()}) > 1:
        shapes = ", ".join(f"{name} {x.shape}" for name, x in given.items())
        raise ShapeError(f"{who} needs tensors of one shape, got {shapes}")


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, *, reduction: str = "mean"
) -> Tensor:
    """What it costs that `input1` is not ahead of `input2` by `margin` where the target is 1, or behind where it is -1.

    Raises:
        ShapeError: the number of axes differs.

    Source: torch.nn.functional.margin_ranking_loss.
    """
    check_reduction("margin_ranking_loss", reduction)
    if not input1.ndim == input2.ndim == target.ndim:
        raise ShapeError(
            f"margin_ranking_loss needs tensors of as many axes, got shapes {input1.shape}, {input2.shape} and a "
            f"target {target.shape}"
        )
    return reduced(_at_least_zero(margin - target * (input1 - input2)), reduction)


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, *, reduction: str = "mean") -> Tensor:
    """Distances themselves where the target is 1, and what they lack to `margin` where it is -1.

    Source: torch.nn.functional.hinge_embedding_loss.
    """
    check_reduction("hinge_embedding_loss", reduction)
    alike = ops.where(ops.not_equal(target, -1), input, 0.0)
    apart = ops.where(ops.not_equal(target, 1), _at_least_zero(margin - input), 0.0)
    return reduced(alike + apart, reduction)


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, *, reduction: str = "mean"
) -> Tensor:
    """1 - cos of vectors (N, D) or (D) where the target is 1, what the cosine is above `margin` where it is -1.

    Raises:
        ShapeError: the target (N) or () does not belong to the vectors.

    Source: torch.nn.functional.cosine_embedding_loss.
    """
    check_reduction("cosine_embedding_loss", reduction)
    _same_shapes("cosine_embedding_loss", input1=input1, input2=input2)
    if target.ndim > 1 or input1.ndim != target.ndim + 1:
        raise ShapeError(
            f"cosine_embedding_loss needs vectors (N, D) and a target (N), or (D) and (), got {input1.shape} and "
            f"{target.shape}"
        )
    lengths = [ops.sum(x * x, axis=-1) + 1e-12 for x in (input1, input2)]
    cosine = ops.sum(input1 * input2, axis=-1) / ops.sqrt(lengths[0] * lengths[1])
    alike = ops.where(ops.equal(target, 1), 1.0 - cosine, 0.0)
    apart = ops.where(ops.equal(target, -1), _at_least_zero(cosine - margin), 0.0)
    return reduced(alike + apart, reduction)


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6,
    swap: bool = False, *, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """What it costs that an anchor is not nearer to its like than to another, by `margin` in the p-norm.

    Args:
        swap: compare with the like's distance to the other, if that is nearer (Balntas et al., 2016).

    Source: torch.nn.functional.triplet_margin_loss.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return pairwise_distance(a, b, p, eps)

    return _triplet("triplet_margin_loss", anchor, positive, negative, distance, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *, distance_function: Distance | None = None,
    margin: float = 1.0, swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """triplet_margin_loss with a distance of your own; `pairwise_distance` if none is given.

    Source: torch.nn.functional.triplet_margin_with_distance_loss.
    """
    who = "triplet_margin_with_distance_loss"
    return _triplet(who, anchor, positive, negative, distance_function or pairwise_distance, margin, swap, reduction)


def _triplet(
    who: str, anchor: Tensor, positive: Tensor, negative: Tensor, distance: Distance, margin: float, swap: bool,
    reduction: str,
) -> Tensor:  # fmt: skip
    check_reduction(who, reduction)
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise ShapeError(
            f"{who} needs an anchor, a positive and a negative of as many axes, got shapes {anchor.shape}, "
            f"{positive.shape} and {negative.shape}"
        )
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = ops.minimum(far, distance(positive, negative))
    return reduced(_at_least_zero(margin + near - far), reduction)


def soft_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target * x)) for targets of 1 and -1. Source: torch.nn.functional.soft_margin_loss."""
    check_reduction("soft_margin_loss", reduction)
    _same_shapes("soft_margin_loss", input=input, target=target)
    return reduced(ops.logaddexp(-(target * input), 0.0), reduction)


def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, *,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The mean over classes of what each comes closer than `margin` to the target class, to the power `p`.

    Args:
        input: scores (N, C), or (C).
        target: class indices (N), or ().
        p: 1 or 2.
        weight: one for each class, by which the costs of its samples are multiplied.

    Raises:
        SettingError: another `p`.
        ShapeError: shapes that do not fit.

    Source: torch.nn.functional.multi_margin_loss.
    """
    check_reduction("multi_margin_loss", reduction)
    if p not in (1, 2):
        raise SettingError(f"multi_margin_loss needs p= 1 or 2, got {p}")
    if input.ndim not in (1, 2) or target.shape != input.shape[:-1]:
        raise ShapeError(
            f"multi_margin_loss needs scores (N, C) and classes (N), or (C) and (), got {input.shape} and "
            f"{target.shape}"
        )
    classes = input.shape[-1]
    if weight is not None and weight.shape != (classes,):
        raise ShapeError(f"multi_margin_loss needs one weight for each of {classes} classes, got {weight.shape}")
    chosen = ops.gather(input, target.unsqueeze(-1), axis=-1)
    behind = _at_least_zero(margin - chosen + input)
    if p == 2:
        behind = behind * behind
    if weight is not None:
        behind = behind * ops.take(weight, target, axis=0).unsqueeze(-1)
    others = ops.logical_not(ops.one_hot(target, classes=classes))
    return reduced(ops.sum(ops.where(others, behind, 0.0), axis=-1) / classes, reduction)


def multilabel_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """What each class that is no target comes closer than 1 to each that is, over the number of classes.

    Args:
        input: scores (N, C), or (C).
        target: of the same shape: class indices, up to the first -1.

    Raises:
        ShapeError: shapes that do not fit.

    Source: torch.nn.functional.multilabel_margin_loss.
    """
    check_reduction("multilabel_margin_loss", reduction)
    if input.ndim not in (1, 2):
        raise ShapeError(f"multilabel_margin_loss needs scores (N, C) or (C), got {input.shape}")
    _same_shapes("multilabel_margin_loss", input=input, target=target)
    classes = input.shape[-1]
    named = ops.greater(ops.cumprod(ops.cast(ops.greater_equal(target, 0), dtype=hal.int64), axis=-1), 0)
    places = ops.where(named, target, 0)
    hot = ops.logical_and(ops.one_hot(places, classes=classes), named.unsqueeze(-1))
    is_target = ops.any(hot, axis=-2)
    scores = ops.gather(input, places, axis=-1)
    behind = _at_least_zero(1.0 - (scores.unsqueeze(-1) - input.unsqueeze(-2)))
    counts = ops.logical_and(named.unsqueeze(-1), ops.logical_not(is_target).unsqueeze(-2))
    return reduced(ops.sum(ops.where(counts, behind, 0.0), axis=(-2, -1)) / classes, reduction)


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """The mean over classes (N, C) of binary cross-entropies of sigmoid(x) with targets of 0 and 1.

    Source: torch.nn.functional.multilabel_soft_margin_loss.
    """
    check_reduction("multilabel_soft_margin_loss", reduction)
    _same_shapes("multilabel_soft_margin_loss", input=input, target=target)
    costs = -(target * ops.log_sigmoid(input) + (1.0 - target) * ops.log_sigmoid(-input))
    return reduced(ops.mean(costs if weight is None else costs * weight, axis=-1), reduction)
