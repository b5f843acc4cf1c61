"""Convolutions by cuDNN, or else as products by cuBLAS: images are written out as columns, as many as memory allows.

Halves are multiplied as they are, and sums are of float32. What cuBLAS does not multiply (integers) goes through the
shared kernels, which make no columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from math import prod
from typing import Any

from hal import ops
from hal.codegen.expressions import loaded, memory_type, stored, value_type
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.convolution import bias_of, result_for, summed
from hal.codegen.kernels.convolution_layout import lifted, lifted_sizes
from hal.codegen.kernels.layout import Shape
from hal.codegen.kernels.maps import items_for
from hal.codegen.kernels.movement import copied, in_rows, into
from hal.codegen.kernels.products import (
    INDEX,
    Factor,
    Product,
    Result,
    Triple,
    arguments_of,
    is_wide,
    source,
)
from hal.codegen.kernels.rows import wide_of
from hal.codegen.kernels.table import kernels as shared
from hal.plugin import DType, Spec
from hal_cuda.cudnn import by_cudnn
from hal_cuda.products import BY_LIBRARY
from hal_cuda.table import kernels

MOST = 1 << 28  # bytes of columns at a time


@cache
def _text(dtype: DType, wide: bool) -> str:
    place = "(p)", "(i)"
    macros = (
        ("T", memory_type(dtype)), ("VALUE", value_type(dtype)), ("INDEX", INDEX[wide].name),
        ("LOAD(p, i)", loaded(*place, dtype)), ("STORE(p, i, v)", stored(*place, "(v)", dtype).rstrip(";")),
    )  # fmt: skip
    return source("hal_cuda", "convolution.c", macros)


def _enqueue(label: str, name: str, dtype: DType, count: int, out: Buffer, arguments: list[Any], wide: bool) -> None:
    runtime = out.memory.runtime
    items, local, _ = items_for(runtime, count)
    kernel = runtime.programs.kernel(_text(dtype, wide), name, label)
    index = INDEX[wide].type
    runtime.launch(label, kernel, items, local, *arguments_of(index, count, *arguments), writes=(out.memory,))


class Window:
    """How an image and its columns belong together.

    Attributes:
        image: sizes of the image, z, y, x.
        places: from which the kernel sees it, z, y, x.
        kernel, step, around, apart: sizes of the kernel, stride, padding, dilation.
        as_it_is: whether the columns are the image itself.
    """

    def __init__(self, image: Shape, kernel: Shape, step: Triple, around: Triple, apart: Triple) -> None:
        self.image, self.kernel, self.step, self.around, self.apart = image, kernel, step, around, apart
        axes = zip(image, kernel, step, around, apart, strict=True)
        self.places: Shape = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
        self.as_it_is = prod(kernel) == 1 and step == (1, 1, 1) and around == (0, 0, 0)

    @property
    def settings(self) -> tuple[Triple, Triple, Triple]:
        """Padding, stride and dilation."""
        return self.around, self.step, self.apart

    def columns(self, label: str, x: Buffer, first: str) -> Buffer:
        """Images (N, C, Z, Y, X) as (N, C k, places), or with `first="rows"` as (C k, N, places)."""
        images, rows, places = x.shape[0], x.shape[1] * prod(self.kernel), prod(self.places)
        if self.as_it_is and first == "images":
            x = in_rows(x)
            return x.view((images, rows, places), (rows * places, places, 1))
        shape = (images, rows, places) if first == "images" else (rows, images, places)
        out = x.memory.runtime.empty(shape, x.dtype, label)
        of_image, of_row = (rows * places, places) if first == "images" else (places, images * places)
        wide = is_wide(x.memory, out.memory)
        arguments = [
            x.memory, x.offset, *x.strides, *self.image, *self.around, *self.step, *self.apart, *self.kernel, rows,
            out.memory, of_image, of_row, *self.places,
        ]  # fmt: skip
        _enqueue(label, "columns", x.dtype, out.size, out, arguments, wide)
        return out

    def images(self, label: str, columns: Buffer, bias: Buffer | None, out: Buffer) -> None:
        """The sums of columns (N, C k, places) of the wide dtype into images (N, C, Z, Y, X), which lie in rows."""
        rows, places = columns.shape[1:]
        wide = is_wide(columns.memory, out.memory)
        of_bias = (columns.memory, 0, 0, 0) if bias is None else (bias.memory, bias.offset, bias.strides[0], 1)
        arguments = [
            columns.memory, rows * places, places, *self.places, *self.around, *self.step, *self.apart, *self.kernel,
            *of_bias, out.memory, out.offset, out.shape[1], *self.image,
        ]  # fmt: skip
        _enqueue(label, "images", out.dtype, out.size, out, arguments, wide)

    def portions(self, x: Buffer, channels: int, itemsize: int) -> Iterator[slice]:
        """The images whose columns are made at a time."""
        images = x.shape[0]
        each = max(1, channels * prod(self.kernel) * prod(self.places) * itemsize)
        some = images if self.as_it_is else max(1, min(images, MOST // each))
        for first in range(0, images, some):
            yield slice(first, min(first + some, images))


def _part(x: Buffer, which: slice) -> Buffer:
    """Some of the images of a batch."""
    return x.view((which.stop - which.start, *x.shape[1:]), x.strides, x.offset + which.start * x.strides[0])


def convolve(
    label: str, x: Buffer, weight: Buffer, bias: Buffer | None = None, *,
    stride: Shape, padding: Shape, dilation: Shape, groups: int, out: Buffer | None = None,
) -> Buffer:  # fmt: skip
    """The convolution of images (N, C, *spatial) with weights (C_out, C / groups, *kernel)."""
    axes = len(x.shape) - 2
    x, weight = lifted(x), in_rows(lifted(weight))
    window = Window(
        x.shape[2:], weight.shape[2:], lifted_sizes(stride, 1), lifted_sizes(padding, 0), lifted_sizes(dilation, 1)
    )
    total, made, places = weight.shape[0], weight.shape[0] // groups, prod(window.places)
    terms = weight.shape[1] * prod(window.kernel)
    result = result_for((x, weight, bias), (x.shape[0], total, *window.places[3 - axes :]), out, label)
    if by_cudnn(label, "y", x, weight, lifted(result), bias, axes, *window.settings):
        return into(result, out)
    for which in window.portions(x, x.shape[1], x.dtype.itemsize):
        columns = window.columns(label, _part(x, which), "images")
        images = columns.shape[0]
        product = Product(
            x.dtype,
            Factor(weight.memory, weight.offset, terms, 1, (0, 0, made * terms)),
            Factor(columns.memory, columns.offset, places, 1, (0, groups * terms * places, terms * places)),
            Result(result.memory, result.offset + which.start * total * places, places, made * places),
            (made, places, terms),
            (1, images, groups),
            bias_of(bias, made),
        )
        result.memory.runtime.multiply(label, product)
    return into(result, out)


def convolve_back(
    label: str, x: Buffer, weight: Buffer, bias: Buffer | None = None, *,
    stride: Shape, padding: Shape, output_padding: Shape, dilation: Shape, groups: int, out: Buffer | None = None,
) -> Buffer:  # fmt: skip
    """The transposed convolution of images (N, C_in, *spatial) with weights (C_in, C_out / groups, *kernel)."""
    axes = len(x.shape) - 2
    x, weight = in_rows(lifted(x)), in_rows(lifted(weight))
    kernel, step = weight.shape[2:], lifted_sizes(stride, 1)
    around, apart, extra = lifted_sizes(padding, 0), lifted_sizes(dilation, 1), lifted_sizes(output_padding, 0)
    along = zip(x.shape[2:], kernel, step, around, apart, extra, strict=True)
    full = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 + e for n, k, s, p, d, e in along)
    window = Window(full, kernel, step, around, apart)
    window.places = x.shape[2:]  # padding of the output may leave room for one more
    made, channels = weight.shape[1], x.shape[1] // groups
    rows, places = made * prod(kernel), prod(x.shape[2:])
    result = result_for((x, weight, bias), (x.shape[0], made * groups, *full[3 - axes :]), out, label)
    whole = lifted(result)
    wide = wide_of(x.dtype)
    once = bias is None or wide is x.dtype  # no engine of cuDNN's adds a bias here, and halves are to be rounded once
    if once and by_cudnn(label, "x", whole, weight, x, None, axes, *window.settings):
        if bias is not None:
            _add(result, bias)
        return into(result, out)
    for which in window.portions(x, made * groups, wide.itemsize):
        part = _part(x, which)
        images = part.shape[0]
        columns = x.memory.runtime.empty((images, groups * rows, places), wide, label)
        product = Product(
            x.dtype,
            Factor(weight.memory, weight.offset, 1, rows, (0, 0, channels * rows)),
            Factor(part.memory, part.offset, places, 1, (0, groups * channels * places, channels * places)),
            Result(columns.memory, columns.offset, places, rows * places),
            (rows, places, channels),
            (1, images, groups),
            out_dtype=wide,
        )
        x.memory.runtime.multiply(label, product)
        window.images(label, columns, bias, _part(whole, which))
    return into(result, out)


def gradient_of_weight(
    label: str, x: Buffer, g: Buffer, *,
    weight_shape: Shape, stride: Shape, padding: Shape, dilation: Shape, groups: int, out: Buffer | None = None,
) -> Buffer:  # fmt: skip
    """The gradient by the weights: what each element of the kernel saw, times the result's gradient."""
    x, g = lifted(x), lifted(g)
    runtime, kernel = x.memory.runtime, lifted_sizes(weight_shape[2:], 1)
    window = Window(x.shape[2:], kernel, lifted_sizes(stride, 1), lifted_sizes(padding, 0), lifted_sizes(dilation, 1))
    window.places = g.shape[2:]
    made, terms, places = weight_shape[0] // groups, weight_shape[1] * prod(kernel), prod(g.shape[2:])
    result = result_for((x, g), weight_shape, out, label)
    if by_cudnn(label, "w", x, lifted(result), g, None, len(weight_shape) - 2, *window.settings):
        return into(result, out)
    portions = list(window.portions(x, x.shape[1], x.dtype.itemsize))
    wide = wide_of(x.dtype)
    parts = runtime.empty((len(portions), *weight_shape), wide, label) if len(portions) > 1 else result
    for i, which in enumerate(portions):
        columns = window.columns(label, _part(x, which), "rows")
        some = _part(g, which)
        images = some.shape[0]
        turned = copied(
            some.view((g.shape[1], images, *g.shape[2:]), (some.strides[1], some.strides[0], *some.strides[2:]))
        )
        length = images * places
        product = Product(
            x.dtype,
            Factor(turned.memory, turned.offset, length, 1, (0, 0, made * length)),
            Factor(columns.memory, columns.offset, 1, length, (0, 0, terms * length)),
            Result(parts.memory, parts.offset + i * prod(weight_shape), terms, made * terms),
            (made, terms, length),
            (1, 1, groups),
            out_dtype=parts.dtype,
        )
        runtime.multiply(label, product)
    if len(portions) > 1:
        summed(parts, result)
    return into(result, out)


def _add(result: Buffer, bias: Buffer) -> None:
    """Add to each channel of images its own number."""
    ones = len(result.shape) - 2
    numbers = bias.view((*bias.shape, *(1,) * ones), (*bias.strides, *(0,) * ones))
    add = shared.find(ops.add, (result.spec, numbers.spec), {})
    assert add is not None
    add.run(result, numbers, out=result)


def _takes(*specs: Spec, **settings: Any) -> bool:
    """Whether all sizes are there and cuBLAS multiplies the dtype."""
    x, other = specs[:2]
    return x.dtype in BY_LIBRARY and x.size > 0 and other.size > 0 and 0 not in settings.get("weight_shape", ())


def _register(name: str, run: Callable[..., Buffer]) -> None:
    @kernels.register(ops.TABLE[name], when=_takes, out=True)
    def _kernel(*given: Buffer, **settings: Any) -> Buffer:
        return run(name, *given, **settings)


for _n in (1, 2, 3):
    _register(f"conv{_n}d", convolve)
    _register(f"conv_transpose{_n}d", convolve_back)
    _register(f"conv{_n}d_weight_gradient", gradient_of_weight)
