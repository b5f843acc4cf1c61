"""Pooling in NumPy: one axis after another, each by as many whole-array steps as the window is long along it.

Along an axis, element j of all windows is one strided view of the array, so no window is ever gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cpu.images_last import empty, lie_last, turned
from hal_cpu.parallel import in_parts, scratch
from hal_cpu.precision import working
from hal_cpu.table import kernels

Sizes = tuple[int, ...]

BLOCK = 1 << 18  # elements at a time: what one step wrote is in the cache for the next, and each step is worth a call


class Axis(NamedTuple):
    """Windows along one axis: window i sees i * stride + j * dilation - padding for j in the kernel."""

    size: int
    out: int
    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def overlaps(self) -> bool:
        """Whether an element can be in more than one window."""
        return self.stride < (self.kernel - 1) * self.dilation + 1

    def pieces(self) -> list[tuple[slice, slice]]:
        """For each j: the windows in which it is inside the array, and where it is there."""
        found = []
        for j in range(self.kernel):
            at = j * self.dilation - self.padding
            low = max(-(at // self.stride), 0)
            high = min(-((at - self.size) // self.stride), self.out)
            if low < high:
                start = at + low * self.stride
                found.append((slice(low, high), slice(start, start + (high - low - 1) * self.stride + 1, self.stride)))
        return found


def _along(x: Array, axis: int, cut: slice) -> Array:
    return x[(slice(None),) * axis + (cut,)]


@lru_cache(maxsize=256)
def _axes(
    sizes: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool
) -> tuple[Axis, ...]:
    found = []
    for size, k, s, p, d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        out = (size + 2 * p - d * (k - 1) - 1 + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (out - 1) * s >= size + p:
            out -= 1
        found.append(Axis(size, out, k, s, p, d))
    return tuple(found)


def _reduce(ufunc: np.ufunc, start: Any, x: Array, number: int, axis: Axis, out: Array) -> None:
    """Combine the elements of each window along the axis with this number into `out`."""
    pieces = axis.pieces()
    whole = [i for i, (windows, _) in enumerate(pieces) if windows == slice(0, axis.out)]
    if len(whole) >= 2:
        first, second = (_along(x, number, pieces.pop(i)[1]) for i in reversed(whole[:2]))
        ufunc(second, first, out=out)
    elif whole:
        np.copyto(out, _along(x, number, pieces.pop(whole[0])[1]))
    else:
        out.fill(start)
    for windows, places in pieces:
        target = _along(out, number, windows)
        ufunc(target, _along(x, number, places), out=target)


def _block(images: Array, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
    """Some of the images, in the type to compute in."""
    chosen = images[start:stop]
    if chosen.dtype == dtype:
        return chosen
    converted = scratch("pooling input", chosen.shape, dtype)
    np.copyto(converted, chosen, casting="unsafe")
    return converted


def _pooled(
    ufunc: np.ufunc,
    start: Any,
    x: Array,
    axes: tuple[Axis, ...],
    out: Array | None,
    finish: Callable[[Array], None] | None = None,
) -> Array:
    """Combine the elements of each window; `finish` may change blocks of results in place."""
    shape = (*x.shape[:2], *(a.out for a in axes))
    kind = working(x.dtype)
    last = lie_last(x)
    images = _images(x, last)
    result, flat = _target(shape, x.dtype, last, out)
    direct = flat.dtype == kind
    at_once = max(BLOCK // max(prod(images.shape[1:]), 1), 1)

    def part(first: int, stop: int) -> None:
        for low in range(first, stop, at_once):
            high = min(low + at_once, stop)
            current = _block(images, low, high, kind)
            for number, axis in enumerate(axes, 1):
                sizes = (*current.shape[:number], axis.out, *current.shape[number + 1 :])
                is_last = number == len(axes)
                target = flat[low:high] if direct and is_last else scratch(f"pooling {number % 2}", sizes, kind)
                _reduce(ufunc, start, current, number, axis, target)
                current = target
            if finish is not None:
                finish(current)
            if not direct:
                np.copyto(flat[low:high], current, casting="unsafe")

    in_parts(part, len(images), 2.0 * x.size * len(axes))
    return _delivered(result, out)


def _images(x: Array, last: bool) -> Array:
    """(N, C, places...) as planes to pool one after another, (n, places...), or (C, places..., N) if they lie last."""
    return np.ascontiguousarray(turned(x)) if last else x.reshape(-1, *x.shape[2:])


def _target(shape: Sizes, dtype: np.dtype[Any], last: bool, out: Array | None) -> tuple[Array, Array]:
    """Where to compute, and the same as `_images`: in `out` if that lies as it should."""
    if last:
        result = out if out is not None and lie_last(out) else empty(shape, dtype)
        return result, turned(result)
    result = out if out is not None and out.flags.c_contiguous else np.empty(shape, dtype)
    return result, result.reshape(-1, *shape[2:])


def _delivered(result: Array, out: Array | None) -> Array:
    if out is None or result is out:
        return result
    np.copyto(out, result)
    return out


def _lowest(dtype: np.dtype[Any]) -> Any:
    return np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


# Max pooling.


def max_pool(
    x: Array,
    *,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    out: Array | None = None,
) -> Array:
    """The maximum of each window."""
    axes = _axes(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    return _pooled(np.maximum, _lowest(x.dtype), x, axes, out)


def _windows(axes: tuple[Axis, ...]) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """For each place in the kernel, in row-major order: the windows in which it is inside the array, and where."""
    every = (slice(None),)
    return [
        (every + tuple(w for w, _ in piece), every + tuple(p for _, p in piece))
        for piece in product(*(axis.pieces() for axis in axes))
    ]


def _to_first(left: Array, seen: Array, axes: tuple[Axis, ...], out: Array) -> None:
    """Add each element of `left` to the first maximum in its window of `seen`.

    Each place of the kernel is copied into an array of its own, so that what follows runs over memory in one piece.
    What has been given away is taken from `left`, so that it goes to one element only. It is done on the bits, since
    NumPy's masked copies branch at each element: five times slower where the mask is as good as random (measured).
    """
    places = _windows(axes)
    planes = scratch("pooling planes", (len(places), *left.shape), left.dtype)
    for plane, (windows, spots) in zip(planes, places, strict=True):
        if plane[windows].size < plane.size:
            plane.fill(_lowest(plane.dtype))
        np.copyto(plane[windows], seen[spots])
    top = scratch("pooling top", left.shape, left.dtype)
    np.maximum.reduce(planes, axis=0, out=top)
    bits = np.dtype(f"u{left.dtype.itemsize}")
    hit, ones = scratch("pooling hits", left.shape, np.bool_), scratch("pooling ones", left.shape, bits)
    rest = left.view(bits)
    overlaps = any(axis.overlaps for axis in axes)
    if overlaps or sum(plane[windows].size for plane, (windows, _) in zip(planes, places, strict=True)) < seen.size:
        out.fill(0)
    for plane, (windows, spots) in zip(planes, places, strict=True):
        np.equal(plane, top, out=hit)
        np.copyto(ones, hit)
        np.multiply(rest, ones, out=ones)
        np.bitwise_xor(rest, ones, out=rest)
        target, part = out[spots], ones.view(left.dtype)[windows]
        if overlaps:
            np.add(target, part, out=target)
        else:
            np.copyto(target, part)


def max_pool_gradient(
    g: Array,
    x: Array,
    *,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    out: Array | None = None,
) -> Array:
    """The gradient of max_pool: to the first maximum, in row-major order, of each window."""
    axes = _axes(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    kind = working(x.dtype)
    last = lie_last(x)
    images, incoming = _images(x, last), _images(g, last)
    result, flat = _target(x.shape, x.dtype, last, out)
    direct = flat.dtype == kind
    at_once = max(BLOCK // max(prod(incoming.shape[1:]) * prod(kernel), 1), 1)

    def part(first: int, stop: int) -> None:
        for low in range(first, stop, at_once):
            high = min(low + at_once, stop)
            left = scratch("pooling left", (high - low, *incoming.shape[1:]), kind)
            np.copyto(left, incoming[low:high], casting="unsafe")
            target = flat[low:high] if direct else scratch("pooling 0", flat[low:high].shape, kind)
            _to_first(left, _block(images, low, high, kind), axes, target)
            if not direct:
                np.copyto(flat[low:high], target, casting="unsafe")

    in_parts(part, len(images), 8.0 * g.size * prod(kernel))
    return _delivered(result, out)


# Average pooling.


def _shares(axes: tuple[Axis, ...], count_include_pad: bool) -> Array | float:
    """By what the sums of the windows are multiplied: one number if all are the same, else one for each window."""
    result: Array = np.ones(())
    for axis in axes:
        low, high = (-axis.padding, axis.size + axis.padding) if count_include_pad else (0, axis.size)
        starts = np.arange(axis.out) * axis.stride - axis.padding
        counts = np.minimum(starts + axis.kernel, high) - np.maximum(starts, low)
        result = result[..., None] * (counts if np.ptp(counts) else counts[:1])
    return 1 / (result if result.size > 1 else float(result.reshape(())))


def avg_pool(
    x: Array,
    *,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    out: Array | None = None,
) -> Array:
    """The mean of each window."""
    axes = _axes(x.shape[2:], kernel, stride, padding, (1,) * len(kernel), ceil_mode)
    share = np.asarray(_shares(axes, count_include_pad), working(x.dtype))

    def finish(block: Array) -> None:
        np.multiply(block, share if block.ndim == len(axes) + 1 else share[..., None], out=block)

    return _pooled(np.add, 0, x, axes, out, finish)


def _spread(g: Array, number: int, axis: Axis, out: Array) -> None:
    """Give each element of `g` to all elements of its window along one axis, summed where windows overlap."""
    pieces = axis.pieces()
    if axis.overlaps or sum(windows.stop - windows.start for windows, _ in pieces) < axis.size:
        out.fill(0)
    for windows, places in pieces:
        target = _along(out, number, places)
        if axis.overlaps:
            np.add(target, _along(g, number, windows), out=target)
        else:
            np.copyto(target, _along(g, number, windows))


def avg_pool_gradient(
    g: Array,
    *,
    sizes: Sizes,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    ceil_mode: bool,
    count_include_pad: bool,
    out: Array | None = None,
) -> Array:
    """The gradient of avg_pool: each window's share to all its elements."""
    axes = _axes(sizes, kernel, stride, padding, (1,) * len(kernel), ceil_mode)
    shape = (*g.shape[:2], *sizes)
    kind = working(g.dtype)
    last = lie_last(g)
    share = np.asarray(_shares(axes, count_include_pad), kind)
    share = share[..., None] if last else share
    incoming = _images(g, last)
    result, flat = _target(shape, g.dtype, last, out)
    direct = flat.dtype == kind
    at_once = max(BLOCK // max(prod(flat.shape[1:]), 1), 1)

    def part(first: int, stop: int) -> None:
        for low in range(first, stop, at_once):
            high = min(low + at_once, stop)
            current = scratch("pooling shares", (high - low, *incoming.shape[1:]), kind)
            np.multiply(incoming[low:high], share, out=current)
            for number, axis in enumerate(axes, 1):
                grown = (*current.shape[:number], axis.size, *current.shape[number + 1 :])
                is_last = number == len(axes)
                target = flat[low:high] if direct and is_last else scratch(f"pooling {number % 2}", grown, kind)
                _spread(current, number, axis, target)
                current = target
            if not direct:
                np.copyto(flat[low:high], current, casting="unsafe")

    in_parts(part, len(incoming), 2.0 * prod(shape) * len(axes))
    return _delivered(result, out)


for _op in (ops.max_pool1d, ops.max_pool2d, ops.max_pool3d):
    kernels.register(_op, out=True)(max_pool)
for _op in (ops.max_pool1d_gradient, ops.max_pool2d_gradient, ops.max_pool3d_gradient):
    kernels.register(_op, out=True)(max_pool_gradient)
for _op in (ops.avg_pool1d, ops.avg_pool2d, ops.avg_pool3d):
    kernels.register(_op, out=True)(avg_pool)
for _op in (ops.avg_pool1d_gradient, ops.avg_pool2d_gradient, ops.avg_pool3d_gradient):
    kernels.register(_op, out=True)(avg_pool_gradient)
