"""Convolutions over one to three axes, transposed ones, and the gradient of their weights: products, without columns.

Images are spread once over padded planes (`convolution_layout`), in which what one element of the kernel sees from all
places, of all images, is one contiguous piece of memory: the row of a matrix that a product reads where it lies. Some
of its columns are no places of the result, those in the padding of the planes; nothing is written for them.

The spaces between the images of a batch are multiplied by zeros in the gradient of the weights, so that an infinity in
an image makes NaN of all weights that it is seen by or is near to, not only of those that see it.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

from hal import ops
from hal.codegen.kernels.buffer import Buffer, Shape
from hal.codegen.kernels.convolution_layout import (
    gathered,
    interleaved,
    lifted,
    lifted_sizes,
    phases_of,
    seen,
    seen_back,
    spread,
    weights_back,
)
from hal.codegen.kernels.gemm import HALVES, cast, delivered, zeros_where
from hal.codegen.kernels.movement import copy_into, in_rows
from hal.codegen.kernels.overlap import overlaps
from hal.codegen.kernels.products import Bias, Factor, Places, Product, Result, Triple, is_wide
from hal.codegen.kernels.reduction import reduction_of
from hal.codegen.kernels.table import kernels
from hal.plugin import dtypes

SPARSE = 64  # products with no place, for each place and term, from which columns are copied together instead
BESIDE = 12  # output channels from which a vector of them is well used
ROWS = 24  # weights that are worth a thread
PART = 4096  # terms that one part of a gradient of weights has at least
MANY_SUMS = 1 << 14  # weights from which there are enough blocks of them for all threads, so that no sum is parted


def _places(sizes: Triple, kernel: Triple, stride: Triple, padding: Triple, dilation: Triple) -> Triple:
    axes = zip(sizes, kernel, stride, padding, dilation, strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)


def _reach(places: Triple, kernel: Triple, stride: Triple, dilation: Triple) -> Triple:
    """The sizes of planes in which every element of the kernel sees all places."""
    axes = zip(places, kernel, stride, dilation, strict=True)
    return tuple(p + (k - 1) * d // s for p, k, s, d in axes)


def _columns(images: int, places: Triple, sizes: Triple) -> int:
    """How many columns there are up to the last that is a place, over all images."""
    last = ((places[0] - 1) * sizes[1] + places[1] - 1) * sizes[2] + places[2]
    return (images - 1) * prod(sizes) + last


def _copied(sizes: Triple, places: Triple, made: int) -> bool:
    """Whether the padding costs more than columns that are copied together: images are small, rows are many."""
    return (prod(sizes) - prod(places)) * made > SPARSE * prod(places)


def result_for(given: tuple[Buffer | None, ...], shape: Shape, out: Buffer | None, label: str) -> Buffer:
    """Where to write: into `out` where that lies in rows and apart from what is read."""
    read = [x for x in given if x is not None]
    if out is not None and out.contiguous and not overlaps(out, read):
        return out
    return read[0].memory.runtime.empty(shape, read[0].dtype, label)


def bias_of(bias: Buffer | None, made: int) -> Bias | None:
    """The bias of each row of a product, with so many rows in a group."""
    return None if bias is None else Bias(bias.memory, bias.offset, bias.strides[0], 0, made * bias.strides[0])


def _filled(result: Buffer, bias: Buffer | None) -> None:
    """Write sums of no terms: zero, or the bias of each channel."""
    if bias is not None:
        ones = len(result.shape) - 2
        bias = bias.view((*bias.shape, *(1,) * ones), (*bias.strides, *(0,) * ones))
    zeros_where(result, bias)


def convolve(
    label: str,
    x: Buffer,
    weight: Buffer,
    bias: Buffer | None = None,
    *,
    stride: Shape,
    padding: Shape,
    dilation: Shape,
    groups: int,
    out: Buffer | None = None,
) -> Buffer:
    """The convolution of images (N, C, *spatial) with weights (C_out, C / groups, *kernel)."""
    dtype, runtime, axes = x.dtype, x.memory.runtime, len(x.shape) - 2
    if dtype in HALVES or dtype is dtypes.bool_:
        wider = [cast(t, _wider(dtype)) for t in (x, weight, bias) if t is not None]
        settings: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return delivered(convolve(label, *wider, **settings), dtype, out)
    x, weight = lifted(x), in_rows(lifted(weight))
    kernel: Triple = weight.shape[2:]
    step, around, apart = lifted_sizes(stride, 1), lifted_sizes(padding, 0), lifted_sizes(dilation, 1)
    places = _places(x.shape[2:], kernel, step, around, apart)
    images, channels, total, made = x.shape[0], weight.shape[1], weight.shape[0], weight.shape[0] // groups
    result = result_for((x, weight, bias), (images, total, *places[3 - axes :]), out, label)
    terms, count = channels * prod(kernel), prod(places)
    if result.size == 0:
        return delivered(result, dtype, out)
    if terms == 0:
        _filled(result, bias)
        return delivered(result, dtype, out)
    sizes = _reach(places, kernel, step, apart)
    of_weight = Factor(weight.memory, weight.offset, terms, 1, (0, 0, made * terms))
    to_rows = Result(result.memory, result.offset, count, made * count)
    if prod(kernel) == 1 and places == x.shape[2:] and around == (0, 0, 0) and step == (1, 1, 1):
        _one_by_one(label, x, of_weight, bias, result, made, groups)
        return delivered(result, dtype, out)
    strides = (total * count, places[1] * places[2], places[2], 1)
    batch = (1, 1, groups)
    planes = spread(runtime, label, x, sizes, around, step, phases_of(kernel, step, apart))
    wide = is_wide(planes.memory, result.memory, weight.memory)
    if _copied(sizes, places, made):
        rows = seen(runtime, x.shape[1], sizes, planes.stride, kernel, step, apart, wide)
        columns, row = gathered(runtime, label, planes, rows, images, places, dtype, wide), images * count
        b = Factor(columns, 0, row, 1, (0, 0, terms * row))
        there = to_rows._replace(places=Places(places, places, strides))
        work, wide = (made, row, terms), is_wide(columns, result.memory, weight.memory)
    else:
        table = seen(runtime, channels, sizes, planes.stride, kernel, step, apart, wide)
        b = Factor(planes.memory, 0, table, 1, (0, 0, channels * prod(planes.phases) * planes.stride))
        there = to_rows._replace(places=Places(places, sizes, strides))
        work = (made, _columns(images, places, sizes), terms)
    runtime.multiply(label, Product(dtype, of_weight, b, there, work, batch=batch, bias=bias_of(bias, made), wide=wide))
    return delivered(result, dtype, out)


def _one_by_one(
    label: str, x: Buffer, of_weight: Factor, bias: Buffer | None, result: Buffer, made: int, groups: int
) -> None:
    """The convolution with a kernel of one element: a product for each image and group, of images as they are."""
    x = in_rows(x)
    images, channels, places = x.shape[0], x.shape[1] // groups, prod(x.shape[2:])
    seen_there = Factor(x.memory, x.offset, places, 1, (0, groups * channels * places, channels * places))
    to = Result(result.memory, result.offset, places, made * places)
    sizes, batch = (made, places, channels), (1, images, groups)
    x.memory.runtime.multiply(label, Product(x.dtype, of_weight, seen_there, to, sizes, batch, bias_of(bias, made)))


def _wider(dtype: dtypes.DType) -> dtypes.DType:
    return dtypes.float32 if dtype in HALVES else dtypes.int32


def convolve_back(
    label: str,
    x: Buffer,
    weight: Buffer,
    bias: Buffer | None = None,
    *,
    stride: Shape,
    padding: Shape,
    output_padding: Shape,
    dilation: Shape,
    groups: int,
    out: Buffer | None = None,
) -> Buffer:
    """The transposed convolution of images (N, C_in, *spatial) with weights (C_in, C_out / groups, *kernel).

    For each remainder of the place by the stride it is a plain convolution with those elements of the kernel that meet
    such places: no zeros are put between the elements of x.
    """
    dtype, runtime, axes = x.dtype, x.memory.runtime, len(x.shape) - 2
    if dtype in HALVES or dtype is dtypes.bool_:
        wider = [cast(t, _wider(dtype)) for t in (x, weight, bias) if t is not None]
        settings: dict[str, Any] = {"stride": stride, "padding": padding, "output_padding": output_padding}
        found = convolve_back(label, *wider, **settings, dilation=dilation, groups=groups)
        return delivered(found, dtype, out)
    x, weight = lifted(x), in_rows(lifted(weight))
    kernel: Triple = weight.shape[2:]
    step, around, apart = lifted_sizes(stride, 1), lifted_sizes(padding, 0), lifted_sizes(dilation, 1)
    extra = lifted_sizes(output_padding, 0)
    images, made, channels = x.shape[0], weight.shape[1], x.shape[1] // groups
    along = zip(x.shape[2:], kernel, step, around, apart, extra, strict=True)
    full: Triple = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 + e for n, k, s, p, d, e in along)
    result = result_for((x, weight, bias), (images, made * groups, *full[3 - axes :]), out, label)
    if result.size == 0:
        return delivered(result, dtype, out)
    if prod(kernel) == 1 and full == x.shape[2:] and around == (0, 0, 0) and step == (1, 1, 1) and channels:
        of_weight = Factor(weight.memory, weight.offset, 1, made, (0, 0, channels * made))
        _one_by_one(label, x, of_weight, bias, result, made, groups)
        return delivered(result, dtype, out)
    phases = [
        [_Phase(r, n, k, s, p, d) for r in range(s)]
        for n, k, s, p, d in zip(full, kernel, step, around, apart, strict=True)
    ]
    every = [[p for p in axis if p.count] for axis in phases]
    if channels == 0 or any(not p.met for axis in every for p in axis):
        _filled(result, bias)
    every = [[p for p in axis if p.met] for axis in every]
    if channels == 0 or not all(every):
        return delivered(result, dtype, out)
    front = tuple(max(0, -min(min(p.shifts) for p in axis)) for axis in every)
    back = (max(p.count + max(p.shifts) for p in axis) for axis in every)
    sizes: Triple = tuple(f + max(n, b) for f, n, b in zip(front, x.shape[2:], back, strict=True))
    planes = spread(runtime, label, x, sizes, front, (1, 1, 1), (1, 1, 1))
    wide = is_wide(planes.memory, result.memory, weight.memory)
    area, size = prod(full), prod(kernel)
    for three in product(*every):
        met = tuple(p.met for p in three)
        shifts = tuple(tuple(f + s for s in p.shifts) for f, p in zip(front, three, strict=True))
        count: Triple = tuple(p.count for p in three)
        first = (three[0].first * full[1] + three[1].first) * full[2] + three[2].first
        strides = (made * groups * area, step[0] * full[1] * full[2], step[1] * full[2], step[2])
        a_terms = weights_back(runtime, channels, made, kernel, met, wide)
        terms, row = channels * prod(map(len, met)), images * prod(count)
        if _copied(sizes, count, made):
            rows = seen_back(runtime, x.shape[1], sizes, planes.stride, shifts, wide)
            columns = gathered(runtime, label, planes, rows, images, count, dtype, wide)
            b, there, all_sizes = Factor(columns, 0, row, 1, (0, 0, terms * row)), row, count
        else:
            b_terms = seen_back(runtime, channels, sizes, planes.stride, shifts, wide)
            b = Factor(planes.memory, 0, b_terms, 1, (0, 0, channels * planes.stride))
            there, all_sizes = _columns(images, count, sizes), sizes
        work = Product(
            dtype,
            Factor(weight.memory, weight.offset, size, a_terms, (0, 0, channels * made * size)),
            b,
            Result(result.memory, result.offset + first, area, made * area, Places(count, all_sizes, strides)),
            (made, there, terms),
            batch=(1, 1, groups),
            bias=bias_of(bias, made),
            wide=wide,
        )
        runtime.multiply(label, work)
    return delivered(result, dtype, out)


class _Phase:
    """Along one axis: the places of a transposed convolution's result with one remainder, and what they see.

    Place `first + i * stride` sees element i + shift of the input, for each shift, with one element of the kernel.
    """

    def __init__(self, remainder: int, size: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
        self.first = (remainder - padding) % stride
        self.count = max(-(-(size - self.first) // stride), 0)
        self.met = tuple(k for k in range(kernel) if k * dilation % stride == remainder)
        self.shifts = tuple((self.first + padding - k * dilation) // stride for k in self.met)


def gradient_of_weight(
    label: str,
    x: Buffer,
    g: Buffer,
    *,
    weight_shape: Shape,
    stride: Shape,
    padding: Shape,
    dilation: Shape,
    groups: int,
    out: Buffer | None = None,
) -> Buffer:
    """The gradient by the weights: products of what each element of the kernel saw with the result's gradient."""
    dtype, runtime = x.dtype, x.memory.runtime
    if dtype in HALVES or dtype is dtypes.bool_:
        wider = [cast(t, _wider(dtype)) for t in (x, g)]
        settings: dict[str, Any] = {"weight_shape": weight_shape, "stride": stride, "padding": padding}
        found = gradient_of_weight(label, *wider, **settings, dilation=dilation, groups=groups)
        return delivered(found, dtype, out)
    result = result_for((x, g), weight_shape, out, label)
    if result.size == 0:
        return delivered(result, dtype, out)
    if g.size == 0:
        zeros_where(result, None)
        return delivered(result, dtype, out)
    x, g = lifted(x), lifted(g)
    kernel = lifted_sizes(weight_shape[2:], 1)
    step, around, apart = lifted_sizes(stride, 1), lifted_sizes(padding, 0), lifted_sizes(dilation, 1)
    places: Triple = g.shape[2:]
    images, channels, made = x.shape[0], weight_shape[1], weight_shape[0] // groups
    sizes = _reach(places, kernel, step, apart)
    ones: Triple = (1, 1, 1)
    seen_by_each = channels * prod(kernel)
    as_it_is = prod(kernel) == 1 and around == (0, 0, 0) and step == (1, 1, 1)
    if as_it_is and groups == 1 and images * made * channels <= x.size + g.size:
        return delivered(_of_each_image(label, x, g, result), dtype, out)
    copied = _copied(sizes, places, made)
    if not copied and groups == 1 and runtime.tables and made >= BESIDE:
        found = _by_rows_of_planes(label, x, g, sizes, kernel, step, around, apart, result)
        return delivered(found, dtype, out)
    xs = spread(runtime, label, x, sizes, around, step, phases_of(kernel, step, apart))
    gs = spread(runtime, label, g, places if copied else sizes, (0, 0, 0), ones, ones)
    terms = _columns(images, places, gs.sizes)
    wide = is_wide(xs.memory, gs.memory)
    if copied:
        rows = seen(runtime, x.shape[1], sizes, xs.stride, kernel, step, apart, wide)
        columns = gathered(runtime, label, xs, rows, images, places, dtype, wide)
        b = Factor(columns, 0, 1, terms, (0, 0, seen_by_each * terms))
        wide = is_wide(columns, gs.memory)
    else:
        table = seen(runtime, channels, sizes, xs.stride, kernel, step, apart, wide)
        b = Factor(xs.memory, 0, 1, table, (0, 0, channels * prod(xs.phases) * xs.stride))
    parts = 1 if made * seen_by_each >= MANY_SUMS else max(min(4 * runtime.units, terms // PART), 1)
    to = runtime.empty((parts, *weight_shape), dtype, label) if parts > 1 else result
    a = Factor(gs.memory, 0, gs.stride, 1, (0, 0, made * gs.stride))
    there = Result(to.memory, to.offset, seen_by_each, made * seen_by_each)
    work = (made, seen_by_each, terms)
    runtime.multiply(label, Product(dtype, a, b, there, work, batch=(1, 1, groups), parts=parts, wide=wide))
    if parts > 1:
        summed(to, result)
    return delivered(result, dtype, out)


def _of_each_image(label: str, x: Buffer, g: Buffer, result: Buffer) -> Buffer:
    """The gradient by the weights of a kernel of one element: a product for each image, of images as they are."""
    x, g = in_rows(x), in_rows(g)
    runtime, images, places = x.memory.runtime, x.shape[0], prod(x.shape[2:])
    made, channels = g.shape[1], x.shape[1]
    parts = runtime.empty((images, made, channels), x.dtype, label) if images > 1 else result
    a = Factor(g.memory, g.offset, places, 1, (0, 0, made * places))
    b = Factor(x.memory, x.offset, 1, places, (0, 0, channels * places))
    there = Result(parts.memory, parts.offset, channels, made * channels)
    runtime.multiply(label, Product(x.dtype, a, b, there, (made, channels, places), batch=(1, 1, images)))
    if images > 1:
        summed(parts, result)
    return result


def _by_rows_of_planes(
    label: str,
    x: Buffer,
    g: Buffer,
    sizes: Triple,
    kernel: Triple,
    step: Triple,
    around: Triple,
    apart: Triple,
    result: Buffer,
) -> Buffer:
    """The gradient by the weights as rows of the planes times g with its channels last: neither is copied again."""
    runtime, made, images = x.memory.runtime, g.shape[1], x.shape[0]
    planes = spread(runtime, label, x, sizes, around, step, phases_of(kernel, step, apart))
    beside = interleaved(runtime, label, g, sizes)
    wide = is_wide(planes.memory, beside)
    table = seen(runtime, x.shape[1], sizes, planes.stride, kernel, step, apart, wide)
    weights, terms = x.shape[1] * prod(kernel), _columns(images, g.shape[2:], sizes)
    parts = max(min(-(-2 * runtime.units * ROWS // weights), terms // PART, images), 1)
    each = -(-images // parts) * prod(sizes)
    swapped = runtime.empty((parts, weights, made), x.dtype, label)
    for part in range(parts):
        some = min(each, terms - part * each)
        if some <= 0:  # the last images need no part of their own
            swapped = swapped.view((part, weights, made), swapped.strides)
            break
        a = Factor(planes.memory, part * each, table, 1)
        b = Factor(beside, part * each * made, made, 1)
        there = Result(swapped.memory, part * weights * made, made)
        runtime.multiply(label, Product(x.dtype, a, b, there, (weights, made, some), wide=wide))
    count = swapped.shape[0]
    if count > 1:
        several, swapped = swapped, runtime.empty((weights, made), x.dtype, label)
        summed(several, swapped)
    flat = swapped.view((made, weights), (1, made), 0)
    copy_into(flat, result.view((made, weights), (weights, 1)))
    return result


def summed(parts: Buffer, out: Buffer) -> None:
    """Enqueue the sum of results that lie one after another, rounded once to the dtype of `out`."""
    add = reduction_of(ops.sum, parts.dtype, out.dtype)
    assert add is not None
    flat = parts.view((parts.shape[0], out.size), (out.size, 1))
    add(parts.memory.runtime, flat, (0,), out)


def _named(n: int) -> None:
    """Register the kernels for n spatial axes."""
    plain, transposed, weights = f"conv{n}d", f"conv_transpose{n}d", f"conv{n}d_weight_gradient"

    @kernels.register(ops.TABLE[plain], out=True)
    def _plain(*given: Buffer, **settings: Any) -> Buffer:
        return convolve(plain, *given, **settings)

    @kernels.register(ops.TABLE[transposed], out=True)
    def _transposed(*given: Buffer, **settings: Any) -> Buffer:
        return convolve_back(transposed, *given, **settings)

    @kernels.register(ops.TABLE[weights], out=True)
    def _weights(*given: Buffer, **settings: Any) -> Buffer:
        return gradient_of_weight(weights, *given, **settings)


for _axes in (1, 2, 3):
    _named(_axes)
