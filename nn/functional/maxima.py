"""Where the maxima of windows are, and maxima put back to where they were: max pooling with indices, and unpooling."""

from __future__ import annotations

from functools import lru_cache
from math import prod

import numpy as np

import hal
from hal import ops
from hal.errors import ShapeError
from hal.op import Array
from hal.ops.windows import fit_windows
from hal.tensor import Tensor
from nn.functional.sizes import Size, constant, on_batches, spread

Sizes = tuple[int, ...]
Spans = tuple[tuple[tuple[int, ...], ...], ...]  # for each axis and each window: the places that it sees


def window_places(
    who: str, sizes: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool
) -> Spans:
    """What each window of a pooling sees of each axis."""
    counts = fit_windows(who, sizes, kernel, stride, padding, dilation, ceil_mode)
    axes = zip(sizes, counts, kernel, stride, padding, dilation, strict=True)
    return tuple(
        tuple(tuple(i for i in range(w * s - p, w * s - p + k * d, d) if 0 <= i < n) for w in range(count))
        for n, count, k, s, p, d in axes
    )


def adaptive_places(sizes: Sizes, output: Sizes) -> Spans:
    """What each window of an adaptive pooling sees of each axis. Source: torch.nn.AdaptiveMaxPool2d."""
    return tuple(
        tuple(tuple(range(i * n // out, -(-(i + 1) * n // out))) for i in range(out))
        for n, out in zip(sizes, output, strict=True)
    )


@lru_cache(maxsize=64)
def _table(sizes: Sizes, spans: Spans) -> Array:
    """The flat places (elements, windows) that each window sees, filled up with one behind the end of the image."""
    outside = prod(sizes)
    table = np.zeros((1, 1), np.int64)
    inside = np.ones((1, 1), np.bool_)
    for size, windows in zip(sizes, spans, strict=True):
        most = max(1, *map(len, windows))
        here = np.array([[*w, *[0] * (most - len(w))] for w in windows], np.int64).T
        seen = np.array([[True] * len(w) + [False] * (most - len(w)) for w in windows], np.bool_).T
        shape = table.shape[0] * most, table.shape[1] * len(windows)
        table = (table[:, None, :, None] * size + here[None, :, None, :]).reshape(shape)
        inside = (inside[:, None, :, None] & seen[None, :, None, :]).reshape(shape)
    return np.where(inside, table, outside)


def places_of_maxima(x: Tensor, n: int, spans: Spans) -> Tensor:
    """The flat place, among the last `n` axes, of the first maximum of each window, as int64."""
    with hal.no_grad():
        sizes, counts = x.shape[x.ndim - n :], tuple(map(len, spans))
        batch = x.shape[: x.ndim - n]
        table = constant(_table(tuple(sizes), spans), x)
        flat = ops.reshape(x.detach(), shape=(*batch, prod(sizes)))
        flat = ops.pad(flat, padding=(*((0, 0),) * len(batch), (0, 1)), value=-float("inf"))
        seen = ops.take(flat, table, axis=-1)
        best = ops.argmax(seen, axis=-2)
        window = hal.arange(table.shape[1], device=x.device)
        found = ops.take(ops.reshape(table, shape=(table.spec.size,)), best * table.shape[1] + window, axis=0)
        return ops.reshape(found, shape=(*batch, *counts))


def _unpool(
    n: int, x: Tensor, indices: Tensor, kernel_size: Size, stride: Size | None, padding: Size,
    output_size: Sizes | list[int] | None,
) -> Tensor:  # fmt: skip
    who = f"max_unpool{n}d"
    if x.shape != indices.shape:
        raise ShapeError(f"{who} needs an index for each maximum, got {x.shape} and indices {indices.shape}")
    if x.ndim not in (n + 1, n + 2):
        raise ShapeError(f"{who} needs an input with {n + 1} or {n + 2} axes, got {x.shape}")
    kernel = spread(who, "kernel_size", kernel_size, n)
    steps = kernel if stride is None else spread(who, "stride", stride, n)
    around = spread(who, "padding", padding, n)
    spatial = x.shape[x.ndim - n :]
    sizes = tuple((i - 1) * s - 2 * p + k for i, s, p, k in zip(spatial, steps, around, kernel, strict=True))
    if output_size is not None:
        wanted = tuple(output_size)[-n:]
        if len(wanted) != n or any(not d - s < w < d + s for d, s, w in zip(sizes, steps, wanted, strict=True)):
            raise ShapeError(f"{who} needs output_size= within {steps} of {sizes}, got {tuple(output_size)}")
        sizes = wanted

    def spread_out(x: Tensor) -> Tensor:
        batch = x.shape[:2]
        empty = hal.zeros(*batch, prod(sizes), dtype=x.dtype, device=x.device)
        places = ops.reshape(indices, shape=(*batch, prod(spatial)))
        flat = ops.reshape(x, shape=(*batch, prod(spatial)))
        return ops.reshape(ops.scatter(empty, places, flat, axis=2), shape=(*batch, *sizes))

    return on_batches(x, n, spread_out)


def max_unpool1d(
    input: Tensor, indices: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
    output_size: Sizes | list[int] | None = None,
) -> Tensor:  # fmt: skip
    """Zeros, with the maxima (N, C, L) where `max_pool1d(..., return_indices=True)` found them.

    Args:
        output_size: which of the sizes that pool to this one; the smallest if not given.

    Raises:
        ShapeError: shapes that do not belong together.

    Source: torch.nn.functional.max_unpool1d.
    """
    return _unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor, indices: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
    output_size: Sizes | list[int] | None = None,
) -> Tensor:  # fmt: skip
    """`max_unpool1d` for (N, C, H, W). Source: torch.nn.functional.max_unpool2d."""
    return _unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor, indices: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
    output_size: Sizes | list[int] | None = None,
) -> Tensor:  # fmt: skip
    """`max_unpool1d` for (N, C, D, H, W). Source: torch.nn.functional.max_unpool3d."""
    return _unpool(3, input, indices, kernel_size, stride, padding, output_size)
