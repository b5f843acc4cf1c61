"""Convolutions over one or three spatial axes in terms of two, so that one fast kernel serves all three."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hal import ops
from hal.ops.windows import Sizes, fit_windows, pad_spatial, window_index

if TYPE_CHECKING:
    from hal.tensor import Tensor


def lift(x: Tensor) -> Tensor:
    """(N, C, L) as images of height 1."""
    return ops.reshape(x, shape=(*x.shape[:2], 1, x.shape[2]))


def lower(x: Tensor) -> Tensor:
    """Images of height 1 as (N, C, L)."""
    return ops.reshape(x, shape=(*x.shape[:2], x.shape[3]))


def lifted(stride: Sizes, padding: Sizes, dilation: Sizes) -> dict[str, Sizes]:
    """The settings of a convolution over one axis, for images of height 1."""
    return {"stride": (1, *stride), "padding": (0, *padding), "dilation": (1, *dilation)}


def slabs(x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> Tensor:
    """What a kernel sees at each depth, as images: (N, C, D, H, W) becomes (N * depths, C * kD, H, W)."""
    depths = fit_windows("conv3d", x.shape[2:], kernel, stride, padding, dilation)[0]
    batch, channels, _, *image = x.shape
    x = pad_spatial(x, (padding[0], 0, 0), (padding[0], 0, 0))
    flat = ops.reshape(x, shape=(batch, channels, x.shape[2], prod(image)))
    index = window_index(x.shape[2:3], (depths,), kernel[:1], stride[:1], dilation[:1], x.device)
    seen = ops.permute(ops.take(flat, index, axis=2), axes=(0, 3, 1, 2, 4))
    return ops.reshape(seen, shape=(batch * depths, channels * kernel[0], *image))


def slices(x: Tensor) -> Tensor:
    """Each depth as an image of its own: (N, C, D, H, W) becomes (N * D, C, H, W)."""
    batch, channels, depths, *image = x.shape
    return ops.reshape(ops.permute(x, axes=(0, 2, 1, 3, 4)), shape=(batch * depths, channels, *image))


def volume(images: Tensor, batch: int, depths: int) -> Tensor:
    """The images of all depths put together again: (N * D, C, H, W) becomes (N, C, D, H, W)."""
    stacked = ops.reshape(images, shape=(batch, depths, *images.shape[1:]))
    return ops.permute(stacked, axes=(0, 2, 1, 3, 4))


def flat_weight(weight: Tensor) -> Tensor:
    """The weights (C_out, C_in, kD, kH, kW) for the images of `slabs`: (C_out, C_in * kD, kH, kW)."""
    return ops.reshape(weight, shape=(weight.shape[0], weight.shape[1] * weight.shape[2], *weight.shape[3:]))
