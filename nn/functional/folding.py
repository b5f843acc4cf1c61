"""Windows of an image as columns, and columns added up to an image again, as functions."""

from __future__ import annotations

from functools import lru_cache
from math import prod

import numpy as np

import hal
from hal import ops
from hal.errors import SettingError, ShapeError
from hal.op import Array
from hal.ops.windows import fit_windows
from hal.tensor import Tensor
from nn.functional.sizes import Size, constant, on_batches, spread

Sizes = tuple[int, ...]


@lru_cache(maxsize=64)
def _places(sizes: Sizes, kernel: Sizes, dilation: Sizes, padding: Sizes, stride: Sizes) -> tuple[Array, Sizes]:
    """For each element of the kernel and each window, its place in the padded image, flat; and the padded sizes."""
    padded = tuple(n + 2 * p for n, p in zip(sizes, padding, strict=True))
    counts = fit_windows("unfold", sizes, kernel, stride, padding, dilation)
    axes = zip(counts, kernel, dilation, stride, strict=True)
    (rows, columns) = (np.arange(k)[:, None] * d + np.arange(n) * s for n, k, d, s in axes)
    flat = rows[:, None, :, None] * padded[1] + columns[None, :, None, :]
    return flat.reshape(prod(kernel), prod(counts)), padded


def _settings(who: str, kernel_size: Size, dilation: Size, padding: Size, stride: Size) -> tuple[Sizes, ...]:
    given = {"kernel_size": kernel_size, "dilation": dilation, "padding": padding, "stride": stride}
    found = {name: spread(who, name, value, 2) for name, value in given.items()}
    for name, sizes in found.items():
        if min(sizes) < (0 if name == "padding" else 1):
            raise SettingError(f"{who} needs {name}= of {0 if name == 'padding' else 1} or more, got {sizes}")
    return tuple(found.values())


def unfold(input: Tensor, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> Tensor:
    """The windows of (N, C, H, W) as columns (N, C kh kw, L), in row-major order.

    Raises:
        ShapeError: not one window fits, or another number of axes.
        SettingError: a setting has the wrong form.

    Source: torch.nn.functional.unfold.
    """
    if input.ndim not in (3, 4):
        raise ShapeError(f"unfold needs images (N, C, H, W) or (C, H, W), got {input.shape}")
    kernel, gaps, around, steps = _settings("unfold", kernel_size, dilation, padding, stride)

    def columns(x: Tensor) -> Tensor:
        n, channels, *sizes = x.shape
        places, padded = _places(tuple(sizes), kernel, gaps, around, steps)
        x = ops.pad(x, padding=((0, 0), (0, 0), *((p, p) for p in around)))
        x = ops.reshape(x, shape=(n, channels, prod(padded)))
        found = ops.take(x, constant(places, x), axis=2)
        return ops.reshape(found, shape=(n, channels * places.shape[0], places.shape[1]))

    return on_batches(input, 2, columns)


def fold(
    input: Tensor, output_size: Size, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1
) -> Tensor:
    """Columns (N, C kh kw, L) added up to images (N, C, H, W), each where `unfold` would take it from.

    Raises:
        ShapeError: the columns are not as many, or as long, as the settings ask for.
        SettingError: a setting has the wrong form.

    Source: torch.nn.functional.fold.
    """
    if input.ndim not in (2, 3):
        raise ShapeError(f"fold needs columns (N, C kh kw, L) or (C kh kw, L), got {input.shape}")
    sizes = spread("fold", "output_size", output_size, 2)
    kernel, gaps, around, steps = _settings("fold", kernel_size, dilation, padding, stride)
    places, padded = _places(sizes, kernel, gaps, around, steps)
    rows, windows = places.shape
    if input.shape[-2] % rows or input.shape[-1] != windows:
        raise ShapeError(
            f"fold to {sizes} with kernel_size={kernel} needs columns (N, C x {rows}, {windows}), got {input.shape}"
        )

    def image(x: Tensor) -> Tensor:
        n, channels = x.shape[0], x.shape[1] // rows
        flat = ops.reshape(x, shape=(n, channels, rows * windows))
        empty = hal.zeros(n, channels, prod(padded), dtype=x.dtype, device=x.device)
        where = constant(places.reshape(-1), x)
        whole = ops.reshape(ops.index_add(empty, where, flat, axis=2), shape=(n, channels, *padded))
        (top, left), (height, width) = around, sizes
        return whole[:, :, top : top + height, left : left + width]

    return on_batches(input, 1, image)
