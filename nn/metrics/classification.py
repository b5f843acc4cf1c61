"""How well classes are named: accuracy, precision, recall, F1, and the matrix of what was taken for what."""

from __future__ import annotations

from pathlib import Path

import hal
from hal import ops
from hal.errors import DTypeError, ShapeError
from hal.tensor import Tensor
from nn.metrics.metric import Metric, check_same_shape, number
from nn.metrics.picture import matrix_svg

AVERAGES = ("micro", "macro", "weighted", None)


def named(who: str, input: Tensor, target: Tensor, threshold: float = 0.5) -> Tensor:
    """The class that `input` names for each target: it has classes, scores along axis 1, or one probability each.

    Raises:
        ShapeError: the axes do not fit.
        DTypeError: targets that are no integers.
    """
    if target.dtype.is_floating:
        raise DTypeError(f"{who} needs class numbers as targets, got {target.dtype.name}: convert them with .long()")
    if input.ndim == target.ndim + 1 and input.shape[:1] + input.shape[2:] == target.shape:
        return input.argmax(dim=1)
    if input.shape != target.shape:
        raise ShapeError(
            f"{who} needs classes of the shape of the targets {target.shape}, or scores with one more axis after the "
            f"first, got {input.shape}"
        )
    return (input >= threshold).long() if input.dtype.is_floating else input


class Accuracy(Metric):
    """The part of the targets that is named rightly.

    Args:
        top_k: a target counts as right if it is among the `top_k` highest scores.
        ignore_index: targets of this class do not count.

    `update(input, target)`: target (N, ...) of classes; input (N, C, ...) of scores, or (N, ...) of classes or,
    where it is floating, of probabilities of class 1.

    Source: sklearn.metrics.accuracy_score, top_k_accuracy_score.
    """

    def __init__(self, top_k: int = 1, ignore_index: int | None = None) -> None:
        super().__init__()
        if top_k < 1:
            raise ValueError(f"Accuracy needs top_k= of 1 or more, got {top_k}")
        self.top_k, self.ignore_index = top_k, ignore_index

    def _count(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        if self.top_k == 1:
            right = named("Accuracy", input, target) == target
        else:
            if input.ndim != target.ndim + 1 or input.shape[1] < self.top_k:
                raise ShapeError(
                    f"Accuracy(top_k={self.top_k}) needs scores of at least as many classes along axis 1, "
                    f"got input {input.shape} for target {target.shape}"
                )
            best = ops.topk(input, k=self.top_k, axis=1)[1]
            right = (best == target.unsqueeze(1)).any(dim=1)
        if self.ignore_index is None:
            return {"right": right.sum(), "count": number(target.numel(), target)}
        counts = target != self.ignore_index
        return {"right": (right & counts).sum(), "count": counts.sum()}

    def _figure(self, sums: dict[str, Tensor]) -> Tensor:
        return sums["right"].float() / sums["count"].float()


class ConfusionMatrix(Metric):
    """How often each class was taken for each: row = target, column = what was named; int64 (classes, classes).

    Args:
        num_classes: how many there are. Targets outside 0 ... num_classes - 1 do not count.
        normalize: None for counts; "true" divides each row by its sum, "pred" each column, "all" by everything.

    `update` takes what `Accuracy` takes. Source: sklearn.metrics.confusion_matrix.
    """

    def __init__(self, num_classes: int, normalize: str | None = None) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"{type(self).__name__} needs num_classes= of 1 or more, got {num_classes}")
        if normalize not in (None, "true", "pred", "all"):
            raise ValueError(f"ConfusionMatrix needs normalize= None, 'true', 'pred' or 'all', got {normalize!r}")
        self.num_classes, self.normalize = num_classes, normalize

    def _count(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        classes, who = self.num_classes, type(self).__name__
        if input.ndim == target.ndim + 1 and input.shape[1] != classes:
            raise ShapeError(f"{who}(num_classes={classes}) needs that many scores along axis 1, got {input.shape}")
        found = named(who, input, target).long().reshape(-1)
        wanted = target.long().reshape(-1)
        inside = (wanted >= 0) & (wanted < classes) & (found >= 0) & (found < classes)
        cell = ops.where(inside, wanted * classes + found, classes * classes)  # the last cell is thrown away
        cells = hal.zeros(classes * classes + 1, dtype=hal.int64, device=target.device)
        ones = ops.cast(inside, dtype=hal.int64)
        return {"matrix": ops.index_add(cells, cell, ones, axis=0)[:-1].reshape(classes, classes)}

    def _figure(self, sums: dict[str, Tensor]) -> Tensor:
        matrix = sums["matrix"]
        if self.normalize is None:
            return matrix
        axis = {"true": 1, "pred": 0, "all": None}[self.normalize]
        return _part(matrix, matrix.sum(dim=axis, keepdim=True))

    def save(self, path: str | Path, names: list[str] | None = None) -> None:
        """Draw the matrix as an SVG picture, with the name of each class.

        Raises:
            ValueError: not one name for each class.
        """
        labels = [str(i) for i in range(self.num_classes)] if names is None else list(names)
        if len(labels) != self.num_classes:
            raise ValueError(f"ConfusionMatrix.save needs {self.num_classes} names, got {len(labels)}")
        Path(path).write_text(matrix_svg(self.sums["matrix"].tolist(), labels), encoding="utf-8")


class _PerClass(ConfusionMatrix):
    """A figure for each class, made of what was rightly named, of what was named so, and of what is so."""

    def __init__(self, num_classes: int, average: str | None = "macro") -> None:
        if average not in AVERAGES:
            raise ValueError(f"{type(self).__name__} needs average= one of {AVERAGES}, got {average!r}")
        super().__init__(num_classes)
        self.average = average

    def _of(self, right: Tensor, found: Tensor, wanted: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no _of: write the figure of a class")

    def _figure(self, sums: dict[str, Tensor]) -> Tensor:
        matrix = sums["matrix"]
        right, found, wanted = matrix.diagonal(), matrix.sum(dim=0), matrix.sum(dim=1)
        if self.average == "micro":
            return self._of(right.sum(), found.sum(), wanted.sum())
        each = self._of(right, found, wanted)
        if self.average is None:
            return each
        weights = wanted if self.average == "weighted" else (found + wanted > 0).long()  # a class that is nowhere: none
        return (each * weights.float()).sum() / weights.sum().float()


class Precision(_PerClass):
    """Of what was named as a class, the part that is one; 0 for a class that was never named.

    Args:
        num_classes: how many there are.
        average: "macro" is the mean over the classes that occur, "weighted" that by their number of targets, "micro"
            counts all classes together; None gives each class its own.

    `update` takes what `Accuracy` takes. Source: sklearn.metrics.precision_score.
    """

    def _of(self, right: Tensor, found: Tensor, wanted: Tensor) -> Tensor:
        return _part(right, found)


class Recall(_PerClass):
    """Of what is of a class, the part that was named so; 0 for a class without targets. Arguments as in `Precision`.

    Source: sklearn.metrics.recall_score.
    """

    def _of(self, right: Tensor, found: Tensor, wanted: Tensor) -> Tensor:
        return _part(right, wanted)


class F1Score(_PerClass):
    """The harmonic mean of precision and recall. Arguments as in `Precision`. Source: sklearn.metrics.f1_score."""

    def _of(self, right: Tensor, found: Tensor, wanted: Tensor) -> Tensor:
        return _part(right * 2, found + wanted)


class BinaryAUROC(Metric):
    """The area under the ROC curve: how likely a target of class 1 has a higher score than one of class 0.

    All scores are kept, on the device. Equal scores count as half. NaN if a class has no targets.

    `update(input, target)`: scores and classes 0 or 1, both (N,).

    Source: sklearn.metrics.roc_auc_score; Mann and Whitney, 1947.
    """

    def _count(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        check_same_shape("BinaryAUROC", input, target)
        if input.ndim != 1:
            raise ShapeError(f"BinaryAUROC needs one score for each target, in a vector, got shape {input.shape}")
        return {"scores": input, "targets": target != 0}

    def _added(self, sums: dict[str, Tensor], more: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: ops.concat(sums[name], v, axis=0) if name in sums else v for name, v in more.items()}

    def _figure(self, sums: dict[str, Tensor]) -> Tensor:
        scores, order = sums["scores"].sort(dim=0)
        positive = ops.cast(sums["targets"][order], dtype=hal.int64)
        n = positive.shape[0]
        differs = ops.cast(scores[1:] != scores[:-1], dtype=hal.int64)
        group = ops.concat(hal.zeros(min(n, 1), dtype=hal.int64, device=scores.device), differs.cumsum(dim=0), axis=0)
        empty = hal.zeros(n, dtype=hal.int64, device=scores.device)
        ones = ops.index_add(empty, group, positive, axis=0)  # of each class among equal scores
        zeros = ops.index_add(empty, group, 1 - positive, axis=0)
        below = zeros.cumsum(dim=0) - zeros
        pairs = (ones * (below * 2 + zeros)).sum()  # twice those in the right order: a whole number
        every = 2 * positive.sum() * (1 - positive).sum()
        return pairs.float() / every.float()


def _part(some: Tensor, whole: Tensor) -> Tensor:
    """some / whole in float32, and 0 where both are 0."""
    return some.float() / ops.maximum(whole, 1).float()
