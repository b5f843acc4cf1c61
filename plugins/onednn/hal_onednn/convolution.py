"""Convolutions over one to three spatial axes, and their gradients by the input and by the weights."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_onednn import layout
from hal_onednn.api import (
    BIAS,
    DIFF_DST,
    DIFF_SRC,
    DIFF_WEIGHTS,
    DIRECT,
    DST,
    FORWARD_TRAINING,
    SRC,
    WEIGHTS,
    Handle,
    dims,
)
from hal_onednn.finding import api
from hal_onednn.layout import Shape
from hal_onednn.primitive import Primitive, address, reorder
from hal_onednn.scratch import scratch
from hal_onednn.table import register
from hal_onednn.threads import kept

KEPT = 512  # primitives of one kind
# Up to so many channels, with windows of more than a point, the implementation that oneDNN takes where it may choose
# the order of one array takes 0.72 to 0.98 of the time of the one that it takes for given orders (one thread, AVX-512,
# 1 to 32 channels, 3x3 and 5x5); with windows of one point it takes up to four times as long.
FEW_CHANNELS = 32


class _Problem:
    """A convolution as oneDNN is told of it, from x (N, C_in, ...) to y (N, C_out, ...)."""

    def __init__(
        self, x: Shape, weight: Shape, y: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int
    ) -> None:
        self.x, self.y = layout.channels_last(x), layout.channels_last(y)
        self.few = groups == 1 and max(weight[:2]) <= FEW_CHANNELS and prod(weight[2:]) > 1
        self.free = api().layout(y)
        shape = (groups, weight[0] // groups, *weight[1:]) if groups > 1 else weight
        self.stored = layout.plain(shape)  # as hal keeps the weights
        self.weight = api().layout(shape)  # as oneDNN likes them
        reach = [(k - 1) * d + 1 for k, d in zip(weight[2:], dilation, strict=True)]
        sizes = zip(x[2:], y[2:], stride, padding, reach, strict=True)
        after = [(o - 1) * s + r - p - n for n, o, s, p, r in sizes]  # how far windows hang over the end: may be < 0
        self.geometry = [dims(stride), dims([d - 1 for d in dilation]), dims(padding), dims(after)]

    def forward(self, bias: Handle | None) -> Handle:
        """The description of the convolution."""
        library = api()
        return self._described(DST, lambda y: library.create(
            "convolution_forward_primitive_desc", library.engine, FORWARD_TRAINING, DIRECT,
            self.x, self.weight, bias, y, *self.geometry, library.attributes,
        ))  # fmt: skip

    def backward(self) -> Handle:
        """The description of its gradient by the input."""
        library, forward = api(), self.forward(None)
        return self._described(DIFF_DST, lambda y: library.create(
            "convolution_backward_data_primitive_desc", library.engine, DIRECT,
            self.x, self.weight, y, *self.geometry, forward, library.attributes,
        ))  # fmt: skip

    def _described(self, argument: int, make: Callable[[Handle], Handle]) -> Handle:
        """A description made with the order of y left to oneDNN, where that is faster and ends in channels last."""
        if self.few:
            found = make(self.free)
            if api().same(api().layout_of(found, argument), self.y):
                return found
        return make(self.y)


def _sizes(x: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    """The spatial sizes of a convolution's result."""
    axes = zip(x[2:], kernel, stride, padding, dilation, strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)


def _work(y: Shape, weight: Shape) -> float:
    """Nanoseconds that a convolution with the result y takes on one thread, roughly."""
    return prod(y) * prod(weight[1:]) / 50


class _Convolution:
    """The convolution itself, or with `backward` its gradient by the input: from y to x."""

    def __init__(self, problem: _Problem, result: Shape, bias: Shape | None, backward: bool) -> None:
        library = api()
        self.result = result
        into = None if bias is None or backward else layout.plain(bias)
        description = problem.backward() if backward else problem.forward(into)
        given, made = (problem.x, SRC), (problem.y, DST)
        if backward:
            given, made = (problem.y, DIFF_DST), (problem.x, DIFF_SRC)
        weight = library.layout_of(description, WEIGHTS)
        self.weight_size = library.size(weight)
        self.prepare = reorder(problem.stored, weight)
        layouts = {given[1]: given[0], WEIGHTS: weight, made[1]: made[0]}
        if into is not None:
            layouts[BIAS] = into
        self.primitive = Primitive(description, layouts)

    def __call__(self, x: Array, weight: Array, *bias: Array, out: Array | None) -> Array:
        seen, ordered = layout.given(x, "input"), scratch("weights", self.weight_size)
        weight = np.ascontiguousarray(weight)
        self.prepare(address(weight), address(ordered))
        result = layout.result(self.result, out)
        bias = tuple(map(np.ascontiguousarray, bias))
        self.primitive(address(seen), address(ordered), address(result), *map(address, bias))
        return result


@kept(KEPT)
def _forward(
    x: Shape, weight: Shape, *bias: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int
) -> _Convolution:
    y = (x[0], weight[0], *_sizes(x, weight[2:], stride, padding, dilation))
    with api().threads.to_make(_work(y, weight)):
        problem = _Problem(x, weight, y, stride, padding, dilation, groups)
        return _Convolution(problem, y, bias[0] if bias else None, backward=False)


@kept(KEPT)
def _transposed(
    y: Shape, weight: Shape, *bias: Shape, stride: Shape, padding: Shape, output_padding: Shape, dilation: Shape,
    groups: int,
) -> _Convolution:  # fmt: skip
    axes = zip(y[2:], weight[2:], stride, padding, output_padding, dilation, strict=True)
    sizes = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 + o for n, k, s, p, o, d in axes)
    x = (y[0], weight[1] * groups, *sizes)
    with api().threads.to_make(_work(y, weight)):
        problem = _Problem(x, weight, y, stride, padding, dilation, groups)
        return _Convolution(problem, x, None, backward=True)


class _WeightGradient:
    """The gradient of a convolution by its weights."""

    def __init__(self, problem: _Problem) -> None:
        library = api()
        description = library.create(
            "convolution_backward_weights_primitive_desc", library.engine, DIRECT,
            problem.x, problem.weight, None, problem.y, *problem.geometry, problem.forward(None), library.attributes,
        )  # fmt: skip
        found = library.layout_of(description, DIFF_WEIGHTS)
        self.size = library.size(found)
        self.primitive = Primitive(description, {SRC: problem.x, DIFF_DST: problem.y, DIFF_WEIGHTS: found})
        self.deliver = None if library.same(found, problem.stored) else reorder(found, problem.stored)


@kept(KEPT)
def _by_weight(
    x: Shape, g: Shape, *, weight_shape: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int
) -> _WeightGradient:
    with api().threads.to_make(_work(g, weight_shape)):
        return _WeightGradient(_Problem(x, weight_shape, g, stride, padding, dilation, groups))


@layout.into_any
def convolution(x: Array, weight: Array, *bias: Array, out: Array | None, **settings: Any) -> Array:
    """The convolution of x (N, C_in, ...)."""
    return _forward(x.shape, weight.shape, *(b.shape for b in bias), **settings)(x, weight, *bias, out=out)


@layout.into_any
def transposed_convolution(x: Array, weight: Array, *bias: Array, out: Array | None, **settings: Any) -> Array:
    """The transposed convolution of x (N, C_in, ...); also the gradient of a convolution by its input."""
    result = _transposed(x.shape, weight.shape, *(b.shape for b in bias), **settings)(x, weight, out=out)
    if bias:
        result += bias[0].reshape(-1, *[1] * (x.ndim - 2))
    return result


@layout.into_any
def weight_gradient(x: Array, g: Array, *, weight_shape: Shape, out: Array | None, **settings: Any) -> Array:
    """The gradient of a convolution by its weights, in row-major order."""
    plan = _by_weight(x.shape, g.shape, weight_shape=weight_shape, **settings)
    seen, gradient = layout.given(x, "input"), layout.given(g, "gradient")
    result = layout.result(weight_shape, out, plain=True)
    found = result if plan.deliver is None else scratch("weights", plan.size)
    plan.primitive(address(seen), address(gradient), address(found))
    if plan.deliver is not None:
        plan.deliver(address(found), address(result))
    return result


for _n in (1, 2, 3):
    register(ops.TABLE[f"conv{_n}d"], _forward, convolution)
    register(ops.TABLE[f"conv_transpose{_n}d"], _transposed, transposed_convolution)
    register(ops.TABLE[f"conv{_n}d_weight_gradient"], _by_weight, weight_gradient)
