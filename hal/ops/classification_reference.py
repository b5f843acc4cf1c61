"""What the losses of a classifier mean, in NumPy, one target after the other; and the calls that they must take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hal.op import Array, Rng, Sample
from hal.ops.common import quiet, uniform
from hal.ops.losses import REDUCTIONS, reference_reduced
from hal.spec import Shape

IGNORE = -100  # torch's default for ignore_index


def class_axis(ndim: int) -> int:
    """The axis along which scores of `ndim` axes list the classes."""
    return 1 if ndim > 1 else 0


def without_classes(shape: Shape) -> Shape:
    """The shape of class indices for scores of `shape`."""
    axis = class_axis(len(shape))
    return shape[:axis] + shape[axis + 1 :]


def _reference_logs(x: Array) -> Array:
    axis = class_axis(x.ndim)
    z = x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    return z - np.log(np.sum(np.exp(z), axis=axis, keepdims=True))


def _rows(x: Array) -> Array:
    """The scores with the class axis last, as a matrix."""
    axis = class_axis(x.ndim)
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]) if x.size else np.zeros((0, x.shape[axis]))


@quiet
def _reference_losses(
    logs: Array, target: Array, weight: Array | None, reduction: str, ignored: int, smoothing: float
) -> Array:
    rows = _rows(logs)
    classes = rows.shape[1]
    scale = np.ones(classes) if weight is None else weight
    shape = without_classes(logs.shape)
    if target.dtype.kind == "f":
        share = _rows(target) * (1 - smoothing) + smoothing / max(1, classes)
        values = -np.sum(share * scale * rows, axis=1)
        return reference_reduced(values.reshape(shape), reduction)
    values, total = np.zeros(len(rows)), np.float64(0)
    for i, t in enumerate(target.reshape(-1).tolist()):
        if t == ignored:
            continue
        total += scale[t]
        values[i] = -(1 - smoothing) * scale[t] * rows[i, t]
        if smoothing:
            values[i] -= smoothing / classes * np.sum(scale * rows[i])
    if reduction == "mean":
        return np.asarray(np.sum(values) / total)
    return reference_reduced(values.reshape(shape), reduction)


def reference_nll(
    x: Array, target: Array, weight: Array | None = None, *, reduction: str = "mean", ignore_index: int = IGNORE
) -> Array:
    return _reference_losses(x, target, weight, reduction, ignore_index, 0.0)


@quiet
def reference_cross_entropy(
    x: Array, target: Array, weight: Array | None = None, *,
    reduction: str = "mean", ignore_index: int = IGNORE, label_smoothing: float = 0.0,
) -> Array:  # fmt: skip
    return _reference_losses(_reference_logs(x), target, weight, reduction, ignore_index, label_smoothing)


@quiet
def _reference_gradient(
    g: Array,
    x: Array,
    target: Array,
    weight: Array | None,
    reduction: str,
    ignored: int,
    smoothing: float,
    scores: bool,
) -> Array:
    rows = _rows(_reference_logs(x) if scores else x)
    count, classes = rows.shape
    scale = np.ones(classes) if weight is None else weight
    if target.dtype.kind == "f":
        share, total = (_rows(target) * (1 - smoothing) + smoothing / max(1, classes)) * scale, np.float64(count)
    else:
        share, total = np.zeros((count, classes)), np.float64(0)
        for i, t in enumerate(target.reshape(-1).tolist()):
            if t != ignored:
                share[i] = smoothing / classes * scale
                share[i, t] += (1 - smoothing) * scale[t]
                total += scale[t]
    each = g.reshape(-1, 1)
    if reduction == "mean":
        each = each / total if total else 0 * each
    out = each * (np.exp(rows) * np.sum(share, axis=1, keepdims=True) - share if scores else -share)
    axis = class_axis(x.ndim)
    moved = (*x.shape[:axis], *x.shape[axis + 1 :], x.shape[axis])
    return np.moveaxis(out.reshape(moved), -1, axis)


def reference_nll_gradient(
    g: Array, x: Array, target: Array, weight: Array | None = None, *,
    reduction: str = "mean", ignore_index: int = IGNORE,
) -> Array:  # fmt: skip
    return _reference_gradient(
        g, x, target, weight, reduction=reduction, ignored=ignore_index, smoothing=0.0, scores=False
    )


def reference_cross_entropy_gradient(
    g: Array, x: Array, target: Array, weight: Array | None = None, *,
    reduction: str = "mean", ignore_index: int = IGNORE, label_smoothing: float = 0.0,
) -> Array:  # fmt: skip
    return _reference_gradient(
        g, x, target, weight, reduction=reduction, ignored=ignore_index, smoothing=label_smoothing, scores=True
    )


# Samples.


def _indices(rng: Rng, shape: Shape, classes: int, dtype: Any = np.int64) -> Array:
    return rng.integers(0, classes, shape).astype(dtype)


def _samples_of_indices(rng: Rng, logs: bool) -> Iterator[Sample]:
    def scores(*shape: int) -> Array:
        x = uniform(rng, shape)
        return _reference_logs(x.astype(np.float64)).astype(np.float32) if logs else x

    for reduction in REDUCTIONS:
        settings = {"reduction": reduction}
        for shape in ((4, 5), (5,), (2, 5, 3), (2, 3, 4, 2), (3, 1)):
            yield Sample(
                (scores(*shape), _indices(rng, without_classes(shape), shape[class_axis(len(shape))])), settings
            )
        for dtype in (np.int32, np.uint8):
            yield Sample((scores(4, 5), _indices(rng, (4,), 5, dtype)), settings)
        yield Sample((scores(0, 5), _indices(rng, (0,), 5)), settings)
        yield Sample((scores(2, 3, 0), _indices(rng, (2, 0), 3)), settings)
        yield Sample((scores(5, 4).T, _indices(rng, (8,), 5)[::2]), settings)
        for shape in ((4, 5), (2, 5, 3)):
            target = _indices(rng, without_classes(shape), 5)
            target.flat[1] = 2
            weight = uniform(rng, (5,), 0.5, 2.0)
            yield Sample((scores(*shape), target, weight), settings)
            for ignored in (2, IGNORE):
                dropped = np.where(target == 2, ignored, target)
                yield Sample((scores(*shape), dropped), {**settings, "ignore_index": ignored})
                yield Sample((scores(*shape), dropped, weight), {**settings, "ignore_index": ignored})
        yield Sample((scores(3, 5), np.full(3, IGNORE)), settings, smooth=False)  # none left: the mean is NaN
        yield Sample((scores(3001, 50), _indices(rng, (3001,), 50)), settings, smooth=False)
        yield Sample((scores(3, 20_001), _indices(rng, (3,), 20_001)), settings, smooth=False)


def samples_of_nll(rng: Rng) -> Iterator[Sample]:
    yield from _samples_of_indices(rng, True)
    impossible = np.array([[0, -np.inf], [-np.inf, 0]], np.float32)
    yield Sample((impossible, np.array([0, 0])), {"reduction": "none"}, smooth=False)


def samples_of_cross_entropy(rng: Rng) -> Iterator[Sample]:
    yield from _samples_of_indices(rng, False)
    masked = uniform(rng, (3, 4))
    masked[:, 3] = -np.inf
    yield Sample((masked, np.array([0, 1, 2])), smooth=False)
    yield Sample((uniform(rng, (3, 4)) * 3000, np.array([0, 1, 2])), smooth=False)
    for reduction in REDUCTIONS:
        for shape in ((4, 5), (5,), (2, 5, 3), (0, 5)):
            weight = uniform(rng, (5,), 0.5, 2.0)
            settings = {"reduction": reduction, "label_smoothing": 0.1}
            target = _indices(rng, without_classes(shape), 5)
            smooth = target.size > 0  # the mean of nothing is NaN, whatever the weights
            yield Sample((uniform(rng, shape), target), settings)
            yield Sample((uniform(rng, shape), np.where(target == 3, IGNORE, target), weight), settings, smooth)
            likely = rng.dirichlet(np.ones(5), without_classes(shape)).astype(np.float32)
            likely = np.moveaxis(likely, -1, class_axis(len(shape)))
            yield Sample((uniform(rng, shape), likely), {"reduction": reduction})
            yield Sample((uniform(rng, shape), likely, weight), settings, smooth)


def with_gradient(samples: Callable[[Rng], Iterator[Sample]]) -> Callable[[Rng], Iterator[Sample]]:
    """Samples of the gradient of a loss from those of the loss."""

    def samples_of_gradient(rng: Rng) -> Iterator[Sample]:
        for sample in samples(rng):
            none = sample.settings.get("reduction") == "none"
            if np.all(np.isfinite(sample.inputs[0])):
                g = uniform(rng, without_classes(sample.inputs[0].shape) if none else ())
                smooth = sample.smooth and sample.inputs[1].size > 0  # the mean of nothing is NaN
                yield Sample((g, *sample.inputs), sample.settings, smooth)

    return samples_of_gradient
