"""Max, average and adaptive pooling over one to three spatial axes, as functions of torch's signatures."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from hal import Op, ops
from hal.errors import SettingError, ShapeError
from hal.spec import Spec
from hal.tensor import Tensor
from nn.functional.maxima import adaptive_places, places_of_maxima, window_places
from nn.functional.sizes import Size, on_batches, spread

OutputSize = int | None | Sequence[int | None]


def _max(
    n: int, x: Tensor, kernel_size: Size, stride: Size | None, padding: Size, dilation: Size, ceil_mode: bool,
    return_indices: bool,
) -> Any:  # fmt: skip
    who = f"max_pool{n}d"
    kernel = spread(who, "kernel_size", kernel_size, n)
    settings: dict[str, Any] = {
        "kernel": kernel,
        "stride": kernel if stride is None else spread(who, "stride", stride, n),
        "padding": spread(who, "padding", padding, n),
        "dilation": spread(who, "dilation", dilation, n),
        "ceil_mode": ceil_mode,
    }
    out = on_batches(x, n, lambda x: ops.TABLE[who](x, **settings))
    if not return_indices:
        return out
    return out, places_of_maxima(x, n, window_places(who, x.shape[-n:], **settings))


def _average(
    n: int, x: Tensor, kernel_size: Size, stride: Size | None, padding: Size, ceil_mode: bool, count_include_pad: bool,
    divisor: int | None = None,
) -> Tensor:  # fmt: skip
    who = f"avg_pool{n}d"
    if divisor == 0:
        raise SettingError(f"{who} needs divisor_override= other than 0, got {divisor}")
    kernel = spread(who, "kernel_size", kernel_size, n)
    settings = {
        "kernel": kernel,
        "stride": kernel if stride is None else spread(who, "stride", stride, n),
        "padding": spread(who, "padding", padding, n),
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad or divisor is not None,
    }
    if divisor is None:
        return on_batches(x, n, lambda x: ops.TABLE[who](x, **settings))
    sums = on_batches(x, n, lambda x: _means_of_whole_windows(ops.TABLE[who], n, x, settings))
    return sums * (prod(kernel) / divisor)


def _means_of_whole_windows(op: Op, n: int, x: Tensor, settings: dict[str, Any]) -> Tensor:
    """Means in which what a window hangs over counts as zeros, so that all are divided by the same number."""
    means = op.infer(x.spec, **settings)
    assert isinstance(means, Spec)
    windows = means.shape[2:]
    padding = [(0, 0), (0, 0)]
    for i in range(n):
        before, size = settings["padding"][i], x.shape[i + 2]
        reach = (windows[i] - 1) * settings["stride"][i] + settings["kernel"][i]
        padding.append((before, max(before, reach - size - before)))
    x = ops.pad(x, padding=tuple(padding))
    return op(x, **{**settings, "padding": (0,) * n, "ceil_mode": False})


def _adaptive(kind: str, n: int, x: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    who = f"adaptive_{kind}_pool{n}d"
    sizes: tuple[Any, ...] = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * n
    if len(sizes) != n:
        raise SettingError(f"{who} needs output_size= as a whole number or {n} of them, got {output_size!r}")
    if x.ndim not in (n + 1, n + 2):
        raise ShapeError(f"{who} needs an input with {n + 1} or {n + 2} axes, got shape {x.shape}")
    output = tuple(x.shape[i - n] if size is None else size for i, size in enumerate(sizes))
    out = on_batches(x, n, lambda x: ops.TABLE[who](x, output=output))
    return (out, places_of_maxima(x, n, adaptive_places(x.shape[-n:], output))) if return_indices else out


def max_pool1d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window of (N, C, L) or (C, L). Source: torch.nn.functional.max_pool1d.

    Args:
        stride: distance between windows; their size if not given.
        ceil_mode: whether a last window may hang over the end.
        return_indices: give where each maximum was too, as flat int64 places in the image: for `max_unpool1d`.

    Raises:
        ShapeError: not one window fits.
        SettingError: a setting has the wrong form.
    """
    return _max(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window of (N, C, H, W) or (C, H, W). Source: torch.nn.functional.max_pool2d."""
    return _max(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window of (N, C, D, H, W) or (C, D, H, W). Source: torch.nn.functional.max_pool3d."""
    return _max(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool1d(
    input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The mean of each window of (N, C, L) or (C, L). Source: torch.nn.functional.avg_pool1d.

    Args:
        count_include_pad: whether the zeros of the padding count as elements.

    Raises:
        ShapeError: not one window fits.
        SettingError: a setting has the wrong form.
    """
    return _average(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window of (N, C, H, W) or (C, H, W). Source: torch.nn.functional.avg_pool2d.

    Args:
        divisor_override: what the sum of a window is divided by, instead of the number of its elements.
    """
    return _average(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window of (N, C, D, H, W) or (C, D, H, W). Source: torch.nn.functional.avg_pool3d."""
    return _average(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def adaptive_avg_pool1d(input: Tensor, output_size: OutputSize) -> Tensor:
    """Means of windows that cut (N, C, L) into `output_size` parts. Source: torch.nn.functional.adaptive_avg_pool1d."""
    return _adaptive("avg", 1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: OutputSize) -> Tensor:
    """Means of windows that cut the image into `output_size` parts; None keeps an axis as it is.

    Source: torch.nn.functional.adaptive_avg_pool2d.
    """
    return _adaptive("avg", 2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: OutputSize) -> Tensor:
    """Means of windows that cut a volume into `output_size` parts. Source: torch.nn.functional.adaptive_avg_pool3d."""
    return _adaptive("avg", 3, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """Maxima of windows that cut (N, C, L) into output_size parts. Source: torch.nn.functional.adaptive_max_pool1d."""
    return _adaptive("max", 1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """Maxima of windows that cut the image into `output_size` parts; None keeps an axis as it is.

    Source: torch.nn.functional.adaptive_max_pool2d.
    """
    return _adaptive("max", 2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: OutputSize, return_indices: bool = False) -> Any:
    """Maxima of windows that cut a volume into output_size parts. Source: torch.nn.functional.adaptive_max_pool3d."""
    return _adaptive("max", 3, input, output_size, return_indices)


def _lp(n: int, x: Tensor, norm_type: float, kernel_size: Size, stride: Size | None, ceil_mode: bool) -> Tensor:
    kernel = spread(f"lp_pool{n}d", "kernel_size", kernel_size, n)
    powers = x**norm_type
    means = _average(n, powers, kernel, stride, 0, ceil_mode, True)
    return (means * prod(kernel)) ** (1.0 / norm_type)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """(sum of x ** p) ** (1 / p) over each window of (N, C, L). Source: torch.nn.functional.lp_pool1d."""
    return _lp(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """(sum of x ** p) ** (1 / p) over each window of (N, C, H, W). Source: torch.nn.functional.lp_pool2d."""
    return _lp(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
) -> Tensor:
    """(sum of x ** p) ** (1 / p) over each window of (N, C, D, H, W). Source: torch.nn.functional.lp_pool3d."""
    return _lp(3, input, norm_type, kernel_size, stride, ceil_mode)
