"""Losses of a classifier: cross_entropy from scores and nll_loss from log-probabilities, with torch's conventions.

The class axis is axis 1, or axis 0 of a vector. A target holds class indices (any integers, of the shape without the
class axis) or, for cross_entropy, the probability of each class (floating, of the scores' shape).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DTypeError, SettingError, ShapeError
from hal.op import Cost, Grads, Op, Specs, in_norm
from hal.ops.classification_reference import (
    IGNORE,
    class_axis,
    reference_cross_entropy,
    reference_cross_entropy_gradient,
    reference_nll,
    reference_nll_gradient,
    samples_of_cross_entropy,
    samples_of_nll,
    with_gradient,
    without_classes,
)
from hal.ops.common import FLOATS, INTEGERS, check_kind, floating
from hal.ops.losses import check_reduction, reduced
from hal.ops.precision import widened
from hal.ops.steps import kept, positions, zeros
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor

_SUMS = in_norm(32, "log_softmax's own, and a weighted sum of terms of one sign, which errs like a mean")


# What is asked of a call. `x` are the scores (or log-probabilities).


def _promote(*given: DType) -> tuple[DType, ...]:
    """Scores, weights and probabilities in one floating type; class indices as they are."""
    (wanted, *_) = floating(*(d for i, d in enumerate(given) if i != 1 or d.is_floating))
    return tuple(d if i == 1 and not d.is_floating else wanted for i, d in enumerate(given))


def _check(who: str, x: Spec, target: Spec, weight: Spec | None, reduction: str, smoothing: float | None) -> None:
    check_reduction(who, reduction)
    check_kind(who, x, FLOATS)
    if x.ndim == 0:
        raise ShapeError(f"{who} needs scores of shape (classes,) or (batch, classes, ...), got a single number")
    axis, indices = class_axis(x.ndim), without_classes(x.shape)
    probabilities = smoothing is not None  # only cross_entropy, which smooths, takes them
    if probabilities and target.dtype.is_floating:
        if target.shape != x.shape:
            raise ShapeError(
                f"{who} with probabilities needs a target of the scores' shape {x.shape}, got {target.shape}; "
                "if it holds class indices, convert it to int64"
            )
    elif target.dtype.kind not in INTEGERS:
        also = f", or probabilities of shape {x.shape}" if probabilities else ""
        raise DTypeError(
            f"{who} needs a target of int64 class indices{also}, got {target.dtype.name}; convert it with .long()"
        )
    elif target.shape != indices:
        raise ShapeError(
            f"{who} needs class indices of shape {indices} for scores of shape {x.shape}, whose axis {axis} lists "
            f"the classes; got {target.shape}"
        )
    if weight is not None and weight.shape != (x.shape[axis],):
        raise ShapeError(f"{who} needs one weight for each of {x.shape[axis]} classes, got a weight of {weight.shape}")
    if smoothing is not None and not 0 <= smoothing <= 1:
        raise SettingError(f"{who} needs a label_smoothing between 0 and 1, got {smoothing}")


def _infer_nll(
    x: Spec, target: Spec, weight: Spec | None = None, /, *, reduction: str = "mean", ignore_index: int = IGNORE
) -> Spec:
    _check("nll_loss", x, target, weight, reduction, None)
    return Spec(without_classes(x.shape) if reduction == "none" else (), x.dtype)


def _infer_cross_entropy(
    x: Spec, target: Spec, weight: Spec | None = None, /, *,
    reduction: str = "mean", ignore_index: int = IGNORE, label_smoothing: float = 0.0,
) -> Spec:  # fmt: skip
    _check("cross_entropy", x, target, weight, reduction, label_smoothing)
    return Spec(without_classes(x.shape) if reduction == "none" else (), x.dtype)


def _check_loss_gradient(who: str, g: Spec, x: Spec, reduction: str) -> None:
    wanted = without_classes(x.shape) if reduction == "none" else ()
    if g.shape != wanted:
        raise ShapeError(f"{who} with reduction={reduction!r} needs a gradient of shape {wanted}, got {g.shape}")


def _infer_nll_gradient(
    g: Spec, x: Spec, target: Spec, weight: Spec | None = None, /, *,
    reduction: str = "mean", ignore_index: int = IGNORE,
) -> Spec:  # fmt: skip
    _check("nll_loss_gradient", x, target, weight, reduction, None)
    _check_loss_gradient("nll_loss_gradient", g, x, reduction)
    return x


def _infer_cross_entropy_gradient(
    g: Spec, x: Spec, target: Spec, weight: Spec | None = None, /, *,
    reduction: str = "mean", ignore_index: int = IGNORE, label_smoothing: float = 0.0,
) -> Spec:  # fmt: skip
    _check("cross_entropy_gradient", x, target, weight, reduction, label_smoothing)
    _check_loss_gradient("cross_entropy_gradient", g, x, reduction)
    return x


# What the ops consist of. Each loss is -sum(weight * share * log-probability) over the classes; the shares of class
# indices are 1 for the class and 0 for the others, before smoothing.


def _hot(x: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Where the class is the target's, and where the target counts, both of a shape that broadcasts to that of x."""
    axis = class_axis(x.ndim)
    target = kept(ops.cast(target, dtype=dtypes.int64), x.shape, axis)
    counts = ops.logical_not(ops.equal(target, ignore_index))
    return ops.logical_and(ops.equal(target, positions(x, axis)), counts), counts


def _by_class(weight: Tensor | None, x: Tensor) -> Tensor | float:
    """The weights in a shape that broadcasts along the class axis."""
    if weight is None:
        return 1.0
    axis = class_axis(x.ndim)
    return ops.reshape(weight, shape=tuple(n if i == axis else 1 for i, n in enumerate(x.shape)))


def _shares(x: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, smoothing: float) -> Tensor:
    """What the log-probabilities are multiplied with, up to the sign."""
    floor = smoothing / max(1, x.shape[class_axis(x.ndim)])
    scale = _by_class(weight, x)
    if target.dtype.is_floating:
        return (target * (1 - smoothing) + floor) * scale
    hot, counts = _hot(x, target, ignore_index)
    if not smoothing:
        return ops.where(hot, scale, zeros(x, ()))
    zero = zeros(x, ())
    return (ops.where(hot, zero + (1 - smoothing), zero) + ops.where(counts, zero + floor, zero)) * scale


def _weight_of_all(x: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor | int:
    """What `mean` divides by: the sum of the targets' weights; for probabilities the number of targets."""
    if target.dtype.is_floating:
        return target.spec.size // max(1, target.shape[class_axis(target.ndim)])
    return ops.sum(_shares(x, target, weight, ignore_index, 0.0))


def _reduced(values: Tensor, x: Tensor, target: Tensor, weight: Tensor | None, reduction: str, ignored: int) -> Tensor:
    if reduction == "mean":
        return ops.sum(values) / _weight_of_all(x, target, weight, ignored)
    return reduced(values, reduction)


@widened
def _decompose_nll(
    x: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str, ignore_index: int
) -> Tensor:
    axis = class_axis(x.ndim)
    hot, _ = _hot(x, target, ignore_index)
    chosen = ops.where(hot, x * _by_class(weight, x), 0.0)  # no product with 0: a log-probability may be infinite
    return _reduced(-ops.sum(chosen, axis=axis), x, target, weight, reduction, ignore_index)


@widened
def _decompose_cross_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None = None, *,
    reduction: str, ignore_index: int, label_smoothing: float,
) -> Tensor:  # fmt: skip
    axis = class_axis(x.ndim)
    logs = ops.log_softmax(x, axis=axis)
    if not label_smoothing and not target.dtype.is_floating:
        rest = () if weight is None else (weight,)
        return ops.nll_loss(logs, target, *rest, reduction=reduction, ignore_index=ignore_index)
    values = -ops.sum(_shares(x, target, weight, ignore_index, label_smoothing) * logs, axis=axis)
    return _reduced(values, x, target, weight, reduction, ignore_index)


def _of_each(g: Tensor, x: Tensor, target: Tensor, weight: Tensor | None, reduction: str, ignored: int) -> Tensor:
    """The gradient of each target's loss, of a shape that broadcasts to that of x."""
    if reduction == "mean":
        total = _weight_of_all(x, target, weight, ignored)
        if isinstance(total, int):
            return g / max(1, total)
        nothing = ops.equal(total, 0.0)  # all are ignored: the loss is NaN, but nothing may be moved by it
        return ops.where(nothing, 0.0, g / ops.where(nothing, 1.0, total))
    return kept(g, x.shape, class_axis(x.ndim)) if reduction == "none" else g


@widened
def _decompose_nll_gradient(
    g: Tensor, x: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str, ignore_index: int
) -> Tensor:
    each = _of_each(g, x, target, weight, reduction, ignore_index)
    return ops.broadcast_to(_shares(x, target, weight, ignore_index, 0.0) * -each, shape=x.shape)


@widened
def _decompose_cross_entropy_gradient(
    g: Tensor, x: Tensor, target: Tensor, weight: Tensor | None = None, *,
    reduction: str, ignore_index: int, label_smoothing: float,
) -> Tensor:  # fmt: skip
    axis = class_axis(x.ndim)
    each = _of_each(g, x, target, weight, reduction, ignore_index)
    shares = _shares(x, target, weight, ignore_index, label_smoothing)
    return (ops.softmax(x, axis=axis) * ops.sum(shares, axis=axis, keepdims=True) - shares) * each


# Gradients.


def _gradient_of_weight(
    g: Tensor, out: Tensor, logs: Tensor, target: Tensor, weight: Tensor, reduction: str, ignored: int, smoothing: float
) -> Tensor:
    """By the weights: what is summed up is linear in them, and `mean` also divides by a sum of them."""
    others = tuple(i for i in range(logs.ndim) if i != class_axis(logs.ndim))
    each = _of_each(g, logs, target, weight, reduction, ignored)
    shares = _shares(logs, target, None, ignored, smoothing)
    products = ops.where(ops.equal(shares, 0.0), 0.0, shares * logs) * -each
    if reduction == "mean" and not target.dtype.is_floating:
        products = products - _shares(logs, target, None, ignored, 0.0) * (each * out)
    return ops.sum(products, axis=others) if others else products


def _gradient_nll(
    g: Tensor,
    out: Tensor,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str,
    ignore_index: int,
) -> Grads:
    settings = {"reduction": reduction, "ignore_index": ignore_index}
    if weight is None:
        return lambda: ops.nll_loss_gradient(g, x, target, **settings), None
    return (
        lambda: ops.nll_loss_gradient(g, x, target, weight, **settings),
        None,
        lambda: _gradient_of_weight(g, out, x, target, weight, reduction, ignore_index, 0.0),
    )


def _gradient_cross_entropy(
    g: Tensor, out: Tensor, x: Tensor, target: Tensor, weight: Tensor | None = None, *,
    reduction: str, ignore_index: int, label_smoothing: float,
) -> Grads:  # fmt: skip
    rest = () if weight is None else (weight,)
    settings = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": label_smoothing}

    def by_x() -> Tensor:
        return ops.cross_entropy_gradient(g, x, target, *rest, **settings)

    def by_target() -> Tensor:
        logs = ops.log_softmax(x, axis=class_axis(x.ndim)) * _by_class(weight, x)
        return logs * (_of_each(g, x, target, weight, reduction, ignore_index) * (label_smoothing - 1.0))

    def by_weight() -> Tensor:
        assert weight is not None
        logs = ops.log_softmax(x, axis=class_axis(x.ndim))
        return _gradient_of_weight(g, out, logs, target, weight, reduction, ignore_index, label_smoothing)

    entries = (by_x, by_target if target.dtype.is_floating else None)
    return entries if weight is None else (*entries, by_weight)


def _cost(flops: int) -> Callable[..., Cost]:
    def cost(*specs: Spec, out: Specs, **settings: Any) -> Cost:
        outs = out if isinstance(out, tuple) else (out,)
        scores = max(specs, key=lambda s: s.size)
        return Cost(flops * scores.size, sum(s.nbytes for s in (*specs, *outs)))

    return cost


def _promote_gradient(g: DType, *given: DType) -> tuple[DType, ...]:
    wanted = _promote(*given)
    return (wanted[0], *wanted)


nll_loss = Op(
    "nll_loss", _infer_nll, reference_nll, samples_of_nll, _gradient_nll, _decompose_nll, _cost(1),
    promote=_promote, tolerance=_SUMS, doc="""Minus the log-probability (from `log_softmax`) of the target's class.

    x: (classes,) or (batch, classes, ...); target: class indices () or (batch, ...); weight: (classes,).
    `mean` divides by the sum of the targets' weights; targets equal to ignore_index count for nothing.

    Source: torch.nn.functional.nll_loss.""",
)  # fmt: skip

cross_entropy = Op(
    "cross_entropy", _infer_cross_entropy, reference_cross_entropy, samples_of_cross_entropy,
    _gradient_cross_entropy, _decompose_cross_entropy, _cost(8), promote=_promote, tolerance=_SUMS,
    doc="""Minus the logarithm of the probability that softmax gives to the target.

    x: (classes,) or (batch, classes, ...); target: class indices () or (batch, ...), or probabilities of the shape of
    x; weight: (classes,). `mean` divides by the sum of the targets' weights (for probabilities, by their number);
    targets equal to ignore_index count for nothing; label_smoothing mixes the target with equal probabilities.

    Source: torch.nn.functional.cross_entropy.""",
)  # fmt: skip

nll_loss_gradient = Op(
    "nll_loss_gradient", _infer_nll_gradient, reference_nll_gradient, with_gradient(samples_of_nll), None,
    _decompose_nll_gradient, _cost(1), promote=_promote_gradient, tolerance=_SUMS,
    doc="The gradient of nll_loss by its log-probabilities: (g, x, target, weight?).",
)  # fmt: skip

cross_entropy_gradient = Op(
    "cross_entropy_gradient", _infer_cross_entropy_gradient, reference_cross_entropy_gradient,
    with_gradient(samples_of_cross_entropy), None, _decompose_cross_entropy_gradient, _cost(8),
    promote=_promote_gradient, tolerance=_SUMS,
    doc="The gradient of cross_entropy by its scores, (softmax(x) - target) * g in the simple case: "
        "(g, x, target, weight?).",
)  # fmt: skip
