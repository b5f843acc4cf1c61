"""What a kernel sees, as the columns of a matrix (im2col), in blocks that stay in the cache.

It is done in two steps: first all horizontal shifts of the rows that are needed, in short pieces, then all vertical
shifts of those, which for a stride of one are whole images in one piece. Places outside the image are zero.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from hal.plugin import Array
from hal.plugin import blas_threads as threads
from hal_cpu.parallel import scratch

Pair = tuple[int, int]

BLOCK = 2 << 20  # bytes of columns at a time: large enough that a block is worth its calls, and still in the cache


class Windows(NamedTuple):
    """Where windows lie over images: place p of the result sees start + p * stride + k * dilation, k in the kernel."""

    kernel: Pair
    out: Pair
    start: Pair
    stride: Pair
    dilation: Pair


class Block(NamedTuple):
    """A range of images, and a range of rows of the result."""

    n0: int
    n1: int
    y0: int
    y1: int


def blocks(images: int, windows: Windows, bytes_per_row: int, smallest: int = 1) -> list[Block]:
    """Blocks of about BLOCK bytes of columns: several images, or parts of one; at least one for each thread.

    Args:
        bytes_per_row: of the columns, for one row of one result.
        smallest: how many places of the result a block should have at least, if there are as many.
    """
    rows, width = windows.out
    per_image = max(rows * bytes_per_row, 1)
    most = max(BLOCK // per_image, -(-smallest // (rows * width)), 1)
    if per_image > 2 * BLOCK or images < threads():
        at_once = max(BLOCK // max(bytes_per_row, 1), -(-smallest // width), 1)
        at_once = min(at_once, -(-rows // -(-threads() // max(images, 1))))
        parts = -(-rows // at_once)
        edges = [i * rows // parts for i in range(parts + 1)]
        return [Block(n, n + 1, y0, y1) for n in range(images) for y0, y1 in pairwise(edges)]
    parts = -(-images // most)
    parts = -(-parts // threads()) * threads() if images >= threads() else parts
    parts = min(parts, images)
    edges = [i * images // parts for i in range(parts + 1)]
    return [Block(n0, n1, 0, rows) for n0, n1 in pairwise(edges)]


def fold(parts: Array, stride: Pair, dilation: Pair, out: Array) -> None:
    """Add what each window has for each of its elements into `out`, the reverse of `columns` for whole images.

    Args:
        parts: (N, C, kH, kW, rows, width).
        out: (N, C, at least as high and wide as all windows together); what it held is lost.
    """
    images, channels, kh, kw, rows, width = parts.shape
    (sh, sw), (dh, dw) = stride, dilation
    shifted = scratch("columns of rows", (images, channels, kw, out.shape[2], width), parts.dtype)
    shifted.fill(0)
    for i in range(kh):
        shifted[:, :, :, i * dh : i * dh + (rows - 1) * sh + 1 : sh] += parts[:, :, i]
    out.fill(0)
    for j in range(kw):
        out[..., j * dw : j * dw + (width - 1) * sw + 1 : sw] += shifted[:, :, j]


def columns(x: Array, windows: Windows, y0: int, y1: int, merge: bool) -> Array:
    """The columns of rows y0 to y1 of the result, in scratch memory.

    Returns:
        (N, C, kH, kW, rows, width), or with `merge` (C, kH, kW, N, rows, width).
    """
    (kh, kw), (_, width), (top, left), (sh, sw), (dh, dw) = windows
    images, channels, height, across = x.shape
    rows = y1 - y0
    # The rows that are needed: all from the first to the last, or for a kernel of height 1 only those that it meets.
    step, tall = (sh, rows) if kh == 1 else (1, (rows - 1) * sh + (kh - 1) * dh + 1)
    first = top + y0 * sh
    above = min(max(-(first // step), 0), tall)  # how many of them lie above the image, and how many below
    below = min(max(tall - max(-((first - height) // step), 0), 0), tall - above)
    shape = (images, channels, kw, tall, width)
    shifted = scratch("columns of rows" if kh > 1 or merge else "columns", shape, x.dtype)
    if above:
        shifted[:, :, :, :above] = 0
    if below:
        shifted[:, :, :, tall - below :] = 0
    inside = slice(above, tall - below)
    seen = x[:, :, first + above * step : max(first + (tall - below - 1) * step + 1, 0) : step]
    for j in range(kw if above + below < tall else 0):
        begin = left + j * dw
        before = min(max(-(begin // sw), 0), width)
        after = min(max(width - max(-((begin - across) // sw), 0), 0), width - before)
        target = shifted[:, :, j, inside]
        if before:
            target[..., :before] = 0
        if after:
            target[..., width - after :] = 0
        if before + after < width:
            last = begin + (width - after - 1) * sw
            target[..., before : width - after] = seen[..., begin + before * sw : last + 1 : sw]
    if kh == 1 and not merge:
        return shifted.reshape(images, channels, 1, kw, rows, width)
    of_image, of_channel, of_shift, of_row, of_place = shifted.strides
    down, stride = (0, of_row) if kh == 1 else (dh * of_row, sh * of_row)
    every = (images, channels, kh, kw, rows, width)
    view = as_strided(shifted, every, (of_image, of_channel, down, of_shift, stride, of_place), writeable=False)
    if merge:
        view = view.transpose(1, 2, 3, 0, 4, 5)
    result = scratch("columns", view.shape, x.dtype)
    np.copyto(result, view)
    return result
