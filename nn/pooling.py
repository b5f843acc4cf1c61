"""Pooling layers: the largest element or the mean of windows, over one to three spatial axes."""

from __future__ import annotations

from typing import Any

from hal.errors import SettingError
from hal.tensor import Tensor
from nn import functional as F
from nn.functional.fractional import Ratio
from nn.functional.pooling import OutputSize
from nn.functional.sizes import Size, spread
from nn.module import Module


class _MaxPool(Module):
    n: int

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        pool = getattr(F, f"max_pool{self.n}d")
        settings = self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        return pool(input, *settings)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest element of each window of (N, C, L).

    Args:
        stride: distance between windows; their size if not given.
        return_indices: give where each maximum was too, for `MaxUnpool1d`.
        ceil_mode: whether a last window may hang over the end.

    Source: torch.nn.MaxPool1d.
    """

    n = 1


class MaxPool2d(_MaxPool):
    """The largest element of each window of (N, C, H, W); arguments as in `MaxPool1d`. Source: torch.nn.MaxPool2d."""

    n = 2


class MaxPool3d(_MaxPool):
    """The largest element of each window of (N, C, D, H, W); see `MaxPool1d`. Source: torch.nn.MaxPool3d."""

    n = 3


class AvgPool1d(Module):
    """The mean of each window of (N, C, L).

    Args:
        count_include_pad: whether the zeros of the padding count as elements.

    Source: torch.nn.AvgPool1d.
    """

    def __init__(
        self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = _one(kernel_size)
        self.stride = self.kernel_size if stride is None else _one(stride)
        self.padding = _one(padding)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


def _one(size: Size) -> Size:
    return (size,) if isinstance(size, int) else size


class _AvgPool(Module):
    n: int

    def __init__(
        self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        pool = getattr(F, f"avg_pool{self.n}d")
        return pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """The mean of each window of (N, C, H, W).

    Args:
        count_include_pad: whether the zeros of the padding count as elements.
        divisor_override: what the sum of a window is divided by, instead of the number of its elements.

    Source: torch.nn.AvgPool2d.
    """

    n = 2


class AvgPool3d(_AvgPool):
    """The mean of each window of (N, C, D, H, W); arguments as in `AvgPool2d`. Source: torch.nn.AvgPool3d."""

    n = 3


class _Adaptive(Module):
    kind: str
    n: int

    def __init__(self, output_size: OutputSize) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        pool: Any = getattr(F, f"adaptive_{self.kind}_pool{self.n}d")
        return pool(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_Adaptive):
    """Means of windows that cut (N, C, L) into `output_size` parts. Source: torch.nn.AdaptiveAvgPool1d."""

    kind, n = "avg", 1


class AdaptiveAvgPool2d(_Adaptive):
    """Means of windows that cut the image into `output_size` parts; None keeps an axis as it is.

    Source: torch.nn.AdaptiveAvgPool2d.
    """

    kind, n = "avg", 2


class AdaptiveAvgPool3d(_Adaptive):
    """Means of windows that cut the volume into `output_size` parts. Source: torch.nn.AdaptiveAvgPool3d."""

    kind, n = "avg", 3


class _AdaptiveMax(_Adaptive):
    kind = "max"

    def __init__(self, output_size: OutputSize, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return getattr(F, f"adaptive_max_pool{self.n}d")(input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMax):
    """Maxima of windows that cut (N, C, L) into `output_size` parts. Source: torch.nn.AdaptiveMaxPool1d."""

    n = 1


class AdaptiveMaxPool2d(_AdaptiveMax):
    """Maxima of windows that cut the image into `output_size` parts. Source: torch.nn.AdaptiveMaxPool2d."""

    n = 2


class AdaptiveMaxPool3d(_AdaptiveMax):
    """Maxima of windows that cut the volume into `output_size` parts. Source: torch.nn.AdaptiveMaxPool3d."""

    n = 3


class _MaxUnpool(Module):
    n: int

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        who = type(self).__name__
        self.kernel_size = spread(who, "kernel_size", kernel_size, self.n)
        self.stride = self.kernel_size if stride is None else spread(who, "stride", stride, self.n)
        self.padding = spread(who, "padding", padding, self.n)

    def forward(self, input: Tensor, indices: Tensor, output_size: tuple[int, ...] | None = None) -> Tensor:
        unpool = getattr(F, f"max_unpool{self.n}d")
        return unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Zeros, with maxima (N, C, L) where `MaxPool1d(..., return_indices=True)` found them.

    Source: torch.nn.MaxUnpool1d.
    """

    n = 1


class MaxUnpool2d(_MaxUnpool):
    """`MaxUnpool1d` for (N, C, H, W). Source: torch.nn.MaxUnpool2d; Zeiler, Fergus, 2014."""

    n = 2


class MaxUnpool3d(_MaxUnpool):
    """`MaxUnpool1d` for (N, C, D, H, W). Source: torch.nn.MaxUnpool3d."""

    n = 3


class _LPPool(Module):
    n: int

    def __init__(
        self, norm_type: float, kernel_size: Size, stride: Size | None = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        pool = getattr(F, f"lp_pool{self.n}d")
        return pool(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """(sum of x ** p) ** (1 / p) over each window of (N, C, L). Source: torch.nn.LPPool1d."""

    n = 1


class LPPool2d(_LPPool):
    """(sum of x ** p) ** (1 / p) over each window of (N, C, H, W). Source: torch.nn.LPPool2d."""

    n = 2


class LPPool3d(_LPPool):
    """(sum of x ** p) ** (1 / p) over each window of (N, C, D, H, W). Source: torch.nn.LPPool3d."""

    n = 3


class _FractionalMax(Module):
    n: int

    def __init__(
        self, kernel_size: Size, output_size: Size | None = None, output_ratio: Ratio | None = None,
        return_indices: bool = False, _random_samples: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.output_size = output_size
        self.output_ratio = output_ratio
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        if (output_size is None) == (output_ratio is None):
            raise SettingError(f"{type(self).__name__} needs output_size= or output_ratio=, one of them")

    def forward(self, input: Tensor) -> Any:
        pool = getattr(F, f"fractional_max_pool{self.n}d")
        settings = self.kernel_size, self.output_size, self.output_ratio, self.return_indices, self._random_samples
        return pool(input, *settings)


class FractionalMaxPool2d(_FractionalMax):
    """Maxima of windows that are laid over (N, C, H, W) at random distances.

    Args:
        output_size: how many windows there are along each axis; or
        output_ratio: how many in relation to the size of the input, between 0 and 1.
        return_indices: give where each maximum was too, for `MaxUnpool2d`.

    Raises:
        SettingError: neither or both of output_size and output_ratio.

    Source: torch.nn.FractionalMaxPool2d; Graham, "Fractional Max-Pooling", 2014.
    """

    n = 2


class FractionalMaxPool3d(_FractionalMax):
    """`FractionalMaxPool2d` for (N, C, D, H, W). Source: torch.nn.FractionalMaxPool3d."""

    n = 3
