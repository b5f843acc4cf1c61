"""Images of another size: nearest, linear, cubic and area interpolation, as functions.

Every interpolation is done axis by axis, as a sum of a few elements of the input, each times a weight; which elements
and weights, the sizes alone say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import floor
from typing import NamedTuple

import numpy as np

from hal import ops
from hal.errors import SettingError, ShapeError
from hal.op import Array
from hal.tensor import Tensor
from nn.functional import pooling
from nn.functional.sizes import constant

MODES = {
    "nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "linear": (1,), "bilinear": (2,), "bicubic": (2,),
    "trilinear": (3,), "area": (1, 2, 3),
}  # fmt: skip
LINEAR, CUBIC = ("linear", "bilinear", "trilinear"), ("bicubic",)
SHARPNESS = -0.75  # of the cubic kernel, and with antialiasing -0.5, as torch has it

Scale = float | Sequence[float] | None
Shape = int | Sequence[int] | None


class _Taps(NamedTuple):
    """What each element of the result is made of: places (taps, result) in the input, and their weights."""

    places: Array
    weights: Array | None


def interpolate(
    input: Tensor, size: Shape = None, scale_factor: Scale = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Tensor:  # fmt: skip
    """(N, C, ...) with other spatial sizes.

    Args:
        size: the new sizes, one number for all axes or one each.
        scale_factor: instead of `size`: how many times as large, rounded down.
        mode: `nearest`, `nearest-exact`, `area`, `linear` for one axis, `bilinear` or `bicubic` for two, `trilinear`.
        align_corners: whether the corners' centres, and not their edges, stay where they are (linear and cubic only).
        recompute_scale_factor: take the factor from the rounded sizes.
        antialias: average over all that shrinks to an element (`bilinear` and `bicubic` only).

    Raises:
        SettingError: a setting that there is not, or both or neither of `size` and `scale_factor`.
        ShapeError: the mode is for another number of axes.

    Source: torch.nn.functional.interpolate.
    """
    axes = input.ndim - 2
    if mode not in MODES:
        raise SettingError(f"interpolate needs mode= one of {', '.join(MODES)}, got {mode!r}")
    if axes not in MODES[mode]:
        raise ShapeError(f"interpolate with mode={mode!r} is for {MODES[mode]} spatial axes, got shape {input.shape}")
    if align_corners is not None and mode not in (*LINEAR, *CUBIC):
        raise SettingError(f"interpolate takes align_corners= for linear and cubic modes, not for {mode!r}")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise SettingError(f"interpolate takes antialias=True for bilinear and bicubic, not for {mode!r}")
    sizes, factors = _sizes(input, axes, size, scale_factor, bool(recompute_scale_factor))
    if mode == "area":
        return getattr(pooling, f"adaptive_avg_pool{axes}d")(input, sizes)
    x = input
    for i, (old, new, factor) in enumerate(zip(input.shape[2:], sizes, factors, strict=True)):
        taps = _taps(mode, old, new, factor, bool(align_corners), antialias)
        if taps is not None:
            x = _resampled(x, i + 2, taps)
    return x


def upsample(
    input: Tensor, size: Shape = None, scale_factor: Scale = None, mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """The older name of `interpolate`. Source: torch.nn.functional.upsample."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def _sizes(
    x: Tensor, axes: int, size: Shape, scale_factor: Scale, recompute: bool
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """The new sizes, and the factors that say which element comes from where, if they were given."""
    if (size is None) == (scale_factor is None):
        raise SettingError(
            f"interpolate needs either size= or scale_factor=, got size={size} and scale_factor={scale_factor}"
        )
    if size is not None:
        sizes = (size,) * axes if isinstance(size, int) else tuple(size)
        if len(sizes) != axes or min(sizes) < 1:
            raise SettingError(f"interpolate needs size= as {axes} whole numbers above 0, got {size}")
        return sizes, (None,) * axes
    given = scale_factor
    factors = tuple(map(float, given)) if isinstance(given, Sequence) else (float(given or 0),) * axes
    if len(factors) != axes or min(factors) <= 0:
        raise SettingError(f"interpolate needs scale_factor= as {axes} numbers above 0, got {scale_factor}")
    sizes = tuple(floor(n * f) for n, f in zip(x.shape[2:], factors, strict=True))
    if min(sizes) < 1:
        raise ShapeError(f"interpolate by {factors} leaves nothing of shape {x.shape}")
    return sizes, (None,) * axes if recompute else factors


def _resampled(x: Tensor, axis: int, taps: _Taps) -> Tensor:
    shape = [1] * x.ndim
    shape[axis] = taps.places.shape[1]
    total = None
    for i, places in enumerate(taps.places):
        part = ops.take(x, constant(places, x), axis=axis)
        if taps.weights is not None:
            weight = taps.weights[i].astype(x.dtype.numpy).reshape(shape)
            part = part * constant(weight, x)
        total = part if total is None else total + part
    assert total is not None
    return total


@lru_cache(maxsize=128)
def _taps(mode: str, old: int, new: int, factor: float | None, align_corners: bool, antialias: bool) -> _Taps | None:
    """What each of `new` elements is made of, or None if all stay as they are."""
    if mode.startswith("nearest"):
        # In float32, as torch does it: it decides which of two neighbours is the nearest.
        ratio = np.float32(old / new if factor is None else 1 / factor)
        middle = np.float32(0.5 if mode == "nearest-exact" else 0)
        places = np.minimum(np.floor((np.arange(new, dtype=np.float32) + middle) * ratio), old - 1).astype(np.int64)
        return None if np.array_equal(places, np.arange(old)) else _Taps(places[None], None)
    if align_corners:
        scale = (old - 1) / (new - 1) if new > 1 else 0.0
        source = np.arange(new) * scale
    else:
        scale = old / new if factor is None else 1 / factor
        source = (np.arange(new) + 0.5) * scale - 0.5
    if old == new and np.array_equal(source, np.arange(new)):
        return None
    if antialias:
        kernel, reach = (_triangle, 1.0) if mode in LINEAR else (partial(_cubic, sharpness=-0.5), 2.0)
        return _averaging(old, source, scale, kernel, reach, align_corners)
    if mode in LINEAR:
        source = np.maximum(source, 0)
        first = np.minimum(np.floor(source).astype(np.int64), old - 1)
        weight = np.clip(source - first, 0, 1)
        return _Taps(np.stack([first, np.minimum(first + 1, old - 1)]), np.stack([1 - weight, weight]))
    first = np.floor(source).astype(np.int64)
    near = np.arange(-1, 3)[:, None]
    return _Taps((first + near).clip(0, old - 1), _cubic(source - first - near, SHARPNESS))


def _averaging(
    old: int, source: Array, scale: float, kernel: Callable[[Array], Array], reach: float, align_corners: bool
) -> _Taps:
    """Taps of a kernel that is as wide as what shrinks to one element."""
    wide = max(scale, 1.0)
    center = source + 0.5 if not align_corners else scale * (np.arange(len(source)) + 0.5)
    first = np.maximum(np.floor(center - reach * wide + 0.5).astype(np.int64), 0)
    last = np.minimum(np.floor(center + reach * wide + 0.5).astype(np.int64), old)
    near = np.arange((last - first).max())[:, None]
    weights = np.where(near < last - first, kernel((near + first - center + 0.5) / wide), 0)
    return _Taps((first + near).clip(0, old - 1), weights / weights.sum(0))


def _triangle(x: Array) -> Array:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: Array, sharpness: float) -> Array:
    """Keys' kernel: interpolates, and has a continuous slope. Source: Keys, IEEE Trans. ASSP 29(6), 1981."""
    x, a = np.abs(x), sharpness
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))
