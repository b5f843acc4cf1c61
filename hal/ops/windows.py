"""What convolutions and poolings share: how many windows fit, which settings make sense, and windows by `take`.

A window is what a kernel sees at one place. Arrays have the layout N, C, then one to three spatial axes.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.errors import SettingError, ShapeError
from hal.op import Array
from hal.ops.steps import cut, widen
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor

Sizes = tuple[int, ...]

LAYOUT = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}


def check_layout(who: str, x: Spec, n: int) -> None:
    """Raise ShapeError unless `x` has a batch axis, a channel axis, and `n` spatial axes."""
    if x.ndim == n + 1:
        raise ShapeError(
            f"{who} needs an input of layout {LAYOUT[n]}, got {x.shape}: if that is one image without a batch axis, "
            "give it one with x.unsqueeze(0)"
        )
    if x.ndim != n + 2:
        raise ShapeError(f"{who} needs an input of layout {LAYOUT[n]}, got {x.shape} with {x.ndim} axes")


def check_tuples(who: str, n: int, least: int, **settings: Any) -> None:
    """Raise SettingError unless each setting is a tuple of `n` whole numbers, none below `least`."""
    for name, value in settings.items():
        if not isinstance(value, tuple) or len(value) != n or not all(isinstance(v, int) for v in value):
            axes = LAYOUT[n].removeprefix("(N, C, ").removesuffix(")")
            cure = (
                f"write ({', '.join([str(value)] * n)}{',' * (n == 1)})"
                if isinstance(value, int)
                else "see the op's page"
            )
            raise SettingError(f"{who} needs {name}= as a tuple of {n} whole numbers ({axes}), got {value!r}; {cure}")
        if min(value) < least:
            raise SettingError(f"{who} needs {name}= of {least} or more, got {value}")


def extent(kernel: Sizes, dilation: Sizes) -> Sizes:
    """How far a window reaches: the kernel's size with the gaps of dilation."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))


def fit_windows(
    who: str, sizes: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool = False
) -> Sizes:
    """How many windows fit along each axis of `sizes`, padded on both sides.

    With `ceil_mode` one more window may hang over the end, if it starts inside the input or the padding before it.

    Raises:
        ShapeError: not even one fits.

    Source: the shape formulas of torch.nn.Conv2d and torch.nn.MaxPool2d.
    """
    out = []
    for size, reach, s, p in zip(sizes, extent(kernel, dilation), stride, padding, strict=True):
        if size + 2 * p < reach:
            raise ShapeError(
                f"{who} has a window of {extent(kernel, dilation)} (kernel {kernel}, dilation {dilation}), which does "
                f"not fit into an input {LAYOUT[len(sizes)]} of spatial sizes {sizes} with padding {padding}: make the "
                "input or the padding larger, or the kernel smaller"
            )
        count = (size + 2 * p - reach + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (count - 1) * s >= size + p:
            count -= 1
        out.append(count)
    return tuple(out)


def overhang(sizes: Sizes, out: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> Sizes:
    """How much padding the last windows need at the end: more if they hang over it, less if they stop short."""
    reaches = extent(kernel, dilation)
    return tuple(
        (o - 1) * s + reach - size - p
        for size, o, s, p, reach in zip(sizes, out, stride, padding, reaches, strict=True)
    )


# In ops, for decompositions.


def pad_spatial(x: Tensor, low: Sizes, high: Sizes, value: bool | int | float = 0) -> Tensor:
    """`x` with its spatial axes padded, or cut where a number is negative."""
    for axis, (before, after) in enumerate(zip(low, high, strict=True), start=2):
        x = cut(x, axis, max(-before, 0), x.shape[axis] - max(-after, 0))
    if not any(n > 0 for n in (*low, *high)):
        return x
    padding = ((0, 0), (0, 0), *((max(b, 0), max(a, 0)) for b, a in zip(low, high, strict=True)))
    return ops.pad(x, padding=padding, value=value)


def window_index(sizes: Sizes, out: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes, device: Any) -> Tensor:
    """Where the elements of all windows lie in a flattened image of `sizes`: int64 (prod(kernel), prod(out))."""
    along = []
    for o, k, s, d in zip(out, kernel, stride, dilation, strict=True):
        start = ops.iota(size=o, dtype=dtypes.int64, device=device) * s
        inside = ops.iota(size=k, dtype=dtypes.int64, device=device) * d
        along.append(ops.reshape(inside, shape=(k, 1)) + start)
    return flat_index(sizes, along)


def flat_index(sizes: Sizes, along: list[Tensor]) -> Tensor:
    """Positions in a flattened image, from those along each axis: of (k, o) for each, (prod of k, prod of o)."""
    index, *others = in_all_axes(along)
    for size, positions in zip(sizes[1:], others, strict=True):
        index = index * size + positions
    return in_two_axes(index)


def in_all_axes(along: list[Tensor]) -> list[Tensor]:
    """Arrays (k, o), one for each spatial axis, shaped so that they broadcast to (k1, k2, ..., o1, o2, ...)."""
    n = len(along)
    return [
        ops.reshape(x, shape=tuple(x.shape[j // n] if j % n == i else 1 for j in range(2 * n)))
        for i, x in enumerate(along)
    ]


def in_two_axes(x: Tensor) -> Tensor:
    """(k1, k2, ..., o1, o2, ...) as (prod of k, prod of o)."""
    n = x.ndim // 2
    return ops.reshape(x, shape=(prod(x.shape[:n]), prod(x.shape[n:])))


def windows(x: Tensor, out: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Tensor:
    """All windows of an `x` that is padded already: (N, C, prod(kernel), prod(out))."""
    sizes = x.shape[2:]
    flat = ops.reshape(x, shape=(*x.shape[:2], prod(sizes)))
    return ops.take(flat, window_index(sizes, out, kernel, stride, dilation, x.device), axis=2)


def grow(x: Tensor, spacing: Sizes) -> Tensor:
    """`x` with zeros between its elements, so that neighbours lie `spacing` apart: sizes become (n - 1) s + 1."""
    for axis, step in enumerate(spacing, start=2):
        size = x.shape[axis]
        if step == 1 or size == 0:
            continue
        spaced = ops.reshape(x, shape=(*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
        spaced = widen(spaced, axis + 1, 0, step - 1)
        spaced = ops.reshape(spaced, shape=(*x.shape[:axis], size * step, *x.shape[axis + 1 :]))
        x = cut(spaced, axis, 0, (size - 1) * step + 1)
    return x


def flip_spatial(x: Tensor) -> Tensor:
    """`x` with its spatial axes reversed."""
    start = (0, 0, *(n - 1 for n in x.shape[2:]))
    stop = (*x.shape[:2], *(-1 for _ in x.shape[2:]))
    return ops.slice(x, start=start, stop=stop, step=(1, 1, *(-1 for _ in x.shape[2:])))


# In NumPy, for references.


def padded(x: Array, low: Sizes, high: Sizes, value: Any = 0) -> Array:
    """`x` with its spatial axes padded, or cut where a number is negative."""
    for axis, (before, after) in enumerate(zip(low, high, strict=True), start=2):
        x = x[(slice(None),) * axis + (slice(max(-before, 0), x.shape[axis] - max(-after, 0)),)]
    around = [(0, 0), (0, 0), *((max(b, 0), max(a, 0)) for b, a in zip(low, high, strict=True))]
    return np.pad(x, around, constant_values=value)


def offsets(kernel: Sizes) -> list[Sizes]:
    """The places in a kernel, in row-major order."""
    return list(product(*map(range, kernel)))


def at(place: tuple[Any, ...]) -> tuple[Any, ...]:
    """The index of one place (or slices) along the spatial axes, for arrays with two axes before those."""
    return (slice(None), slice(None), *place)


def seen_from(place: Sizes, out: Sizes, stride: Sizes, dilation: Sizes) -> tuple[Any, ...]:
    """The slices of a padded array that the kernel's element at `place` meets in all windows."""
    steps = zip(place, out, stride, dilation, strict=True)
    return at(tuple(slice(k * d, k * d + (o - 1) * s + 1, s) for k, o, s, d in steps))
