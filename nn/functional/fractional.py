"""Fractional max pooling: maxima of windows whose distances are drawn, so that sizes shrink by any factor."""

from __future__ import annotations

from math import prod
from typing import Any

import hal
from hal import ops
from hal.errors import SettingError, ShapeError
from hal.tensor import Tensor
from nn.functional.sizes import Size, spread

Ratio = float | tuple[float, ...]


def _starts(samples: Tensor, size: int, kernel: int, windows: int) -> Tensor:
    """Where the windows of one axis begin, int64 (N, C, windows), for samples (N, C). The last ends with the axis."""
    last = hal.full((*samples.shape, 1), size - kernel, dtype=hal.int64, device=samples.device)
    if windows == 1:
        return last
    step = (size - kernel) / (windows - 1)
    first = samples.unsqueeze(-1)
    number = hal.arange(windows - 1, dtype=samples.dtype, device=samples.device)
    begins = ops.floor((number + first) * step) - ops.floor(first * step)
    return ops.concat(ops.cast(begins, dtype=hal.int64), last, axis=-1)


def _pool(x: Tensor, samples: Tensor, kernel: tuple[int, ...], output: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The maxima (N, C, ...) of the windows, and their flat places."""
    n, sizes = len(kernel), x.shape[2:]
    order = (1, 0) if n == 2 else (0, 1, 2)  # of torch's samples: the width first for images, and last for volumes
    places: Any = 0
    for axis in range(n):
        begins = _starts(samples[:, :, order[axis]], sizes[axis], kernel[axis], output[axis])
        seen = begins.unsqueeze(-1) + hal.arange(kernel[axis], device=x.device)
        shape = [1] * (2 * n)
        shape[axis], shape[n + axis] = output[axis], kernel[axis]
        places = places * sizes[axis] + seen.reshape(*x.shape[:2], *shape)
    windows, elements = prod(output), prod(kernel)
    places = places.reshape(*x.shape[:2], windows, elements)
    flat = x.reshape(*x.shape[:2], prod(sizes))
    with hal.no_grad():
        values = ops.gather(flat.detach(), places.reshape(*x.shape[:2], windows * elements), axis=2)
        best = ops.argmax(values.reshape(*x.shape[:2], windows, elements), axis=-1, keepdims=True)
        found = ops.gather(places, best, axis=3).squeeze(-1)
    shape = [*x.shape[:2], *output]
    return ops.gather(flat, found, axis=2).reshape(*shape), found.reshape(*shape)


def _fractional(
    n: int, input: Tensor, kernel_size: Size, output_size: Size | None, output_ratio: Ratio | None,
    return_indices: bool, samples: Tensor | None,
) -> Any:  # fmt: skip
    who = f"fractional_max_pool{n}d"
    kernel = spread(who, "kernel_size", kernel_size, n)
    if (output_size is None) == (output_ratio is None):
        raise SettingError(f"{who} needs output_size= or output_ratio=, one of them")
    if input.ndim not in (n + 1, n + 2):
        raise ShapeError(f"{who} needs an input with {n + 1} or {n + 2} axes, got {input.shape}")
    sizes = input.shape[input.ndim - n :]
    if output_size is None:
        ratios = (output_ratio,) * n if isinstance(output_ratio, int | float) else tuple(output_ratio or ())
        if len(ratios) != n or not all(0 < r < 1 for r in ratios):
            raise SettingError(f"{who} needs output_ratio= between 0 and 1, or {n} of them, got {output_ratio}")
        output = tuple(int(size * r) for size, r in zip(sizes, ratios, strict=True))
    else:
        output = spread(who, "output_size", output_size, n)
    if any(o < 1 or o + k - 1 > size for o, k, size in zip(output, kernel, sizes, strict=True)):
        raise ShapeError(f"{who} cannot lay {output} windows of {kernel} over {sizes}: each needs a place of its own")
    x = input if input.ndim == n + 2 else input.unsqueeze(0)
    if samples is None:
        samples = hal.rand(*x.shape[:2], n, device=x.device)
    if samples.shape != (*x.shape[:2], n):
        raise ShapeError(f"{who} needs _random_samples of shape {(*x.shape[:2], n)}, got {samples.shape}")
    found = _pool(x, samples, kernel, output)
    maxima, places = found if input.ndim == n + 2 else (y.squeeze(0) for y in found)
    return (maxima, places) if return_indices else maxima


def fractional_max_pool2d(
    input: Tensor, kernel_size: Size, output_size: Size | None = None, output_ratio: Ratio | None = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """Maxima of windows that are laid over (N, C, H, W) at random distances, the same for a whole channel.

    Args:
        kernel_size: of the windows, which overlap or not as it comes.
        output_size: how many windows there are along each axis; or
        output_ratio: how many in relation to the size of the input, between 0 and 1.
        return_indices: give where each maximum was too, as `max_unpool2d` takes it.
        _random_samples: (N, C, 2) in [0, 1), to be used instead of drawn ones.

    Raises:
        SettingError: neither or both of output_size and output_ratio.
        ShapeError: more windows than fit.

    Source: torch.nn.functional.fractional_max_pool2d; Graham, "Fractional Max-Pooling", 2014.
    """
    return _fractional(2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


def fractional_max_pool3d(
    input: Tensor, kernel_size: Size, output_size: Size | None = None, output_ratio: Ratio | None = None,
    return_indices: bool = False, _random_samples: Tensor | None = None,
) -> Any:  # fmt: skip
    """`fractional_max_pool2d` for (N, C, D, H, W). Source: torch.nn.functional.fractional_max_pool3d."""
    return _fractional(3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)
