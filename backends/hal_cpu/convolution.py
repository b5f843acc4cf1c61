"""Convolutions in NumPy: blocks of columns (im2col) times the weights, on all threads.

A transposed convolution is not gathered from overlapping pieces: for each remainder of the place by the stride, the
result is a plain convolution with every stride-th element of the kernel, flipped.
"""

from __future__ import annotations

from itertools import product
from math import gcd, prod
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cpu import images_last
from hal_cpu.columns import BLOCK, Block, Pair, Windows, blocks, columns, fold
from hal_cpu.parallel import in_parts, scratch
from hal_cpu.precision import working
from hal_cpu.table import kernels

_FEW_PLACES = 32  # below so many places in a result, the products of several images are done as one
_SMALL_PRODUCT = 1_000_000  # multiplications up to which OpenBLAS does not pack its operands
_LONG_ENOUGH = 384  # places in one product of the weights' gradient, so that adding it up costs little beside it


def _work(products: int, elements: int) -> float:
    """How much work so many products, and making so many elements of columns, are to `in_parts`.

    A quarter of the time that they take: the many short steps of a block wait for each other in the interpreter, so
    that a second thread gains nothing below a good millisecond (measured).
    """
    return products / 40 + elements / 4


def _correlate(x: Array, weight: Array, bias: Array | None, groups: int, windows: Windows, out: Array) -> None:
    """Write into `out`, of any strides, the products of `weight` (C_out, C_in / groups, kH, kW) with all windows."""
    images, made = out.shape[:2]
    terms = prod(weight.shape[1:])
    places = prod(windows.out)
    if out.size == 0:
        return
    if terms == 0:  # no channels come in
        out[...] = 0 if bias is None else bias.reshape(made, 1, 1)
        return
    rows = np.ascontiguousarray(weight).reshape(groups, made // groups, terms)
    added = None if bias is None else bias.reshape(groups, made // groups, 1)
    merge = places < _FEW_PLACES and images > 1
    as_it_is = windows == Windows((1, 1), x.shape[2:], (0, 0), (1, 1), windows.dilation) and not merge
    x = np.ascontiguousarray(x) if as_it_is else x
    direct = out.flags.c_contiguous and not merge
    pieces = blocks(images, windows, x.shape[1] * prod(windows.kernel) * windows.out[1] * x.itemsize)

    def part(start: int, stop: int) -> None:
        for n0, n1, y0, y1 in pieces[start:stop]:
            count, width = n1 - n0, windows.out[1]
            if as_it_is:
                seen = x[n0:n1, :, y0:y1].reshape(count, groups, terms, -1)
            else:
                seen = columns(x[n0:n1], windows, y0, y1, merge)
                seen = seen.reshape((groups, terms, -1) if merge else (count, groups, terms, -1))
            if direct:
                target = out.reshape(images, groups, made // groups, places)[n0:n1, ..., y0 * width : y1 * width]
            else:
                target = scratch("products", (*seen.shape[:-2], made // groups, seen.shape[-1]), out.dtype)
            np.matmul(rows, seen, out=target)
            if added is not None:
                target += added
            if merge:
                out[n0:n1, :, y0:y1] = target.reshape(made, count, y1 - y0, width).swapaxes(0, 1)
            elif not direct:
                out[n0:n1, :, y0:y1] = target.reshape(count, made, y1 - y0, width)

    in_parts(part, len(pieces), _work(out.size * terms, images * places * groups * terms))


def _ready(array: Array, dtype: np.dtype[Any]) -> Array:
    return array if array.dtype == dtype else array.astype(dtype)


def _result(shape: tuple[int, ...], dtype: np.dtype[Any], out: Array | None) -> Array:
    """Where to compute: in `out` if its type will do, else in a new array."""
    return out if out is not None and out.dtype == dtype else np.empty(shape, dtype)


def _last(shape: tuple[int, ...], dtype: np.dtype[Any], out: Array | None) -> Array:
    """Where to compute images that lie last: in `out` if they do there."""
    return out if out is not None and images_last.lie_last(out) else images_last.empty(shape, dtype)


def _delivered(result: Array, dtype: np.dtype[Any], out: Array | None) -> Array:
    """The result in the type that was asked for, in `out` if that was given."""
    if out is None:
        return _ready(result, dtype)
    if result is not out:
        np.copyto(out, result, casting="unsafe")
    return out


@kernels.register(ops.conv2d, out=True)
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out: Array | None = None,
) -> Array:
    """The convolution of images (N, C, H, W)."""
    kind = working(x.dtype)
    kernel: Pair = weight.shape[2:]
    sizes = zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    places: Pair = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)
    shape: tuple[int, ...] = (x.shape[0], weight.shape[0], *places)
    windows = Windows(kernel, places, (-padding[0], -padding[1]), stride, dilation)
    given = None if bias is None else _ready(bias, kind)
    if images_last.suits(x, groups) and 0 not in shape:
        result = _last(shape, x.dtype, out)
        images_last.correlate(x, weight, given, windows, result)
        return _delivered(result, x.dtype, out)
    result = _result(shape, kind, out)
    _correlate(_ready(x, kind), _ready(weight, kind), given, groups, windows, result)
    return _delivered(result, x.dtype, out)


class _Phase:
    """Along one axis: the places of a transposed convolution's result with one remainder, and what they see.

    Places y with (y + padding) % stride == remainder meet the elements k of the kernel with k * dilation % stride ==
    remainder, and no others.
    """

    def __init__(self, remainder: int, size: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
        self.first = (remainder - padding) % stride
        self.count = max(-(-(size - self.first) // stride), 0)
        met = [k for k in range(kernel) if k * dilation % stride == remainder]
        self.step = stride // gcd(stride, dilation)
        self.kernel = slice(met[-1], met[0] - 1 if met[0] else None, -self.step) if met else slice(0, 0)
        self.length = len(met)
        self.spacing = dilation // gcd(stride, dilation)
        last = met[-1] if met else 0
        self.start = (self.first + padding - last * dilation) // stride


@kernels.register(ops.conv_transpose2d, out=True)
def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    dilation: Pair,
    groups: int,
    out: Array | None = None,
) -> Array:
    """The transposed convolution of images (N, C, H, W); also the gradient of conv2d by its input."""
    kind = working(x.dtype)
    kernel = weight.shape[2:]
    steps = zip(x.shape[2:], kernel, stride, padding, output_padding, dilation, strict=True)
    sizes = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 + o for n, k, s, p, o, d in steps)
    made = weight.shape[1]
    shape: tuple[int, ...] = (x.shape[0], made * groups, *sizes)
    if images_last.lie_last(x) and images_last.suits(x, groups) and 0 not in (*shape, *weight.shape):
        result = _last(shape, x.dtype, out)
        images_last.scatter(x, weight, bias, stride, padding, dilation, result)
        return _delivered(result, x.dtype, out)
    result = _result(shape, kind, out)
    given, rows = _ready(x, kind), _ready(weight, kind)
    added = None if bias is None else _ready(bias, kind)
    if _scatters(x.shape[1] * prod(sizes), made * groups * prod(x.shape[2:]) * prod(stride)):
        _scatter(given, rows, added, stride, padding, dilation, groups, result)
    else:
        swapped = rows.reshape(groups, -1, made, *kernel).swapaxes(1, 2).reshape(groups * made, -1, *kernel)
        _in_phases(given, swapped, added, stride, padding, dilation, groups, result)
    return _delivered(result, x.dtype, out)


def _scatters(gathered: int, scattered: int) -> bool:
    """Whether to add up pieces of the result, each of which is written, read and added, and not gather windows."""
    return gathered > 3 * scattered


def _in_phases(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int, out: Array
) -> None:
    """A transposed convolution as plain ones, one for each remainder; `weight` is (C_out, C_in / groups, kH, kW)."""
    down, across = (
        [_Phase(r, n, k, s, p, d) for r in range(s)]
        for n, k, s, p, d in zip(out.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    )
    for y, z in product(down, across):
        target = out[:, :, y.first :: stride[0], z.first :: stride[1]]
        if y.length * z.length == 0:
            target[...] = 0 if bias is None else bias.reshape(-1, 1, 1)
        elif target.size:
            size, start = (y.count, z.count), (y.start, z.start)
            windows = Windows((y.length, z.length), size, start, (1, 1), (y.spacing, z.spacing))
            _correlate(x, weight[:, :, y.kernel, z.kernel], bias, groups, windows, target)


def _scatter(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int, out: Array
) -> None:
    """A transposed convolution by adding what each element makes; `weight` is (C_in, C_out / groups, kH, kW)."""
    images, channels, height, width = out.shape
    kernel, sizes = weight.shape[2:], x.shape[2:]
    places, terms = prod(sizes), channels // groups * prod(kernel)
    rows = np.ascontiguousarray(weight).reshape(groups, -1, terms).swapaxes(1, 2)
    reach = [(n - 1) * s + d * (k - 1) + 1 for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)]
    whole = (max(reach[0], padding[0] + height), max(reach[1], padding[1] + width))
    at_once = max(BLOCK // max(terms * groups * places * x.itemsize, 1), 1)

    def part(first: int, last: int) -> None:
        for low in range(first, last, at_once):
            high = min(low + at_once, last)
            given = np.ascontiguousarray(x[low:high]).reshape(high - low, groups, -1, places)
            parts = scratch("columns", (high - low, groups, terms, places), x.dtype)
            np.matmul(rows, given, out=parts)
            total = scratch("products", (high - low, channels, *whole), x.dtype)
            fold(parts.reshape(high - low, channels, *kernel, *sizes), stride, dilation, total)
            target = out[low:high]
            np.copyto(target, total[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width])
            if bias is not None:
                target += bias.reshape(-1, 1, 1)

    if x.size and out.size:
        in_parts(part, images, _work(x.size * terms, 3 * images * groups * terms * places))


@kernels.register(ops.conv2d_weight_gradient, out=True)
def conv2d_weight_gradient(
    x: Array,
    g: Array,
    *,
    weight_shape: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out: Array | None = None,
) -> Array:
    """The gradient of conv2d by its weights: a product over all places of all images, summed block by block."""
    asked, kind = x.dtype, working(x.dtype)
    made, given, *kernel = weight_shape
    terms = given * prod(kernel)
    places: Pair = g.shape[2:]
    windows = Windows((kernel[0], kernel[1]), places, (-padding[0], -padding[1]), stride, dilation)
    result = _result(weight_shape, kind, out)
    x, g = _ready(x, kind), _ready(g, kind)
    if images_last.suits(x, groups) and images_last.lie_last(g) and result.size:
        images_last.weight_gradient(x, g, windows, result)
        return _delivered(result, asked, out)
    pieces = blocks(x.shape[0], windows, x.shape[1] * prod(kernel) * places[1] * x.itemsize, _LONG_ENOUGH)

    # OpenBLAS has a fast way for products so small, image by image; else all images of a block are one long product.
    apart = made // groups * terms * prod(places) <= _SMALL_PRODUCT and prod(places) >= _FEW_PLACES
    # OpenBLAS is faster where a result has more rows than columns, which pays if that is turned back only once.
    turned = terms > made // groups and x.shape[0] * prod(places) > _LONG_ENOUGH

    def product(block: Block, out: Array | None) -> Array:
        n0, n1, y0, y1 = block
        seen = columns(x[n0:n1], windows, y0, y1, merge=not apart)
        chosen = g[n0:n1, :, y0:y1] if apart else g[n0:n1, :, y0:y1].swapaxes(0, 1)
        rows = scratch("gradients", chosen.shape, kind)
        np.copyto(rows, chosen)
        shape = (n1 - n0, groups) if apart else (groups,)
        factors = [rows.reshape(*shape, made // groups, -1), seen.reshape(*shape, terms, -1)]
        left, right = reversed(factors) if turned else factors
        if not apart:
            return np.matmul(left, right.swapaxes(-1, -2), out=out)
        several = scratch("products", (*shape, left.shape[-2], right.shape[-2]), kind)
        return np.asarray(np.add.reduce(np.matmul(left, right.swapaxes(-1, -2), out=several), 0, out=out))

    def part(start: int, stop: int) -> Array:
        total = product(pieces[start], None)
        for block in pieces[start + 1 : stop]:
            total += product(block, scratch("product", total.shape, kind))
        return total

    if x.size == 0 or g.size == 0:
        result[...] = 0
        return _delivered(result, asked, out)
    first, *others = in_parts(part, len(pieces), _work(g.size * terms, x.shape[0] * prod(places) * groups * terms))
    for other in others:
        first += other
    np.copyto(result, (first.swapaxes(1, 2) if turned else first).reshape(weight_shape))
    return _delivered(result, asked, out)


# One spatial axis: images of height 1, which are views.


def _lift(x: Array) -> Array:
    return x[:, :, None]


def _lower(image: Array, out: Array | None) -> Array:
    return image[:, :, 0] if out is None else out


@kernels.register(ops.conv1d, out=True)
def conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: tuple[int],
    padding: tuple[int],
    dilation: tuple[int],
    groups: int,
    out: Array | None = None,
) -> Array:
    """The convolution of sequences (N, C, L)."""
    target = None if out is None else _lift(out)
    settings = {"stride": (1, *stride), "padding": (0, *padding), "dilation": (1, *dilation)}
    return _lower(conv2d(_lift(x), _lift(weight), bias, groups=groups, out=target, **settings), out)


@kernels.register(ops.conv_transpose1d, out=True)
def conv_transpose1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: tuple[int],
    padding: tuple[int],
    output_padding: tuple[int],
    dilation: tuple[int],
    groups: int,
    out: Array | None = None,
) -> Array:
    """The transposed convolution of sequences (N, C, L)."""
    target = None if out is None else _lift(out)
    settings = {"stride": (1, *stride), "padding": (0, *padding), "dilation": (1, *dilation)}
    settings["output_padding"] = (0, *output_padding)
    return _lower(conv_transpose2d(_lift(x), _lift(weight), bias, groups=groups, out=target, **settings), out)


@kernels.register(ops.conv1d_weight_gradient, out=True)
def conv1d_weight_gradient(
    x: Array,
    g: Array,
    *,
    weight_shape: tuple[int, ...],
    stride: tuple[int],
    padding: tuple[int],
    dilation: tuple[int],
    groups: int,
    out: Array | None = None,
) -> Array:
    """The gradient of conv1d by its weights."""
    target = None if out is None else _lift(out)
    shape = (*weight_shape[:2], 1, *weight_shape[2:])
    settings = {"stride": (1, *stride), "padding": (0, *padding), "dilation": (1, *dilation)}
    result = conv2d_weight_gradient(_lift(x), _lift(g), weight_shape=shape, groups=groups, out=target, **settings)
    return _lower(result, out)
