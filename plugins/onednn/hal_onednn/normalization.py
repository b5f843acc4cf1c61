"""Layer normalization and its gradients.

Batch normalization stays with NumPy: oneDNN adds up each statistic one element after another, which is up to 205 units
off where 32 are allowed. So are its gradients by a layer norm's weight and bias, one row after another; they are taken
of few rows at a time, and these sums are added in float64.
"""

from __future__ import annotations

from ctypes import c_float
from math import prod

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_onednn import layout
from hal_onednn.api import (
    BACKWARD,
    DIFF_DST,
    DIFF_SCALE,
    DIFF_SHIFT,
    DIFF_SRC,
    DST,
    FORWARD_TRAINING,
    MEAN,
    SCALE,
    SHIFT,
    SRC,
    VARIANCE,
    WITH_SCALE,
    WITH_SHIFT,
    Handle,
)
from hal_onednn.finding import api
from hal_onednn.layout import Shape
from hal_onednn.primitive import Primitive, address
from hal_onednn.scratch import scratch
from hal_onednn.table import register
from hal_onednn.threads import kept

KEPT = 256  # primitives of one kind
ROWS = 512  # whose gradients by weight and bias oneDNN adds up: 6 units off, and 28 with 4096


class _LayerNorm:
    """Layer normalization of (rows, width), forward, and on demand backward."""

    def __init__(self, rows: int, width: int, flags: int, eps: float) -> None:
        library = api()
        self.x, self.statistic, self.affine = layout.plain((rows, width)), layout.plain((rows,)), layout.plain((width,))
        self.flags, self.eps = flags, c_float(eps)
        self.description = library.create(
            "layer_normalization_forward_primitive_desc", library.engine, FORWARD_TRAINING,
            self.x, self.x, self.statistic, self.eps, flags, library.attributes,
        )  # fmt: skip
        layouts = {SRC: self.x, DST: self.x, MEAN: self.statistic, VARIANCE: self.statistic}
        self.forward = Primitive(self.description, {**layouts, **self._given()})

    def _given(self) -> dict[int, Handle]:
        return {number: self.affine for bit, number in ((WITH_SCALE, SCALE), (WITH_SHIFT, SHIFT)) if self.flags & bit}

    def backward(self) -> Primitive:
        """A primitive that gives the gradients by x, weight and bias; the weight and bias are given in any case."""
        library = api()
        description = library.create(
            "layer_normalization_backward_primitive_desc", library.engine, BACKWARD,
            self.x, self.x, self.x, self.statistic, self.eps, self.flags, self.description, library.attributes,
        )  # fmt: skip
        layouts = {SRC: self.x, DIFF_DST: self.x, DIFF_SRC: self.x, MEAN: self.statistic, VARIANCE: self.statistic}
        return Primitive(description, {**layouts, **self._given(), DIFF_SCALE: self.affine, DIFF_SHIFT: self.affine})


@kept(KEPT)
def _plan(rows: int, width: int, flags: int, eps: float) -> _LayerNorm:
    with api().threads.to_make(rows * width):
        return _LayerNorm(rows, width, flags, eps)


@kept(KEPT)
def _backward(rows: int, width: int, eps: float) -> tuple[_LayerNorm, Primitive]:
    plan = _plan(rows, width, WITH_SCALE | WITH_SHIFT, eps)
    with api().threads.to_make(2 * rows * width):
        return plan, plan.backward()


def _matrix(x: Shape, dims: int) -> tuple[int, int]:
    """The rows that are normalised, and how wide they are."""
    return prod(x[: len(x) - dims]), prod(x[len(x) - dims :])


def _normalization(x: Shape, *affine: Shape, dims: int, eps: float) -> _LayerNorm:
    return _plan(*_matrix(x, dims), (0, WITH_SCALE, WITH_SCALE | WITH_SHIFT)[len(affine)], eps)


def _gradients(g: Shape, x: Shape, *weight: Shape, dims: int, eps: float) -> tuple[_LayerNorm, Primitive]:
    rows, width = _matrix(x, dims)
    return _backward(min(rows, ROWS), width, eps)


def _statistics(rows: int) -> tuple[int, int]:
    """Where a mean and a variance for each row can be put until the next call."""
    return address(scratch("mean", 4 * rows)), address(scratch("variance", 4 * rows))


@layout.into_any
def layer_norm(x: Array, *affine: Array, dims: int, eps: float, out: Array | None) -> Array:
    """`x` normalised over its last `dims` axes, times the weight, plus the bias."""
    plan = _normalization(x.shape, *(a.shape for a in affine), dims=dims, eps=eps)
    x = np.ascontiguousarray(x)
    affine = tuple(map(np.ascontiguousarray, affine))
    result = layout.result(x.shape, out, plain=True)
    statistics = _statistics(_matrix(x.shape, dims)[0])
    plan.forward(address(x), address(result), *statistics, *map(address, affine))
    return result


def layer_norm_gradient(
    g: Array, x: Array, *weight: Array, dims: int, eps: float, out: tuple[Array, ...] | None = None
) -> tuple[Array, ...]:
    """The gradients of layer_norm by x, weight and bias, some rows at a time."""
    (rows, width), last = _matrix(x.shape, dims), x.shape[x.ndim - dims :]
    shape, g, x = x.shape, np.ascontiguousarray(g).reshape(rows, width), np.ascontiguousarray(x).reshape(rows, width)
    scale = np.ascontiguousarray(weight[0]) if weight else np.ones(last, np.float32)
    by_x, again = np.empty((rows, width), np.float32), scratch("again", 4 * width * min(rows, ROWS))
    starts = range(0, rows, ROWS)
    by_affine = np.empty((2, len(starts), width), np.float32)
    for i, start in enumerate(starts):
        part = slice(start, start + ROWS)
        some, statistics = x[part], _statistics(ROWS)
        plan, backward = _backward(len(some), width, eps)
        plan.forward(address(some), address(again), *statistics, address(scale), address(scale))
        backward(
            address(some), address(g[part]), address(by_x[part]), *statistics, address(scale), address(scale),
            address(by_affine[0, i]), address(by_affine[1, i]),
        )  # fmt: skip
    sums = by_affine.sum(axis=1, dtype=np.float64).astype(np.float32)
    found = by_x.reshape(shape), sums[0].reshape(last), sums[1].reshape(last)
    if out is None:
        return found
    for target, result in zip(out, found, strict=True):
        np.copyto(target, result)
    return out


register(ops.layer_norm, _normalization, layer_norm)
register(ops.layer_norm_gradient, _gradients, layer_norm_gradient)
