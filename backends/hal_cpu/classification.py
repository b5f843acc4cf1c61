"""cross_entropy and nll_loss in NumPy, with their gradients: one reading of the scores, block by block."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from hal import ops
from hal.ops.classification_reference import class_axis
from hal.plugin import Array
from hal_cpu.parallel import in_parts, scratch
from hal_cpu.softmax import BLOCK, OPERATIONS, ones, row_max, row_sum
from hal_cpu.table import kernels


@lru_cache(maxsize=64)
def _index(n: int) -> Array:
    return np.arange(n)


def _wide(x: Array) -> Array:
    """Half precision in float32."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def _rows(x: Array) -> Array:
    """Scores as a contiguous matrix with a row for each target."""
    axis = class_axis(x.ndim)
    if axis != x.ndim - 1:
        x = np.moveaxis(x, axis, -1)
    return np.ascontiguousarray(_wide(x)).reshape(-1 if x.size else 0, x.shape[-1])


def _unrows(rows: Array, like: Array) -> Array:
    """A matrix with a row for each target, in the shape and dtype of the scores."""
    axis = class_axis(like.ndim)
    if axis == like.ndim - 1:
        return rows.reshape(like.shape).astype(like.dtype, copy=False)
    back = rows.reshape(*like.shape[:axis], *like.shape[axis + 1 :], like.shape[axis])
    return np.ascontiguousarray(np.moveaxis(back, -1, axis), like.dtype)


def _largest(indices: Array) -> int:
    """The largest index, where a negative one counts as very large: one look finds both ways to be wrong."""
    return int(np.maximum.reduce(indices.view(np.uint64)))


class _Targets:
    """Class indices, checked: those that count, which class each names, and with what weight."""

    def __init__(self, target: Array, classes: int, weight: Array | None, ignored: int, dtype: np.dtype[Any]) -> None:
        flat = target.reshape(-1).astype(np.int64, copy=False)
        self.counts: Array | None = None
        if flat.size and (0 <= ignored < classes or _largest(flat) >= classes):
            counts = flat != ignored
            flat = np.where(counts, flat, 0)
            self.counts = counts
            if _largest(flat) >= classes:
                wrong = flat[(flat < 0) | (flat >= classes)][0]
                raise IndexError(
                    f"target {wrong} is no class: a loss of {classes} classes takes 0 to {classes - 1}, "
                    f"and ignore_index={ignored} for what does not count"
                )
        self.flat = flat
        self.weight = None if weight is None else _wide(weight).astype(dtype, copy=False)
        self.weights: Array | None = None  # of each target; None means 1
        if self.weight is not None:
            self.weights = self.weight[flat]
        if self.counts is not None:
            self.weights = self.counts.astype(dtype) if self.weights is None else self.weights * self.counts

    def total(self) -> float:
        """What `mean` divides by."""
        return float(self.flat.size if self.weights is None else np.add.reduce(self.weights))


def _reduced(values: Array, reduction: str, total: float, like: Array) -> Array:
    if reduction == "none":
        axis = class_axis(like.ndim)
        return values.reshape(like.shape[:axis] + like.shape[axis + 1 :]).astype(like.dtype, copy=False)
    result = np.add.reduce(values)
    return np.asarray(np.divide(result, total) if reduction == "mean" else result, like.dtype)


def _log_sums(x: Array, shifted: Array) -> tuple[Array, Array]:
    """Columns: the largest of each row, and log(sum(exp(row - largest))); `shifted` is left with row - largest."""
    top = row_max(x)
    np.subtract(x, top, out=shifted)
    total = row_sum(np.exp(shifted, out=scratch("cross entropy", shifted.shape, shifted.dtype)))
    return top, np.log(total, out=total)


@kernels.register(ops.cross_entropy)
def cross_entropy(
    x: Array, target: Array, weight: Array | None = None, *,
    reduction: str, ignore_index: int, label_smoothing: float,
) -> Array:  # fmt: skip
    rows = _rows(x)
    count, classes = rows.shape
    values = np.empty(count, rows.dtype)
    if not rows.size:
        values[:] = 0
        return _reduced(values, reduction, 0.0, x)
    scale = ones(classes, rows.dtype) if weight is None else _wide(weight).astype(rows.dtype, copy=False)
    floor = label_smoothing / classes
    likely = target.dtype.kind not in "iu"
    targets = None if likely else _Targets(target, classes, weight, ignore_index, rows.dtype)
    shares = _rows(target) if likely else None

    def part(start: int, stop: int) -> None:
        step = max(1, BLOCK // classes)
        for i in range(start, stop, step):
            j = min(i + step, stop)
            shifted = scratch("shifted scores", (j - i, classes), rows.dtype)
            top, log_sum = _log_sums(rows[i:j], shifted)
            out = values[i:j]
            if targets is None:
                assert shares is not None
                share = (shares[i:j] * (1 - label_smoothing) + floor) * scale
                np.subtract(log_sum, shifted, out=shifted)
                np.multiply(shifted, share, out=shifted)
                out[:] = row_sum(shifted)[:, 0]
                continue
            chosen = rows[i:j].reshape(-1)[_index(j - i) * classes + targets.flat[i:j]]
            np.subtract(top[:, 0], chosen, out=out)
            out += log_sum[:, 0]
            if targets.weights is not None:
                np.copyto(out, 0, where=targets.weights[i:j] == 0)  # what is ignored may be infinite
                out *= targets.weights[i:j]
            if label_smoothing:
                rest = log_sum[:, 0] * np.add.reduce(scale) - shifted @ scale
                if targets.counts is not None:
                    np.copyto(rest, 0, where=~targets.counts[i:j])
                out *= 1 - label_smoothing
                out += rest * floor

    in_parts(part, count, OPERATIONS * rows.size)
    return _reduced(values, reduction, count if targets is None else targets.total(), x)


def _of_each(g: Array, reduction: str, total: float, count: int, dtype: np.dtype[Any]) -> Array:
    """The gradient of the loss of each of `count` targets."""
    if reduction == "none":
        return _wide(g).reshape(-1).astype(dtype, copy=False)
    one = float(g.reshape(-1)[0])
    if reduction == "mean":
        one = one / total if total else 0.0
    return np.full(count, one, dtype)


@kernels.register(ops.cross_entropy_gradient)
def cross_entropy_gradient(
    g: Array, x: Array, target: Array, weight: Array | None = None, *,
    reduction: str, ignore_index: int, label_smoothing: float,
) -> Array:  # fmt: skip
    if not x.size:
        return np.empty(x.shape, x.dtype)
    rows = _rows(x)
    count, classes = rows.shape
    result = np.empty(rows.shape, rows.dtype)
    scale = ones(classes, rows.dtype) if weight is None else _wide(weight).astype(rows.dtype, copy=False)
    floor = label_smoothing / classes
    if target.dtype.kind not in "iu":
        each = _of_each(g, reduction, count, count, rows.dtype)
        shares = _rows(target)
    else:
        targets = _Targets(target, classes, weight, ignore_index, rows.dtype)
        each = _of_each(g, reduction, targets.total(), count, rows.dtype)
        shares = None
        counted = each if targets.counts is None else each * targets.counts
        hot = (each if targets.weights is None else each * targets.weights) * rows.dtype.type(1 - label_smoothing)
        sums = hot + counted * rows.dtype.type(floor * float(np.add.reduce(scale)))

    def part(start: int, stop: int) -> None:
        step = max(1, BLOCK // classes)
        for i in range(start, stop, step):
            j = min(i + step, stop)
            out = result[i:j]
            np.subtract(rows[i:j], row_max(rows[i:j]), out=out)
            np.exp(out, out=out)
            total = row_sum(out)
            if shares is not None:
                share = (shares[i:j] * (1 - label_smoothing) + floor) * scale
                np.multiply(out, row_sum(share) / total, out=out)
                np.subtract(out, share, out=out)
                np.multiply(out, each[i:j, None], out=out)
                continue
            np.multiply(out, np.divide(sums[i:j, None], total, out=total), out=out)
            if label_smoothing:
                out -= np.multiply.outer(counted[i:j] * rows.dtype.type(floor), scale)
            out.reshape(-1)[_index(j - i) * classes + targets.flat[i:j]] -= hot[i:j]

    in_parts(part, count, OPERATIONS * rows.size)
    return _unrows(result, x)


@kernels.register(ops.nll_loss)
def nll_loss(x: Array, target: Array, weight: Array | None = None, *, reduction: str, ignore_index: int) -> Array:
    axis = class_axis(x.ndim)
    classes = x.shape[axis]
    last = np.moveaxis(x, axis, -1)
    targets = _Targets(
        target, classes, weight, ignore_index, np.dtype(np.float32) if x.dtype.itemsize == 2 else x.dtype
    )
    if targets.flat.size == 0:
        return _reduced(np.zeros(0, x.dtype), reduction, 0.0, x)
    chosen = np.take_along_axis(last, targets.flat.reshape(*target.shape, 1), -1).reshape(-1)
    values = np.negative(_wide(chosen))
    if targets.weights is not None:
        np.copyto(values, 0, where=targets.weights == 0)
        values *= targets.weights
    return _reduced(values, reduction, targets.total(), x)


@kernels.register(ops.nll_loss_gradient)
def nll_loss_gradient(
    g: Array, x: Array, target: Array, weight: Array | None = None, *, reduction: str, ignore_index: int
) -> Array:
    axis = class_axis(x.ndim)
    dtype = np.dtype(np.float32) if x.dtype.itemsize == 2 else x.dtype
    out = np.zeros(x.shape, x.dtype)
    targets = _Targets(target, x.shape[axis], weight, ignore_index, dtype)
    if targets.flat.size == 0:
        return out
    each = -_of_each(g, reduction, targets.total(), targets.flat.size, dtype)
    if targets.weights is not None:
        each = each * targets.weights
    values = each.reshape(*target.shape, 1).astype(x.dtype, copy=False)
    np.put_along_axis(np.moveaxis(out, axis, -1), targets.flat.reshape(*target.shape, 1), values, -1)
    return out
