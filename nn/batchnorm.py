"""Normalisation layers that may keep running statistics: batch norm and instance norm."""

from __future__ import annotations

from typing import Any

import hal
from hal.creation import DeviceLike
from hal.errors import ShapeError
from hal.tensor import Tensor
from nn import functional as F
from nn import init
from nn.module import Module
from nn.parameter import Parameter


class _Norm(Module):
    """What batch norm and instance norm have in common: scale and shift per channel, and running statistics."""

    axes: tuple[int, ...]  # how many axes an input may have
    layouts: str
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    _may_be_missing = frozenset({"num_batches_tracked"})  # files from before torch 0.4.1 lack it

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool,
        device: DeviceLike, dtype: Any, bias: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats

        def channels() -> Tensor:
            return hal.zeros(num_features, device=device, dtype=dtype)

        self.register_parameter("weight", Parameter(channels()) if affine else None)
        self.register_parameter("bias", Parameter(channels()) if affine and bias else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", channels() if tracked else None)
        self.register_buffer("running_var", channels() if tracked else None)
        count = hal.tensor(0, dtype=hal.int64, device=device) if tracked else None
        self.register_buffer("num_batches_tracked", count)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget the statistics: mean 0, variance 1, no batches."""
        with hal.no_grad():
            for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
                if buffer is not None:
                    buffer.fill_(value)

    def reset_parameters(self) -> None:
        """Forget the statistics; scale by 1 and shift by 0."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check_input(self, input: Tensor) -> None:
        if input.ndim not in self.axes:
            raise ShapeError(f"{type(self).__name__} needs an input {self.layouts}, got shape {input.shape}")

    def extra_repr(self) -> str:
        affine = f"affine={self.affine}, bias={self.bias is not None}"
        tracks = f"track_running_stats={self.track_running_stats}"
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, {affine}, {tracks}"


class _BatchNorm(_Norm):
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: DeviceLike = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input(input)
        if input.shape[1] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__} of {self.num_features} channels got an input of shape {input.shape}"
            )
        mean, var = self.running_mean, self.running_var
        learns = self.training and mean is not None
        batch = self.training or mean is None
        momentum = self._count() if learns else 0.0
        return F.batch_norm(
            input, mean if learns or not batch else None, var if learns or not batch else None, self.weight, self.bias,
            training=batch, momentum=momentum, eps=self.eps,
        )  # fmt: skip

    def _count(self) -> float | Tensor:
        """Count a batch; the momentum for it, which without a fixed one makes the statistics plain averages."""
        assert self.num_batches_tracked is not None
        with hal.no_grad():
            self.num_batches_tracked.add_(1)
            return 1.0 / self.num_batches_tracked.to(hal.float32) if self.momentum is None else self.momentum


class BatchNorm1d(_BatchNorm):
    """Each channel of (N, C) or (N, C, L) with mean 0 and variance 1 over the batch, times `weight`, plus `bias`.

    In training the batch's own statistics are used, and the running ones move towards them; in eval mode the running
    ones are used.

    Args:
        momentum: how far the running statistics move; None for plain averages over all batches.
        affine: whether there are a weight and a bias.
        track_running_stats: without running statistics, the batch's own are always used.

    Source: torch.nn.BatchNorm1d; Ioffe, Szegedy, 2015.
    """

    axes, layouts = (2, 3), "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    """Batch norm of (N, C, H, W); see `BatchNorm1d`. Source: torch.nn.BatchNorm2d."""

    axes, layouts = (4,), "(N, C, H, W)"


class BatchNorm3d(_BatchNorm):
    """Batch norm of (N, C, D, H, W); see `BatchNorm1d`. Source: torch.nn.BatchNorm3d."""

    axes, layouts = (5,), "(N, C, D, H, W)"


class _InstanceNorm(_Norm):
    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: DeviceLike = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input(input)
        single = input.ndim == self.axes[0]
        x = input.unsqueeze(0) if single else input
        if self.affine and x.shape[1] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__} of {self.num_features} channels got an input of shape {input.shape}"
            )
        y = F.instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training or self.running_mean is None,
            self.momentum or 0.0, self.eps,
        )  # fmt: skip
        return y.squeeze(0) if single else y


class InstanceNorm1d(_InstanceNorm):
    """Each channel of each item of (N, C, L) with mean 0 and variance 1. Source: torch.nn.InstanceNorm1d."""

    axes, layouts = (2, 3), "(N, C, L) or (C, L)"


class InstanceNorm2d(_InstanceNorm):
    """Each channel of each item of (N, C, H, W) with mean 0 and variance 1. Source: torch.nn.InstanceNorm2d."""

    axes, layouts = (3, 4), "(N, C, H, W) or (C, H, W)"


class InstanceNorm3d(_InstanceNorm):
    """Each channel of each item of (N, C, D, H, W) with mean 0 and variance 1. Source: torch.nn.InstanceNorm3d."""

    axes, layouts = (4, 5), "(N, C, D, H, W) or (C, D, H, W)"
