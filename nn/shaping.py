"""Layers that only change shapes: flattening and its reverse, padding, shuffling pixels and channels."""

from __future__ import annotations

from collections.abc import Sequence

from hal.errors import ShapeError
from hal.tensor import Tensor
from nn import functional as F
from nn.functional.sizes import Size
from nn.module import Module


class Flatten(Module):
    """The axes from `start_dim` to `end_dim` as one. Source: torch.nn.Flatten.

    >>> import hal
    >>> Flatten()(hal.zeros(2, 3, 4)).shape
    (2, 12)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Axis `dim` as several, of sizes `unflattened_size`, one of which may be -1. Source: torch.nn.Unflatten.

    Raises:
        ShapeError: the sizes do not multiply to that of the axis.
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        if not -input.ndim <= self.dim < input.ndim:
            raise ShapeError(f"Unflatten got dim={self.dim}, but its input has shape {input.shape}")
        axis = self.dim % input.ndim
        return input.reshape(*input.shape[:axis], *self.unflattened_size, *input.shape[axis + 1 :])

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class _Pad(Module):
    n: int
    mode: str

    def __init__(self, padding: Size) -> None:
        super().__init__()
        self.padding = (padding,) * (2 * self.n) if isinstance(padding, int) else tuple(padding)
        if len(self.padding) != 2 * self.n:
            raise ShapeError(f"{type(self).__name__} needs one number or {2 * self.n} of them, got {padding}")

    def forward(self, input: Tensor) -> Tensor:
        if self.mode != "constant" and input.ndim not in (self.n + 1, self.n + 2):
            raise ShapeError(
                f"{type(self).__name__} needs an input with {self.n + 1} or {self.n + 2} axes, got shape {input.shape}"
            )
        return F.pad(input, self.padding, mode=self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: Size, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, value=self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """`value` added before and after the last axis. Source: torch.nn.ConstantPad1d."""

    n = 1


class ConstantPad2d(_ConstantPad):
    """`value` added around the last two axes: (left, right, top, bottom). Source: torch.nn.ConstantPad2d."""

    n = 2


class ConstantPad3d(_ConstantPad):
    """`value` added around the last three axes. Source: torch.nn.ConstantPad3d."""

    n = 3


class ZeroPad1d(_Pad):
    """Zeros added before and after the last axis. Source: torch.nn.ZeroPad1d."""

    n, mode = 1, "constant"


class ZeroPad2d(_Pad):
    """Zeros added around the last two axes: (left, right, top, bottom). Source: torch.nn.ZeroPad2d."""

    n, mode = 2, "constant"


class ZeroPad3d(_Pad):
    """Zeros added around the last three axes. Source: torch.nn.ZeroPad3d."""

    n, mode = 3, "constant"


class ReflectionPad1d(_Pad):
    """The last axis continued by its mirror image. Source: torch.nn.ReflectionPad1d."""

    n, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """The last two axes continued by their mirror images. Source: torch.nn.ReflectionPad2d."""

    n, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """The last three axes continued by their mirror images. Source: torch.nn.ReflectionPad3d."""

    n, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """The last axis continued by its edges. Source: torch.nn.ReplicationPad1d."""

    n, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The last two axes continued by their edges. Source: torch.nn.ReplicationPad2d."""

    n, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """The last three axes continued by their edges. Source: torch.nn.ReplicationPad3d."""

    n, mode = 3, "replicate"


class CircularPad1d(_Pad):
    """The last axis continued by its other end. Source: torch.nn.CircularPad1d."""

    n, mode = 1, "circular"


class CircularPad2d(_Pad):
    """The last two axes continued by their other ends. Source: torch.nn.CircularPad2d."""

    n, mode = 2, "circular"


class CircularPad3d(_Pad):
    """The last three axes continued by their other ends. Source: torch.nn.CircularPad3d."""

    n, mode = 3, "circular"


class PixelShuffle(Module):
    """(N, C r², H, W) as (N, C, H r, W r). Source: torch.nn.PixelShuffle."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """(N, C, H r, W r) as (N, C r², H, W). Source: torch.nn.PixelUnshuffle."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """The channels of (N, C, ...), dealt out from `groups` groups in turn. Source: torch.nn.ChannelShuffle.

    Raises:
        ShapeError: the channels cannot be divided into the groups.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
