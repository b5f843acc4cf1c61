"""What the array does: matrix products and, as matrix products of patches, convolutions and their gradients.

Each kernel takes the machine's `Numerics` first; `backend` puts it there. Layouts are those of the ops' records.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array, Op
from hal_systolic.numerics import Numerics, integer_product
from hal_systolic.table import kernels

Sizes = tuple[int, ...]
ON_ARRAY: dict[str, Callable[..., Array]] = {}


def on_array(op: Op) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Register `kernel(numerics, *arrays, **settings)` for an op that the array runs."""

    def keep(function: Callable[..., Array]) -> Callable[..., Array]:
        ON_ARRAY[op.name] = function
        kernels.register(op)(function)
        return function

    return keep


@on_array(ops.matmul)
def matmul(numerics: Numerics, a: Array, b: Array) -> Array:
    """The matrix product over the last two axes; a vector is a row on the left, a column on the right."""
    left = a[None] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    out = numerics.product(left, right)
    out = out[..., 0] if b.ndim == 1 else out
    return (out[..., 0] if b.ndim == 1 else out[..., 0, :]) if a.ndim == 1 else out


@on_array(ops.linear)
def linear(numerics: Numerics, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x @ weight.T + bias; the bias is added where sums leave the accumulators, before the result is rounded."""
    rows = x[None] if x.ndim == 1 else x
    out = _finished(numerics.sums(rows, weight.T), bias, x.dtype)
    return out[0] if x.ndim == 1 else out


def _finished(sums: Array, bias: Array | None, dtype: np.dtype[Any]) -> Array:
    """Sums plus a bias along their last axis, in the result's dtype."""
    if bias is not None:
        sums = np.add(sums, bias.astype(sums.dtype, copy=False), out=sums if sums.flags.owndata else None)
    return sums.astype(dtype, copy=False)


@on_array(ops.integer_linear)
def integer_linear(numerics: Numerics, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x @ weight.T + bias of 8- or 16-bit integers, in int32."""
    rows = x[None] if x.ndim == 1 else x
    out = _finished(integer_product(rows, weight.T), bias, np.dtype(np.int32))
    return out[0] if x.ndim == 1 else out


# Convolutions, over any number of spatial axes.


def _reach(kernel: Sizes, dilation: Sizes) -> Sizes:
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))


def patches(x: Array, kernel: Sizes, out: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int) -> Array:
    """What each window sees, as rows of a matrix: (groups, N * prod(out), C / groups * prod(kernel)).

    The machine reads them by address; here they are written out.
    """
    reach = _reach(kernel, dilation)
    needed = [(o - 1) * s + r for o, s, r in zip(out, stride, reach, strict=True)]
    batch, channels, *sizes = x.shape
    whole = np.zeros(
        (batch, channels, *(max(n, m + p) for n, m, p in zip(needed, sizes, padding, strict=True))), x.dtype
    )
    whole[(slice(None), slice(None), *(slice(p, p + m) for p, m in zip(padding, sizes, strict=True)))] = x
    steps = whole.strides
    n = len(kernel)
    seen = np.lib.stride_tricks.as_strided(
        whole,
        (batch, groups, channels // groups, *kernel, *out),
        (
            steps[0], steps[1] * (channels // groups), steps[1],
            *(s * d for s, d in zip(steps[2:], dilation, strict=True)),
            *(s * t for s, t in zip(steps[2:], stride, strict=True)),
        ),
        writeable=False,
    )  # fmt: skip
    # Written so that neighbours in a row of the image stay neighbours, then turned: a copy that takes half the time.
    order = (1, 2, *range(3, 3 + n), 0, *range(3 + n, 3 + 2 * n))
    columns = seen.transpose(order).reshape(groups, channels // groups * prod(kernel), batch * prod(out))
    return columns.swapaxes(1, 2)


def convolution(
    numerics: Numerics, x: Array, weight: Array, bias: Array | None = None, *,
    stride: Sizes, padding: Sizes, dilation: Sizes, groups: int,
) -> Array:  # fmt: skip
    """The convolution as one product for each group: patches by filters."""
    # The image is rounded, and not its patches, which repeat each element as often as the kernel has places.
    seen = numerics.rounded(x)
    return _convolved(partial(numerics.sums, ready="a"), seen, weight, bias, x.dtype, stride, padding, dilation, groups)


@on_array(ops.integer_conv2d)
def integer_conv2d(
    numerics: Numerics, x: Array, weight: Array, bias: Array | None = None, *,
    stride: Sizes, padding: Sizes, dilation: Sizes, groups: int,
) -> Array:  # fmt: skip
    """The convolution of 8- or 16-bit integers, in int32."""
    return _convolved(integer_product, x, weight, bias, np.dtype(np.int32), stride, padding, dilation, groups)


def _convolved(
    multiply: Callable[[Array, Array], Array], x: Array, weight: Array, bias: Array | None, dtype: np.dtype[Any],
    stride: Sizes, padding: Sizes, dilation: Sizes, groups: int,
) -> Array:  # fmt: skip
    kernel, filters = weight.shape[2:], weight.shape[0]
    sizes = zip(x.shape[2:], padding, _reach(kernel, dilation), stride, strict=True)
    out = tuple((m + 2 * p - r) // s + 1 for m, p, r, s in sizes)
    rows = patches(x, kernel, out, stride, padding, dilation, groups)
    columns = weight.reshape(groups, filters // groups, -1).swapaxes(1, 2)
    sums: Array = multiply(rows, columns).reshape(groups, x.shape[0], prod(out), filters // groups)
    sums = sums.transpose(1, 2, 0, 3).reshape(x.shape[0], prod(out), filters)
    done = _finished(sums, bias, dtype)
    return np.ascontiguousarray(done.swapaxes(1, 2)).reshape(x.shape[0], filters, *out)


def weight_gradient(
    numerics: Numerics, x: Array, g: Array, *,
    weight_shape: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int,
) -> Array:  # fmt: skip
    """The gradient of a convolution by its weights: gradients by patches, summed over all places of all images."""
    rows = patches(numerics.rounded(x), weight_shape[2:], g.shape[2:], stride, padding, dilation, groups)
    filters = weight_shape[0] // groups
    places = g.shape[0] * prod(g.shape[2:])
    left = (
        g.reshape(g.shape[0], groups, filters, prod(g.shape[2:])).transpose(1, 2, 0, 3).reshape(groups, filters, places)
    )
    return numerics.sums(left, rows, ready="b").astype(x.dtype, copy=False).reshape(weight_shape)


def transposed(
    numerics: Numerics, x: Array, weight: Array, bias: Array | None = None, *,
    stride: Sizes, padding: Sizes, output_padding: Sizes, dilation: Sizes, groups: int,
) -> Array:  # fmt: skip
    """The transposed convolution: one product for each group, whose parts the vector unit adds up in place."""
    batch, channels, *sizes = x.shape
    kernel, made, n = weight.shape[2:], weight.shape[1], len(sizes)
    rows: Array = x.reshape(batch, groups, channels // groups, prod(sizes)).transpose(1, 0, 3, 2)
    rows = rows.reshape(groups, batch * prod(sizes), channels // groups)
    sums = numerics.sums(rows, weight.reshape(groups, channels // groups, made * prod(kernel)))
    parts = sums.reshape(groups, batch, *sizes, made, *kernel)
    parts = parts.transpose(1, 0, 2 + n, *range(3 + n, 3 + 2 * n), *range(2, 2 + n))
    parts = parts.reshape(batch, groups * made, *kernel, *sizes)
    spans = [(m - 1) * s + r for m, s, r in zip(sizes, stride, _reach(kernel, dilation), strict=True)]
    final = [span - 2 * p + o for span, p, o in zip(spans, padding, output_padding, strict=True)]
    whole = [max(span, p + f) for span, p, f in zip(spans, padding, final, strict=True)]
    total = np.zeros((batch, groups * made, *whole), sums.dtype)
    everything: tuple[Any, ...] = (slice(None), slice(None))
    for place in product(*map(range, kernel)):
        starts = [k * d for k, d in zip(place, dilation, strict=True)]
        at = tuple(slice(b, b + (m - 1) * s + 1, s) for b, m, s in zip(starts, sizes, stride, strict=True))
        total[(*everything, *at)] += parts[(*everything, *place)]
    total = total[(*everything, *(slice(p, p + f) for p, f in zip(padding, final, strict=True)))]
    if bias is not None:
        total = total + bias.astype(total.dtype).reshape(-1, *[1] * n)
    return np.ascontiguousarray(total, x.dtype)


for _n in (1, 2, 3):
    on_array(ops.TABLE[f"conv{_n}d"])(convolution)
    on_array(ops.TABLE[f"conv{_n}d_weight_gradient"])(weight_gradient)
    on_array(ops.TABLE[f"conv_transpose{_n}d"])(transposed)
