"""Padding, pixel shuffling and resizing, as functions of torch's signatures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hal import ops
from hal.errors import SettingError, ShapeError
from hal.tensor import Tensor
from nn.functional.sizes import constant

_MODES = ("constant", "reflect", "replicate", "circular")


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """The input with elements added before and after its last axes; negative numbers take some away.

    Args:
        pad: (before, after) of the last axis, then of the one before it, and so on.
        mode: `constant` adds `value` (0 if not given), `reflect` mirrors without the edge, `replicate` repeats the
            edge, `circular` goes on with the other end.

    Raises:
        SettingError: `pad` is no list of pairs, or the mode is none of these.
        ShapeError: there are not enough elements to mirror or go on with.

    Source: torch.nn.functional.pad.
    """
    if mode not in _MODES:
        raise SettingError(f"pad needs mode= one of {', '.join(_MODES)}, got {mode!r}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise SettingError(f"pad needs a pair (before, after) for each of at most {input.ndim} axes, got {tuple(pad)}")
    pairs = [(int(pad[i]), int(pad[i + 1])) for i in range(0, len(pad), 2)]
    x = input
    for i, (before, after) in enumerate(pairs):  # take away first
        if mode == "replicate" and before * after < 0:
            continue  # one end may take away all that the other repeats the last of
        axis = x.ndim - 1 - i
        low, high = max(-before, 0), x.shape[axis] - max(-after, 0)
        if high < low:
            raise ShapeError(
                f"pad with {(before, after)} would take away more than the {x.shape[axis]} elements of axis {axis}"
            )
        if (low, high) != (0, x.shape[axis]):
            x = _cut(x, axis, low, high)
    widths = [(b, a) if mode == "replicate" and b * a < 0 else (max(b, 0), max(a, 0)) for b, a in pairs]
    if mode == "constant":
        padding = ((0, 0),) * (x.ndim - len(widths)) + tuple(reversed(widths))
        return ops.pad(x, padding=padding, value=0 if value is None else value)
    for i, (before, after) in enumerate(widths):
        if before or after:
            x = _extend(x, x.ndim - 1 - i, before, after, mode)
    return x


def _cut(x: Tensor, axis: int, low: int, high: int) -> Tensor:
    start, stop = [0] * x.ndim, list(x.shape)
    start[axis], stop[axis] = low, high
    return ops.slice(x, start=tuple(start), stop=tuple(stop), step=(1,) * x.ndim)


def _extend(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    size = x.shape[axis]
    most = {"reflect": size - 1, "circular": size, "replicate": max(before, after) if size else 0}[mode]
    if max(before, after) > most:
        raise ShapeError(
            f"pad with mode={mode!r} can add at most {most} to an axis of {size} elements, got {(before, after)}"
        )
    place = np.arange(-before, size + after)
    if mode == "reflect":
        place = np.abs(place)
        place = np.where(place >= size, 2 * (size - 1) - place, place)
    elif mode == "circular":
        place = place % size
    else:
        place = place.clip(0, size - 1)
    return ops.take(x, constant(place, x), axis=axis)


def _need_axes(who: str, x: Tensor, least: int) -> None:
    if x.ndim < least:
        raise ShapeError(f"{who} needs an input with {least} axes or more, got shape {x.shape}")


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C r², H, W) as (..., C, H r, W r). Source: torch.nn.functional.pixel_shuffle.

    Raises:
        ShapeError: the channels cannot be divided by r².
    """
    r = upscale_factor
    _need_axes("pixel_shuffle", input, 3)
    *batch, channels, height, width = input.shape
    if channels % (r * r):
        raise ShapeError(f"pixel_shuffle by {r} needs channels that {r * r} divides, got {input.shape}")
    n = len(batch)
    x = ops.reshape(input, shape=(*batch, channels // (r * r), r, r, height, width))
    x = ops.permute(x, axes=(*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return ops.reshape(x, shape=(*batch, channels // (r * r), height * r, width * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H r, W r) as (..., C r², H, W). Source: torch.nn.functional.pixel_unshuffle.

    Raises:
        ShapeError: the sizes cannot be divided by r.
    """
    r = downscale_factor
    _need_axes("pixel_unshuffle", input, 3)
    *batch, channels, height, width = input.shape
    if height % r or width % r:
        raise ShapeError(f"pixel_unshuffle by {r} needs sizes that it divides, got {input.shape}")
    n = len(batch)
    x = ops.reshape(input, shape=(*batch, channels, height // r, r, width // r, r))
    x = ops.permute(x, axes=(*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return ops.reshape(x, shape=(*batch, channels * r * r, height // r, width // r))


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The channels of (N, C, ...), dealt out from `groups` groups in turn. Source: torch.nn.functional.channel_shuffle.

    Raises:
        ShapeError: the channels cannot be divided into the groups.
    """
    _need_axes("channel_shuffle", input, 2)
    batch, channels, *inner = input.shape
    if channels % groups:
        raise ShapeError(f"channel_shuffle needs channels that groups={groups} divides, got shape {input.shape}")
    x = ops.reshape(input, shape=(batch, groups, channels // groups, *inner))
    x = ops.permute(x, axes=(0, 2, 1, *range(3, x.ndim)))
    return ops.reshape(x, shape=input.shape)
