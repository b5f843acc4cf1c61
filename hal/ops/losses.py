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
from hal.ops.common import FLOATS, check_kind, floating, quiet, takes, unbroadcast, uniform
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


Element = Callable[..., Any]


def _loss(
    name: str,
    reference: Element,
    element: Element,
    slopes: tuple[Element, ...],
    *,
    optional: tuple[str, ...] = (),
    settings: dict[str, Any] | None = None,
    check: Callable[..., None] = lambda **settings: None,
    same_shape: bool = False,
    also: tuple[str, ...] = (),
    inside: tuple[float, float] = (-2.0, 2.0),
    targets: tuple[float, float] = (-2.0, 2.0),
    calls: tuple[dict[str, Any], ...] = ({},),
    extreme: tuple[tuple[float, float], ...] = (),
    flops: int = 4,
    tolerance: Tolerance = _SUMS,
    doc: str = "",
) -> Op:
    """The record of a loss `name(x, target, *optional, reduction="mean", **settings)`.

    Args:
        reference: what one element costs, in NumPy; `element`: the same in ops.
        slopes: for each input `(G, x, target, *optional, **settings)`, the slope times the element's gradient G.
        same_shape: whether the target must have the shape of x, or may broadcast.
        also: reductions besides mean, sum and none.
        inside, targets: where samples of x and of the target are drawn.
        calls: settings of the samples; extreme: pairs (x, target) where the loss is not smooth.
    """
    keywords = {"reduction": "mean", **(settings or {})}
    names = ("x", "target", *optional)

    def infer(*specs: Spec, **given: Any) -> Spec:
        given = {**keywords, **given}
        check_reduction(name, given["reduction"], also)
        check(**given)
        for spec in specs:
            check_kind(name, spec, FLOATS)
        x, target, *rest = (s.shape for s in specs)
        if same_shape and x != target:
            raise ShapeError(f"{name} needs a target of the prediction's shape {x}, got {target}; reshape one of them")
        shape = broadcast_shapes(name, x, target)
        for other, label in zip(rest, optional, strict=False):
            if broadcast_shapes(name, shape, other) != shape:
                raise ShapeError(f"{name} needs a {label} that broadcasts to {shape}, got {other}")
        if given["reduction"] == "batchmean" and not shape:
            raise ShapeError(f"{name} with reduction='batchmean' needs a batch axis, got single numbers")
        return Spec(shape if given["reduction"] == "none" else (), specs[0].dtype)

    takes(infer, names, keywords, optional)

    @quiet
    def mean_of_reference(*inputs: Array, reduction: str = "mean", **given: Any) -> Array:
        return reference_reduced(reference(*inputs, **{**(settings or {}), **given}), reduction)

    @widened
    def decompose(*inputs: Tensor, reduction: str, **given: Any) -> Tensor:
        return reduced(element(*inputs, **given), reduction)

    def gradient(g: Tensor, out: Tensor, *inputs: Tensor, reduction: str, **given: Any) -> Grads:
        shape = broadcast_shapes(name, *(x.shape for x in inputs))
        each = share(g, shape, reduction)

        def entry(slope: Element, x: Tensor) -> Callable[[], Tensor]:
            def gradient_of_input() -> Tensor:
                full = slope(each, *inputs, **given)
                full = full if full.shape == shape else ops.broadcast_to(full, shape=shape)
                return unbroadcast(full, x.shape)

            return gradient_of_input

        return tuple(entry(slope, x) for slope, x in zip(slopes, inputs, strict=False))

    def samples(rng: Rng) -> Iterator[Sample]:
        def pair(shape: Shape, other: Shape) -> tuple[Array, Array]:
            return uniform(rng, shape, *inside), uniform(rng, other, *targets)

        for reduction in (*REDUCTIONS, *also):
            for given in calls:
                yield Sample(pair((4, 3), (4, 3)), {"reduction": reduction, **given})
            for shape in ((5,), (0, 3), (2, 3, 2, 2)):
                yield Sample(pair(shape, shape), {"reduction": reduction})
            x, target = pair((4, 3), (4, 3))
            yield Sample((x.T, target[::-1].T), {"reduction": reduction})
            for count in range(1, len(optional) + 1):
                weights = [uniform(rng, shape, 0.5, 2.0) for shape in ((3,), (4, 3))[:count]]
                yield Sample((*pair((4, 3), (4, 3)), *weights), {"reduction": reduction})
            if extreme:
                points = [np.array(column, np.float32) for column in zip(*extreme, strict=True)]
                yield Sample(tuple(points), {"reduction": reduction}, smooth=False)
        for reduction in REDUCTIONS:
            yield Sample(pair((), ()), {"reduction": reduction})
            yield Sample(pair((301, 307), (301, 307)), {"reduction": reduction}, smooth=False)
            if not same_shape:
                yield Sample(pair((4, 1), (3,)), {"reduction": reduction})

    def cost(*specs: Spec, out: Specs, **given: Any) -> Cost:
        assert isinstance(out, Spec)
        size = Spec(broadcast_shapes(name, *(s.shape for s in specs)), specs[0].dtype).size
        return Cost(flops * size, sum(s.nbytes for s in specs) + out.nbytes)

    return Op(
        name,
        infer,
        mean_of_reference,
        samples,
        gradient,
        decompose,
        cost,
        promote=floating,
        tolerance=tolerance,
        doc=doc,
    )


# What one element costs, and its slopes, where that is more than a line.


def _smooth_l1_reference(x: Array, target: Array, *, beta: float) -> Array:
    d = np.abs(x - target)
    return np.where(d < beta, 0.5 * d * d / (beta or 1), d - 0.5 * beta)


def _smooth_l1(x: Tensor, target: Tensor, *, beta: float) -> Tensor:
    d = ops.abs(x - target)
    return ops.where(ops.less(d, beta), d * d * (0.5 / beta), d - 0.5 * beta) if beta else d


def _smooth_l1_slope(g: Tensor, x: Tensor, target: Tensor, *, beta: float) -> Tensor:
    d = x - target
    return (ops.clip(d * (1 / beta), low=-1.0, high=1.0) if beta else ops.sign(d)) * g


def _huber_reference(x: Array, target: Array, *, delta: float) -> Array:
    d = np.abs(x - target)
    return np.where(d < delta, 0.5 * d * d, delta * (d - 0.5 * delta))


def _huber(x: Tensor, target: Tensor, *, delta: float) -> Tensor:
    d = ops.abs(x - target)
    return ops.where(ops.less(d, delta), d * d * 0.5, d * delta - 0.5 * delta * delta)


def _huber_slope(g: Tensor, x: Tensor, target: Tensor, *, delta: float) -> Tensor:
    return ops.clip(x - target, low=-delta, high=delta) * g


LEAST_LOG = -100.0  # torch's: a probability of exactly 0 or 1 costs 100 and not infinity
LEAST_SPREAD = 1e-12  # torch's: what p (1 - p) is at least, as a divisor


def _logs(x: Tensor) -> tuple[Tensor, Tensor]:
    return ops.maximum(ops.log(x), LEAST_LOG), ops.maximum(ops.log1p(-x), LEAST_LOG)


def _weighted(value: Any, weight: Any | None) -> Any:
    return value if weight is None else value * weight


def _bce_reference(x: Array, target: Array, weight: Array | None = None) -> Array:
    yes, no = np.maximum(np.log(x), LEAST_LOG), np.maximum(np.log1p(-x), LEAST_LOG)
    return _weighted(-(target * yes + (1 - target) * no), weight)


def _bce(x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    yes, no = _logs(x)
    return _weighted((target - 1.0) * no - target * yes, weight)


def _bce_slope(g: Tensor, x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    return (x - target) * _weighted(g, weight) / ops.maximum(x * (1.0 - x), LEAST_SPREAD)


def _bce_slope_of_target(g: Tensor, x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    yes, no = _logs(x)
    return (no - yes) * _weighted(g, weight)


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) without overflow."""
    return ops.maximum(x, 0.0) + _rest(x)


def _rest(x: Tensor) -> Tensor:
    return ops.log1p(ops.exp(-ops.abs(x)))


def _logits_reference(x: Array, target: Array, weight: Array | None = None, positive: Array | None = None) -> Array:
    yes = np.logaddexp(0, -x)  # -log(sigmoid(x))
    return _weighted(_weighted(target * yes, positive) + (1 - target) * (x + yes), weight)


def _logits(x: Tensor, target: Tensor, weight: Tensor | None = None, positive: Tensor | None = None) -> Tensor:
    # Large terms first: where they cancel, they do so exactly.
    if positive is None:
        return _weighted(ops.maximum(x, 0.0) - x * target + _rest(x), weight)
    factor = (positive - 1.0) * target + 1.0
    return _weighted((1.0 - target) * x + factor * ops.maximum(-x, 0.0) + factor * _rest(x), weight)


def _logits_slope(
    g: Tensor, x: Tensor, target: Tensor, weight: Tensor | None = None, positive: Tensor | None = None
) -> Tensor:
    if positive is None:
        return (ops.sigmoid(x) - target) * _weighted(g, weight)
    return ((1.0 - target) - ((positive - 1.0) * target + 1.0) * ops.sigmoid(-x)) * _weighted(g, weight)


def _logits_slope_of_target(
    g: Tensor, x: Tensor, target: Tensor, weight: Tensor | None = None, positive: Tensor | None = None
) -> Tensor:
    return (-x if positive is None else (positive - 1.0) * _softplus(-x) - x) * _weighted(g, weight)


def _kl_reference(x: Array, target: Array, *, log_target: bool) -> Array:
    if log_target:
        return np.exp(target) * (target - x)
    return np.where(target == 0, 0, target * np.log(target)) - target * x


def _kl(x: Tensor, target: Tensor, *, log_target: bool) -> Tensor:
    if log_target:
        return ops.exp(target) * (target - x)
    some = ops.where(ops.equal(target, 0.0), 1.0, target)
    return target * (ops.log(some) - x)


def _kl_slope(g: Tensor, x: Tensor, target: Tensor, *, log_target: bool) -> Tensor:
    return (ops.exp(target) if log_target else target) * -g


def _kl_slope_of_target(g: Tensor, x: Tensor, target: Tensor, *, log_target: bool) -> Tensor:
    return (ops.exp(target) * (target - x + 1.0) if log_target else ops.log(target) + 1.0 - x) * g


def _at_least(name: str, setting: str, low: float, strictly: bool) -> Callable[..., None]:
    def check(**settings: Any) -> None:
        value = settings[setting]
        if not (value > low if strictly else value >= low):
            raise SettingError(f"{name} needs {setting} {'above' if strictly else 'of at least'} {low}, got {value}")

    return check


# fmt: off
mse_loss = _loss(
    "mse_loss", lambda x, t: (x - t) ** 2, lambda x, t: ops.square(x - t),
    (lambda g, x, t: (x - t) * (g * 2.0), lambda g, x, t: (x - t) * (g * -2.0)),
    doc="The mean of (x - target)**2. Source: torch.nn.functional.mse_loss.")
l1_loss = _loss(
    "l1_loss", lambda x, t: np.abs(x - t), lambda x, t: ops.abs(x - t),
    (lambda g, x, t: ops.sign(x - t) * g, lambda g, x, t: ops.sign(t - x) * g),
    doc="The mean of |x - target|. Source: torch.nn.functional.l1_loss.")
smooth_l1_loss = _loss(
    "smooth_l1_loss", _smooth_l1_reference, _smooth_l1,
    (_smooth_l1_slope, lambda g, x, t, *, beta: _smooth_l1_slope(g, t, x, beta=beta)),
    settings={"beta": 1.0}, calls=({}, {"beta": 0.3}, {"beta": 0.0}),
    check=_at_least("smooth_l1_loss", "beta", 0, False),
    doc="The mean of d**2 / (2 beta) where d = |x - target| < beta, and d - beta / 2 elsewhere. "
        "Source: torch.nn.functional.smooth_l1_loss.")
huber_loss = _loss(
    "huber_loss", _huber_reference, _huber,
    (_huber_slope, lambda g, x, t, *, delta: _huber_slope(g, t, x, delta=delta)),
    settings={"delta": 1.0}, calls=({}, {"delta": 0.3}), check=_at_least("huber_loss", "delta", 0, True),
    doc="The mean of d**2 / 2 where d = |x - target| < delta, and delta (d - delta / 2) elsewhere. "
        "Source: torch.nn.functional.huber_loss.")
binary_cross_entropy = _loss(
    "binary_cross_entropy", _bce_reference, _bce,
    (_bce_slope, _bce_slope_of_target, lambda g, x, t, w: _bce(x, t) * g),
    optional=("weight",), same_shape=True, inside=(0.05, 0.95), targets=(0.0, 1.0), flops=20,
    extreme=((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)),
    doc="The mean of -(target log(x) + (1 - target) log(1 - x)), the logarithms at least -100. "
        "Source: torch.nn.functional.binary_cross_entropy.")
bce_with_logits = _loss(
    "bce_with_logits", _logits_reference, _logits,
    (_logits_slope, _logits_slope_of_target, lambda g, x, t, w, p=None: _logits(x, t, None, p) * g,
     lambda g, x, t, w, p: t * _softplus(-x) * (w * g)),
    optional=("weight", "pos_weight"), same_shape=True, inside=(-4.0, 4.0), targets=(0.0, 1.0), flops=20,
    extreme=((1000, 0), (1000, 1), (-1000, 0), (-1000, 1), (0, 0.5)),
    doc="binary_cross_entropy of sigmoid(x), without overflow; pos_weight multiplies the cost of the target. "
        "Source: torch.nn.functional.binary_cross_entropy_with_logits.")
kl_div = _loss(
    "kl_div", _kl_reference, _kl, (_kl_slope, _kl_slope_of_target),
    settings={"log_target": False}, calls=({}, {"log_target": True}), also=("batchmean",),
    inside=(-4.0, 0.0), targets=(0.1, 1.0), extreme=((-1, 0), (-2, 0.5)), flops=10, tolerance=in_norm(
        32, "terms of both signs, but none larger than a few times the largest result of the samples"),
    doc="The mean of target (log(target) - x), where x holds log-probabilities; with log_target=True the target too. "
        "Source: torch.nn.functional.kl_div.")
# fmt: on
