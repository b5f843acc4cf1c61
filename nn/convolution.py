"""Convolution layers over one to three spatial axes, and their transposes."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import hal
from hal.creation import DeviceLike
from hal.errors import SettingError, ShapeError
from hal.tensor import Tensor
from nn import functional as F
from nn import init
from nn.functional.sizes import Size, spread
from nn.module import Module
from nn.parameter import Parameter

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Module):
    """What all convolutions have in common: their settings, their parameters, and how they are printed.

    The weight and the bias begin uniform between ± 1 / sqrt(fan_in).
    """

    n: int  # spatial axes
    transposed = False
    bias: Parameter | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size, padding: Size | str, dilation: Size,
        output_padding: Size, groups: int, bias: bool, padding_mode: str, device: DeviceLike, dtype: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        who = type(self).__name__
        _check(who, in_channels, out_channels, groups, padding, padding_mode)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = spread(who, "kernel_size", kernel_size, self.n)
        self.stride = spread(who, "stride", stride, self.n)
        self.padding = padding if isinstance(padding, str) else spread(who, "padding", padding, self.n)
        self.dilation = spread(who, "dilation", dilation, self.n)
        self.output_padding = spread(who, "output_padding", output_padding, self.n)
        self.groups = groups
        self.padding_mode = padding_mode
        if padding == "same" and any(s != 1 for s in self.stride):
            raise SettingError(
                f"{who} with padding='same' needs stride=1, got {self.stride}: give the padding in numbers"
            )
        self.weight = Parameter(hal.empty(*self._weight_shape(), device=device, dtype=dtype))
        self.register_parameter(
            "bias", Parameter(hal.empty(out_channels, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def _weight_shape(self) -> tuple[int, ...]:
        channels = (self.in_channels, self.out_channels) if self.transposed else (self.out_channels, self.in_channels)
        return (channels[0], channels[1] // self.groups, *self.kernel_size)

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.kaiming_uniform_(self.weight, a=sqrt(5))
        if self.bias is not None:
            fan_in, _ = init.fans(self.weight)
            if fan_in:
                init.uniform_(self.bias, -1 / sqrt(fan_in), 1 / sqrt(fan_in))

    def extra_repr(self) -> str:
        zeros = (0,) * self.n
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding != zeros:
            parts.append(f"padding={self.padding}")
        if self.dilation != (1,) * self.n:
            parts.append(f"dilation={self.dilation}")
        if self.output_padding != zeros:
            parts.append(f"output_padding={self.output_padding}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


def _check(who: str, in_channels: int, out_channels: int, groups: int, padding: Size | str, padding_mode: str) -> None:
    if groups < 1:
        raise SettingError(f"{who} needs groups= of 1 or more, got {groups}")
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if channels % groups:
            raise ShapeError(f"{who} needs {name} that groups={groups} divides, got {channels}")
    if isinstance(padding, str) and padding not in ("same", "valid"):
        raise SettingError(f"{who} needs padding= as numbers, 'same' or 'valid', got {padding!r}")
    if padding_mode not in PADDING_MODES:
        raise SettingError(f"{who} needs padding_mode= one of {', '.join(PADDING_MODES)}, got {padding_mode!r}")


class _Forward(_Convolution):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size | str = 0,
        dilation: Size = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: DeviceLike = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            0,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def forward(self, input: Tensor) -> Tensor:
        convolve = getattr(F, f"conv{self.n}d")
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._around(), mode=self.padding_mode), 0
        return convolve(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _around(self) -> list[int]:
        """The padding in the form that `F.pad` takes: the last axis first, before and after each."""
        pairs: list[tuple[int, int]] = []
        for i, (kernel, dilation) in enumerate(zip(self.kernel_size, self.dilation, strict=True)):
            if self.padding == "same":
                total = dilation * (kernel - 1)
                pairs.append((total // 2, total - total // 2))
            else:
                pairs.append((0, 0) if isinstance(self.padding, str) else (self.padding[i], self.padding[i]))
        return [n for pair in reversed(pairs) for n in pair]


class Conv1d(_Forward):
    """Convolution of (N, in_channels, L) with windows of `kernel_size`: (N, out_channels, L').

    The weight is (out_channels, in_channels / groups, kernel_size); it and the bias begin uniform between
    ± 1 / sqrt(in_channels / groups * kernel_size).

    Args:
        padding: numbers, 'valid' for none, 'same' for a result of the input's size.
        padding_mode: what the padding consists of: `zeros`, `reflect`, `replicate` or `circular`.

    Source: torch.nn.Conv1d.
    """

    n = 1


class Conv2d(_Forward):
    """Convolution of (N, in_channels, H, W) with windows of `kernel_size`: (N, out_channels, H', W').

    The weight is (out_channels, in_channels / groups, kh, kw); arguments as in `Conv1d`.

    >>> Conv2d(1, 6, kernel_size=5, padding=2)(hal.zeros(1, 1, 28, 28)).shape
    (1, 6, 28, 28)

    Source: torch.nn.Conv2d.
    """

    n = 2


class Conv3d(_Forward):
    """Convolution of (N, in_channels, D, H, W) with windows of `kernel_size`: (N, out_channels, D', H', W').

    The weight is (out_channels, in_channels / groups, kd, kh, kw); arguments as in `Conv1d`.

    Source: torch.nn.Conv3d.
    """

    n = 3


class _Transposed(_Convolution):
    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size = 0,
        output_padding: Size = 0, groups: int = 1, bias: bool = True, dilation: Size = 1, padding_mode: str = "zeros",
        device: DeviceLike = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        given: Any = padding
        if padding_mode != "zeros" or isinstance(given, str):
            raise SettingError(f"{type(self).__name__} needs padding in numbers, with padding_mode='zeros'")
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Args: output_size: the sizes wanted, where the stride leaves several; instead of `output_padding`."""
        extra = self.output_padding if output_size is None else self._missing(input, tuple(output_size)[-self.n :])
        convolve = getattr(F, f"conv_transpose{self.n}d")
        return convolve(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation)

    def _missing(self, input: Tensor, wanted: tuple[int, ...]) -> tuple[int, ...]:
        assert not isinstance(self.padding, str)
        axes = zip(input.shape[-self.n :], self.stride, self.padding, self.dilation, self.kernel_size, strict=True)
        least = tuple((size - 1) * s - 2 * p + d * (k - 1) + 1 for size, s, p, d, k in axes)
        most = tuple(n + s - 1 for n, s in zip(least, self.stride, strict=True))
        if len(wanted) != self.n or any(not a <= w <= b for a, w, b in zip(least, wanted, most, strict=True)):
            raise ShapeError(
                f"{type(self).__name__} can give sizes from {least} to {most} here, got output_size={wanted}"
            )
        return tuple(w - n for w, n in zip(wanted, least, strict=True))


class ConvTranspose1d(_Transposed):
    """The transpose of `Conv1d`: (N, in_channels, L) to (N, out_channels, L'), with the stride between the windows.

    The weight is (in_channels, out_channels / groups, kernel_size).

    Args:
        output_padding: how many elements more than the least the result has, where the stride leaves a choice.

    Source: torch.nn.ConvTranspose1d.
    """

    n = 1


class ConvTranspose2d(_Transposed):
    """The transpose of `Conv2d`: for (N, in_channels, H, W). Source: torch.nn.ConvTranspose2d."""

    n = 2


class ConvTranspose3d(_Transposed):
    """The transpose of `Conv3d`, for (N, in_channels, D, H, W). Source: torch.nn.ConvTranspose3d."""

    n = 3
