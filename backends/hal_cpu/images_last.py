"""Convolutions of images that lie last in memory: row by row of a channel, and for each place all images side by side.

What a kernel sees of a row is then one long piece for all images, so columns are copied in long pieces, and products
are as wide as a row is long. A network whose first convolution takes few channels stays in this layout until its
images are flattened: what is done element by element, pooling and normalisation keep it.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from hal.plugin import Array
from hal_cpu.columns import Pair, Windows
from hal_cpu.parallel import in_parts, scratch

LEAST = 16  # images from which it pays
FEW = 4  # channels up to which images are turned for it: the colours of a picture
BLOCK = 1 << 19  # bytes of columns at a time (measured)


def lie_last(x: Array) -> bool:
    """Whether the images of (N, C, places...) lie last in memory."""
    return x.ndim > 2 and x.shape[0] >= LEAST and turned(x).flags.c_contiguous


def turned(x: Array) -> Array:
    """(N, C, places...) as (C, places..., N)."""
    return x.transpose(*range(1, x.ndim), 0)


def turned_back(x: Array) -> Array:
    """(C, places..., N) as (N, C, places...)."""
    return x.transpose(x.ndim - 1, *range(x.ndim - 1))


def empty(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """New memory for (N, C, places...) with the images last."""
    return turned_back(np.empty((*shape[1:], shape[0]), dtype))


def suits(x: Array, groups: int) -> bool:
    """Whether a convolution of `x` is to give images that lie last: where they do, or pictures are easily turned."""
    if groups > 1 or x.shape[0] < LEAST or x.dtype.itemsize < 4 or 0 in x.shape:
        return False
    return x.shape[1] <= FEW or lie_last(x)


def _work(products: int, elements: int) -> float:
    """How much work so many products, and making so many elements of columns, are to `in_parts`."""
    return products / 40 + elements / 8


class _Seen:
    """What a kernel sees of images that lie last, in blocks of rows of the result."""

    def __init__(self, x: Array, windows: Windows) -> None:
        channels, height, width, images = turned(x).shape
        (kh, kw), (rows, across), (top, left), (sh, sw), (dh, dw) = windows
        need = (rows - 1) * sh + (kh - 1) * dh + 1, (across - 1) * sw + (kw - 1) * dw + 1
        if (top, left) == (0, 0) and need[0] <= height and need[1] <= width:
            self.image = np.ascontiguousarray(turned(x))
        else:
            self.image = np.zeros((channels, *need, images), x.dtype)
            ends = [(max(-s, 0), min(n - s, m)) for s, n, m in zip((top, left), (height, width), need, strict=True)]
            (y0, y1), (z0, z1) = ends
            self.image[:, y0:y1, z0:z1] = turned(x)[:, y0 + top : y1 + top, z0 + left : z1 + left]
        of_channel, of_row, of_place, of_image = self.image.strides
        self.shape = (channels, kh, kw, rows, across, images)
        self.strides = (of_channel, dh * of_row, dw * of_place, sh * of_row, sw * of_place, of_image)
        self.terms = channels * kh * kw
        self.per_row = across * images
        self.step = max(1, BLOCK // (self.terms * self.per_row * x.itemsize))
        self.blocks = [(y, min(y + self.step, rows)) for y in range(0, rows, self.step)]

    def columns(self, y0: int, y1: int) -> Array:
        """(terms, rows * width * N) for rows y0 to y1 of the result, in scratch memory."""
        channels, kh, kw, _, across, images = self.shape
        shape = (channels, kh, kw, y1 - y0, across, images)
        view = as_strided(self.image[:, y0 * (self.strides[3] // self.image.strides[1]) :], shape, self.strides)
        columns = scratch("columns", shape, self.image.dtype)
        np.copyto(columns, view)
        return columns.reshape(self.terms, -1)


def correlate(x: Array, weight: Array, bias: Array | None, windows: Windows, out: Array) -> None:
    """Write into `out`, whose images lie last, the products of `weight` (C_out, C_in, kH, kW) with all windows."""
    seen = _Seen(x, windows)
    made = weight.shape[0]
    rows = np.ascontiguousarray(weight).reshape(made, -1)
    flat = turned(out).reshape(made, -1)
    added = None if bias is None else bias.reshape(made, 1)

    def part(start: int, stop: int) -> None:
        for y0, y1 in seen.blocks[start:stop]:
            target = flat[:, y0 * seen.per_row : y1 * seen.per_row]
            np.matmul(rows, seen.columns(y0, y1), out=target)
            if added is not None:
                target += added

    in_parts(part, len(seen.blocks), _work(flat.size * seen.terms, flat.shape[1] * seen.terms))


def weight_gradient(x: Array, g: Array, windows: Windows, out: Array) -> None:
    """Write into `out` (C_out, C_in, kH, kW) the sums over all places of `g` times what the kernel sees there."""
    seen = _Seen(x, windows)
    made = g.shape[1]
    slopes = np.ascontiguousarray(turned(g)).reshape(made, -1)

    def part(start: int, stop: int) -> Array:
        total = np.zeros((seen.terms, made), g.dtype)
        for y0, y1 in seen.blocks[start:stop]:
            total += seen.columns(y0, y1) @ slopes[:, y0 * seen.per_row : y1 * seen.per_row].T
        return total

    first, *others = in_parts(part, len(seen.blocks), _work(slopes.size * seen.terms, slopes.shape[1] * seen.terms))
    for other in others:
        first += other
    np.copyto(out, first.T.reshape(out.shape))


def scatter(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair, out: Array
) -> None:
    """Write into `out` a transposed convolution: all that each element makes of `weight` (C_in, C_out, kH, kW)."""
    given, result = turned(x), turned(out)
    taken, rows, across, images = given.shape
    made, height, width, _ = result.shape
    kernel = weight.shape[2:]
    each = prod(kernel)
    by_term = np.ascontiguousarray(weight.reshape(taken, made * each).T)
    flat = given.reshape(taken, -1)
    reach = [(n - 1) * s + d * (k - 1) + 1 for n, k, s, d in zip((rows, across), kernel, stride, dilation, strict=True)]
    whole = max(reach[0], padding[0] + height), max(reach[1], padding[1] + width)
    step = max(1, 4 * BLOCK // (made * each * across * images * x.itemsize))  # each block is many short sums

    def part(start: int, stop: int) -> None:
        """Some channels of the result, which no others write."""
        total = scratch("total", (stop - start, *whole, images), x.dtype)
        total.fill(0)
        chosen = by_term[start * each : stop * each]
        for y0 in range(0, rows, step):
            y1 = min(y0 + step, rows)
            parts = scratch("columns", (stop - start, *kernel, y1 - y0, across, images), x.dtype)
            np.matmul(chosen, flat[:, y0 * across * images : y1 * across * images], out=parts.reshape(len(chosen), -1))
            for i in range(kernel[0]):
                first = y0 * stride[0] + i * dilation[0]
                lines = total[:, first : first + (y1 - y0 - 1) * stride[0] + 1 : stride[0]]
                for j in range(kernel[1]):
                    at = j * dilation[1]
                    target = lines[:, :, at : at + (across - 1) * stride[1] + 1 : stride[1]]
                    np.add(target, parts[:, i, j], out=target)
        inside = total[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
        if bias is None:
            np.copyto(result[start:stop], inside)
        else:
            np.add(inside, bias[start:stop].reshape(-1, 1, 1, 1), out=result[start:stop])

    in_parts(part, made, _work(flat.size * made * each, 3 * flat.shape[1] * made * each))
