"""Convolutions and transposed convolutions over one to three spatial axes, as functions of torch's signatures."""

from __future__ import annotations

from hal import ops
from hal.errors import SettingError
from hal.tensor import Tensor
from nn.functional.sizes import Size, on_batches, spread


def _same(
    who: str, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after each axis that keeps the sizes; an odd element more comes after, as in torch."""
    if any(s != 1 for s in stride):
        raise SettingError(f"{who} with padding='same' needs stride=1, got {stride}: give the padding in numbers")
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)


def _convolve(
    n: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Size,
    padding: Size | str,
    dilation: Size,
    groups: int,
) -> Tensor:
    who = f"conv{n}d"
    strides, dilations = spread(who, "stride", stride, n), spread(who, "dilation", dilation, n)
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise SettingError(f"{who} needs padding= as numbers, 'same' or 'valid', got {padding!r}")
        before, after = (0,) * n, (0,) * n
        if padding == "same":
            before, after = _same(who, weight.shape[2:], strides, dilations)
    else:
        before = after = spread(who, "padding", padding, n)

    def run(x: Tensor) -> Tensor:
        if before != after:
            more = tuple((0, a - b) for b, a in zip(before, after, strict=True))
            x = ops.pad(x, padding=((0, 0), (0, 0), *more))
        tensors = (x, weight) if bias is None else (x, weight, bias)
        out: Tensor = ops.TABLE[who](*tensors, stride=strides, padding=before, dilation=dilations, groups=groups)
        return out

    return on_batches(x, n, run)


def _convolve_transposed(
    n: int, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Size, padding: Size, output_padding: Size,
    groups: int, dilation: Size,
) -> Tensor:  # fmt: skip
    who = f"conv_transpose{n}d"
    tensors = (weight,) if bias is None else (weight, bias)
    settings = {
        "stride": spread(who, "stride", stride, n),
        "padding": spread(who, "padding", padding, n),
        "output_padding": spread(who, "output_padding", output_padding, n),
        "dilation": spread(who, "dilation", dilation, n),
        "groups": groups,
    }
    return on_batches(x, n, lambda x: ops.TABLE[who](x, *tensors, **settings))


def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size | str = 0,
    dilation: Size = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of (N, C, L) or (C, L) with a weight (out, C / groups, k).

    Args:
        padding: numbers, 'valid' for none, or 'same' for a result of the input's size (with stride 1).

    Raises:
        ShapeError: shapes, channels and groups do not fit.
        SettingError: a setting has the wrong form.

    Source: torch.nn.functional.conv1d.
    """
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size | str = 0,
    dilation: Size = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of (N, C, H, W) or (C, H, W) with a weight (out, C / groups, kh, kw); see `conv1d`.

    Source: torch.nn.functional.conv2d.
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size | str = 0,
    dilation: Size = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of (N, C, D, H, W) or (C, D, H, W) with a weight (out, C / groups, kd, kh, kw); see `conv1d`.

    Source: torch.nn.functional.conv3d.
    """
    return _convolve(3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
) -> Tensor:  # fmt: skip
    """Transposed convolution of (N, C, L) or (C, L) with a weight (C, out / groups, k).

    Raises:
        ShapeError: shapes, channels and groups do not fit.
        SettingError: a setting has the wrong form.

    Source: torch.nn.functional.conv_transpose1d.
    """
    return _convolve_transposed(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
) -> Tensor:  # fmt: skip
    """Transposed convolution of (N, C, H, W) or (C, H, W) with a weight (C, out / groups, kh, kw).

    Source: torch.nn.functional.conv_transpose2d.
    """
    return _convolve_transposed(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1,
) -> Tensor:  # fmt: skip
    """Transposed convolution of (N, C, D, H, W) or (C, D, H, W) with a weight (C, out / groups, kd, kh, kw).

    Source: torch.nn.functional.conv_transpose3d.
    """
    return _convolve_transposed(3, input, weight, bias, stride, padding, output_padding, groups, dilation)
