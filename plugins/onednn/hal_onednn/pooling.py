"""Pooling over one to three spatial axes, and its gradients.

oneDNN's maxima pass over NaN, and take windows of nothing but minus infinity for the smallest finite number. hal's
rule is that a NaN makes its window NaN, so what is not finite throughout is pooled by NumPy, window by window.

What lies in row-major order is pooled so, since bringing it into another would take longer than the pooling.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_onednn import layout
from hal_onednn.api import (
    AVG_POOL_WITH_PADDING,
    AVG_POOL_WITHOUT_PADDING,
    DIFF_DST,
    DIFF_SRC,
    DST,
    FORWARD_TRAINING,
    MAX_POOL,
    SRC,
    WORKSPACE,
    Handle,
    OneDnnError,
    dims,
)
from hal_onednn.finding import api
from hal_onednn.layout import Shape
from hal_onednn.primitive import Primitive, address
from hal_onednn.scratch import scratch
from hal_onednn.table import register
from hal_onednn.threads import kept

KEPT = 256  # primitives of one kind


def _result(x: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool) -> Shape:
    """The shape of what pooling x (N, C, ...) gives."""
    sizes = []
    for n, k, s, p, d in zip(x[2:], kernel, stride, padding, dilation, strict=True):
        out = (n + 2 * p - d * (k - 1) - 1 + (s - 1 if ceil_mode else 0)) // s + 1
        sizes.append(out - 1 if ceil_mode and (out - 1) * s >= n + p else out)
    return (*x[:2], *sizes)


def _work(x: Shape) -> float:
    """Nanoseconds that pooling x takes on one thread, roughly."""
    return prod(x) / 2


class _Pooling:
    """Pooling x, forward, and on demand backward."""

    def __init__(
        self, kind: int, x: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool,
        plain: bool,
    ) -> None:  # fmt: skip
        library = api()
        self.result = _result(x, kernel, stride, padding, dilation, ceil_mode)
        sizes = zip(x[2:], self.result[2:], kernel, stride, padding, dilation, strict=True)
        after = [(o - 1) * s + (k - 1) * d + 1 - p - n for n, o, k, s, p, d in sizes]
        if kind == AVG_POOL_WITH_PADDING and any(a > p for a, p in zip(after, padding, strict=True)):
            raise OneDnnError("oneDNN counts what hangs over the padding, and hal does not")
        stored = layout.plain if plain else layout.channels_last
        self.x, self.y = stored(x), stored(self.result)
        self.kind = kind
        self.geometry = [dims(stride), dims(kernel), dims([d - 1 for d in dilation]), dims(padding), dims(after)]
        self.description = library.create(
            "pooling_forward_primitive_desc", library.engine, FORWARD_TRAINING, kind, self.x, self.y,
            *self.geometry, library.attributes,
        )  # fmt: skip
        layouts = {SRC: self.x, DST: self.y}
        self.places: Handle | None = None
        self.places_size = 0
        if kind == MAX_POOL:
            self.places = layouts[WORKSPACE] = library.layout_of(self.description, WORKSPACE)
            self.places_size = library.size(self.places)
        self.forward = Primitive(self.description, layouts)

    def backward(self) -> Primitive:
        """A primitive that gives the gradient."""
        library = api()
        description = library.create(
            "pooling_backward_primitive_desc", library.engine, self.kind, self.x, self.y,
            *self.geometry, self.description, library.attributes,
        )  # fmt: skip
        layouts = {DIFF_DST: self.y, DIFF_SRC: self.x}
        if self.places is not None:
            layouts[WORKSPACE] = self.places
        return Primitive(description, layouts)


# Maxima.


@kept(KEPT)
def _max_pooling(
    x: Shape, *, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool, plain: bool = False
) -> _Pooling:
    with api().threads.to_make(_work(x)):
        return _Pooling(MAX_POOL, x, kernel, stride, padding, dilation, ceil_mode, plain)


@kept(KEPT)
def _max_gradient(g: Shape, x: Shape, **settings: Any) -> tuple[_Pooling, Primitive]:
    plan = _max_pooling(x, **settings)
    with api().threads.to_make(_work(x)):
        return plan, plan.backward()


def _is_finite(x: Array) -> bool:
    """Whether no element is NaN or infinite, nor so large that its square is: they all stay in a sum of squares."""
    flat = x.reshape(-1)
    return bool(np.isfinite(flat.dot(flat)))


@layout.into_any
def max_pool(x: Array, *, out: Array | None, **settings: Any) -> Array:
    """The maximum of each window."""
    plain = layout.is_plain(x)
    plan = _max_pooling(x.shape, plain=plain, **settings)
    seen = x if plain else layout.given(x, "input")
    if not _is_finite(seen):
        return _windows(x, plan.result, **settings).max(axis=0)
    result = layout.result(plan.result, out, plain)
    plan.forward(address(seen), address(result), address(scratch("places", plan.places_size)))
    return result


@layout.into_any
def max_pool_gradient(g: Array, x: Array, *, out: Array | None, **settings: Any) -> Array:
    """The gradient of max_pool: to the first maximum, in row-major order, of each window."""
    plain = layout.is_plain(x)
    plan, backward = _max_gradient(g.shape, x.shape, plain=plain, **settings)
    seen = x if plain else layout.given(x, "input")
    if not _is_finite(seen):
        return _to_first(g, x, plan.result, **settings)
    places, top = scratch("places", plan.places_size), scratch("maxima", g.nbytes)
    plan.forward(address(seen), address(top), address(places))
    gradient = np.ascontiguousarray(g) if plain else layout.given(g, "gradient")
    result = layout.result(x.shape, out, plain)
    backward(address(gradient), address(result), address(places))
    return result


def _seen(out: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> list[tuple[slice, ...]]:
    """Where in the padded input each place of the kernel, in row-major order, is in all windows."""
    every, found = (slice(None), slice(None)), []
    for place in product(*map(range, kernel)):
        axes = zip(place, dilation, out, stride, strict=True)
        found.append(every + tuple(slice(i * d, i * d + (o - 1) * s + 1, s) for i, d, o, s in axes))
    return found


def _padded(x: Array, result: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Array:
    sizes = zip(x.shape[2:], result[2:], kernel, stride, padding, dilation, strict=True)
    around = [(p, max((o - 1) * s + (k - 1) * d + 1 - p - n, 0)) for n, o, k, s, p, d in sizes]
    return np.pad(x, [(0, 0), (0, 0), *around], constant_values=-np.inf)


def _windows(
    x: Array, result: Shape, *, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool
) -> Array:
    """The elements of each window along a new first axis."""
    whole = _padded(x, result, kernel, stride, padding, dilation)
    return np.stack([whole[seen] for seen in _seen(result[2:], kernel, stride, dilation)])


def _to_first(
    g: Array, x: Array, result: Shape, *, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool
) -> Array:
    whole = _padded(x, result, kernel, stride, padding, dilation)
    places = _seen(result[2:], kernel, stride, dilation)
    top = np.stack([whole[seen] for seen in places]).max(axis=0)
    total, waiting = np.zeros_like(whole), np.ones(g.shape, np.bool_)
    for seen in places:
        here = waiting & (whole[seen] == top)
        total[seen] += np.where(here, g, 0)
        waiting &= ~here
    inside = tuple(slice(p, p + n) for p, n in zip(padding, x.shape[2:], strict=True))
    return total[(slice(None), slice(None), *inside)]


# Means.


@kept(KEPT)
def _avg_pooling(
    x: Shape, *, kernel: Shape, stride: Shape, padding: Shape, ceil_mode: bool, count_include_pad: bool,
    plain: bool = False,
) -> _Pooling:  # fmt: skip
    kind = AVG_POOL_WITH_PADDING if count_include_pad else AVG_POOL_WITHOUT_PADDING
    with api().threads.to_make(_work(x)):
        return _Pooling(kind, x, kernel, stride, padding, (1,) * len(kernel), ceil_mode, plain)


@kept(KEPT)
def _avg_gradient(g: Shape, *, sizes: Shape, **settings: Any) -> tuple[Shape, Primitive]:
    x = (*g[:2], *sizes)
    plan = _avg_pooling(x, **settings)
    with api().threads.to_make(_work(x)):
        return x, plan.backward()


@layout.into_any
def avg_pool(x: Array, *, out: Array | None, **settings: Any) -> Array:
    """The mean of each window."""
    plain = layout.is_plain(x)
    plan = _avg_pooling(x.shape, plain=plain, **settings)
    seen = x if plain else layout.given(x, "input")
    result = layout.result(plan.result, out, plain)
    plan.forward(address(seen), address(result))
    return result


@layout.into_any
def avg_pool_gradient(g: Array, *, out: Array | None, **settings: Any) -> Array:
    """The gradient of avg_pool: each window's share to all its elements."""
    plain = layout.is_plain(g)
    shape, backward = _avg_gradient(g.shape, plain=plain, **settings)
    gradient = g if plain else layout.given(g, "gradient")
    result = layout.result(shape, out, plain)
    backward(address(gradient), address(result))
    return result


for _n in (1, 2, 3):
    register(ops.TABLE[f"max_pool{_n}d"], _max_pooling, max_pool)
    register(ops.TABLE[f"max_pool{_n}d_gradient"], _max_gradient, max_pool_gradient)
    register(ops.TABLE[f"avg_pool{_n}d"], _avg_pooling, avg_pool)
    register(ops.TABLE[f"avg_pool{_n}d_gradient"], _avg_gradient, avg_pool_gradient)
