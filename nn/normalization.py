"""Normalisation layers without running statistics: layer, group, RMS and local response norm."""

from __future__ import annotations

from typing import Any

import hal
from hal.creation import DeviceLike
from hal.errors import ShapeError
from hal.tensor import Tensor
from nn import functional as F
from nn import init
from nn.functional.normalization import Shape
from nn.module import Module
from nn.parameter import Parameter


def _reset(weight: Parameter | None, bias: Parameter | None) -> None:
    if weight is not None:
        init.ones_(weight)
    if bias is not None:
        init.zeros_(bias)


class LayerNorm(Module):
    """The last axes with mean 0 and variance 1, times `weight`, plus `bias`.

    Args:
        normalized_shape: the shape of those axes, and of weight and bias.
        elementwise_affine: whether there are a weight and a bias.

    Source: torch.nn.LayerNorm; Ba, Kiros, Hinton, 2016.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, normalized_shape: Shape, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True,
        device: DeviceLike = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine

        def values() -> Parameter:
            return Parameter(hal.empty(*self.normalized_shape, device=device, dtype=dtype))

        self.register_parameter("weight", values() if elementwise_affine else None)
        self.register_parameter("bias", values() if elementwise_affine and bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale by 1 and shift by 0."""
        _reset(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        affine = f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        return f"{self.normalized_shape}, eps={self.eps}, {affine}"


class RMSNorm(Module):
    """The last axes divided by the root of their mean square, times `weight`.

    Args:
        normalized_shape: the shape of those axes, and of the weight.
        eps: added to the mean square; the dtype's machine epsilon if not given.

    Source: torch.nn.RMSNorm; Zhang, Sennrich, 2019.
    """

    weight: Parameter | None

    def __init__(
        self, normalized_shape: Shape, eps: float | None = None, elementwise_affine: bool = True,
        device: DeviceLike = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        values = hal.empty(*self.normalized_shape, device=device, dtype=dtype)
        self.register_parameter("weight", Parameter(values) if elementwise_affine else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale by 1."""
        _reset(self.weight, None)

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Each group of channels of (N, C, ...) with mean 0 and variance 1, times `weight`, plus `bias` per channel.

    Raises:
        ShapeError: `num_groups` does not divide `num_channels`.

    Source: torch.nn.GroupNorm; Wu, He, 2018.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: DeviceLike = None,
        dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_channels % num_groups:
            raise ShapeError(f"GroupNorm needs num_channels that num_groups={num_groups} divides, got {num_channels}")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine

        def values() -> Parameter:
            return Parameter(hal.empty(num_channels, device=device, dtype=dtype))

        self.register_parameter("weight", values() if affine else None)
        self.register_parameter("bias", values() if affine and bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale by 1 and shift by 0."""
        _reset(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        affine = f"affine={self.affine}, bias={self.bias is not None}"
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, {affine}"


class LocalResponseNorm(Module):
    """Each element divided by (k + alpha * the mean square of `size` neighbouring channels) ** beta.

    Source: torch.nn.LocalResponseNorm; Krizhevsky, Sutskever, Hinton, 2012.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
