"""Lazy layers: the number of input features or channels is taken from the first input."""

from __future__ import annotations

from typing import Any

import hal
from hal import tracing
from hal.creation import DeviceLike
from hal.errors import SettingError, ShapeError
from hal.tensor import Tensor
from nn.batchnorm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    _Norm,
)
from nn.convolution import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    _Convolution,
    _Forward,
    _Transposed,
)
from nn.functional.sizes import Size
from nn.linear import Linear
from nn.module import Module
from nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy


class LazyModuleMixin(Module):
    """Put before a module class: its first forward pass calls `initialize_parameters` on the input.

    After that the module is of the class `cls_to_become`, with ordinary parameters.

    Source: torch.nn.modules.lazy.LazyModuleMixin.
    """

    cls_to_become: type[Module] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy_hook = self.register_forward_pre_hook(LazyModuleMixin._initialize, with_kwargs=True)

    def has_uninitialized_params(self) -> bool:
        """Whether any of its own parameters and buffers has no shape yet."""
        return any(is_lazy(tensor) for tensor in (*self._parameters.values(), *self._buffers.values()))

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Give shapes and initial values to what has none, from the arguments of the first forward pass."""
        raise NotImplementedError(
            f"{type(self).__name__} has no initialize_parameters: write one that reads the input's shape"
        )

    @staticmethod
    def _initialize(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with tracing.eagerly():  # parameters are made once, not by every call of a compiled function
            module.initialize_parameters(*args, **kwargs)
        if module.has_uninitialized_params():
            raise SettingError(f"{type(module).__name__}.initialize_parameters left parameters without a shape")
        module._lazy_hook.remove()
        del module._lazy_hook
        if module.cls_to_become is not None:
            module.__class__ = module.cls_to_become


class LazyLinear(LazyModuleMixin, Linear):
    """A `Linear` whose `in_features` is the size of the first input's last axis. Source: torch.nn.LazyLinear."""

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device: DeviceLike = None, dtype: Any = None) -> None:
        super().__init__(0, 0, False)
        self.out_features = out_features
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw new initial values, if there are parameters yet."""
        if not self.has_uninitialized_params() and self.in_features:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Take `in_features` from the input."""
        self.in_features = input.shape[-1]
        fresh = self.has_uninitialized_params()
        for parameter, shape in (
            (self.weight, (self.out_features, self.in_features)),
            (self.bias, (self.out_features,)),
        ):
            if isinstance(parameter, UninitializedParameter):
                parameter.materialize(shape)
        if fresh:
            self.reset_parameters()


class _LazyConvolution(LazyModuleMixin, _Convolution):
    """A convolution whose `in_channels` is the number of channels of the first input."""

    def __init__(self, out_channels: int, kernel_size: Size, *args: Any, **settings: Any) -> None:
        bias, device, dtype = settings.pop("bias"), settings.pop("device"), settings.pop("dtype")
        super().__init__(0, 0, kernel_size, *args, bias=False, **settings)
        if out_channels % self.groups:
            raise ShapeError(
                f"{type(self).__name__} needs out_channels that groups={self.groups} divides, got {out_channels}"
            )
        self.out_channels = out_channels
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw new initial values, if there are parameters yet."""
        if not self.has_uninitialized_params() and self.in_channels:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """Take `in_channels` from the input."""
        if input.ndim not in (self.n + 1, self.n + 2):
            raise ShapeError(
                f"{type(self).__name__} needs an input with {self.n + 1} or {self.n + 2} axes, got shape {input.shape}"
            )
        channels = input.shape[-self.n - 1]
        if channels % self.groups:
            raise ShapeError(
                f"{type(self).__name__} needs channels that groups={self.groups} divides, got shape {input.shape}"
            )
        self.in_channels = channels
        fresh = self.has_uninitialized_params()
        for parameter, shape in ((self.weight, self._weight_shape()), (self.bias, (self.out_channels,))):
            if isinstance(parameter, UninitializedParameter):
                parameter.materialize(shape)
        if fresh:
            self.reset_parameters()


class _LazyForward(_LazyConvolution, _Forward):
    def __init__(
        self, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size | str = 0, dilation: Size = 1,
        groups: int = 1, bias: bool = True, padding_mode: str = "zeros", device: DeviceLike = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            out_channels, kernel_size, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias,
            padding_mode=padding_mode, device=device, dtype=dtype,
        )  # fmt: skip


class _LazyTransposed(_LazyConvolution, _Transposed):
    def __init__(
        self, out_channels: int, kernel_size: Size, stride: Size = 1, padding: Size = 0, output_padding: Size = 0,
        groups: int = 1, bias: bool = True, dilation: Size = 1, padding_mode: str = "zeros", device: DeviceLike = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            out_channels, kernel_size, stride=stride, padding=padding, output_padding=output_padding, groups=groups,
            bias=bias, dilation=dilation, padding_mode=padding_mode, device=device, dtype=dtype,
        )  # fmt: skip


class LazyConv1d(_LazyForward, Conv1d):
    """A `Conv1d` whose `in_channels` is taken from the first input. Source: torch.nn.LazyConv1d."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyForward, Conv2d):
    """A `Conv2d` whose `in_channels` is taken from the first input. Source: torch.nn.LazyConv2d."""

    cls_to_become = Conv2d


class LazyConv3d(_LazyForward, Conv3d):
    """A `Conv3d` whose `in_channels` is taken from the first input. Source: torch.nn.LazyConv3d."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(_LazyTransposed, ConvTranspose1d):
    """A `ConvTranspose1d` whose `in_channels` is taken from the first input. Source: torch.nn.LazyConvTranspose1d."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyTransposed, ConvTranspose2d):
    """A `ConvTranspose2d` whose `in_channels` is taken from the first input. Source: torch.nn.LazyConvTranspose2d."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyTransposed, ConvTranspose3d):
    """A `ConvTranspose3d` whose `in_channels` is taken from the first input. Source: torch.nn.LazyConvTranspose3d."""

    cls_to_become = ConvTranspose3d


class _LazyNorm(LazyModuleMixin, _Norm):
    """A norm whose `num_features` is the number of channels of the first input."""

    _channel_axis = 1

    def __init__(
        self, eps: float, momentum: float | None, affine: bool, track_running_stats: bool, device: DeviceLike,
        dtype: Any, bias: bool,
    ) -> None:  # fmt: skip
        super().__init__(0, eps, momentum, False, False, device, dtype, bias=bias)
        self.affine = affine
        self.track_running_stats = track_running_stats
        if affine:
            self.weight = UninitializedParameter(device=device, dtype=dtype)
            if bias:
                self.bias = UninitializedParameter(device=device, dtype=dtype)
        if track_running_stats:
            self.running_mean = UninitializedBuffer(device=device, dtype=dtype)
            self.running_var = UninitializedBuffer(device=device, dtype=dtype)
            self.num_batches_tracked = hal.tensor(0, dtype=hal.int64, device=device)

    def reset_parameters(self) -> None:
        """Forget the statistics; scale by 1 and shift by 0, if there are parameters yet."""
        if not self.has_uninitialized_params() and self.num_features:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Take `num_features` from the input."""
        self._check_input(input)
        self.num_features = input.shape[self._channel_axis]
        fresh = self.has_uninitialized_params()
        for tensor in (self.weight, self.bias, self.running_mean, self.running_var):
            if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
                tensor.materialize((self.num_features,))
        if fresh:
            self.reset_parameters()


class _LazyBatchNorm(_LazyNorm):
    def __init__(
        self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True, track_running_stats: bool = True,
        device: DeviceLike = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(eps, momentum, affine, track_running_stats, device, dtype, bias)


class _LazyInstanceNorm(_LazyNorm):
    @property
    def _channel_axis(self) -> int:  # type: ignore[override]  # from the end: there may be no batch
        return 1 - max(self.axes)

    def __init__(
        self, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True, track_running_stats: bool = True,
        device: DeviceLike = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(eps, momentum, affine, track_running_stats, device, dtype, bias)


class LazyBatchNorm1d(_LazyBatchNorm, BatchNorm1d):
    """A `BatchNorm1d` whose `num_features` is taken from the first input. Source: torch.nn.LazyBatchNorm1d."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyBatchNorm, BatchNorm2d):
    """A `BatchNorm2d` whose `num_features` is taken from the first input. Source: torch.nn.LazyBatchNorm2d."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyBatchNorm, BatchNorm3d):
    """A `BatchNorm3d` whose `num_features` is taken from the first input. Source: torch.nn.LazyBatchNorm3d."""

    cls_to_become = BatchNorm3d


class LazyInstanceNorm1d(_LazyInstanceNorm, InstanceNorm1d):
    """An `InstanceNorm1d` whose `num_features` is taken from the first input. Source: torch.nn.LazyInstanceNorm1d."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_LazyInstanceNorm, InstanceNorm2d):
    """An `InstanceNorm2d` whose `num_features` is taken from the first input. Source: torch.nn.LazyInstanceNorm2d."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_LazyInstanceNorm, InstanceNorm3d):
    """An `InstanceNorm3d` whose `num_features` is taken from the first input. Source: torch.nn.LazyInstanceNorm3d."""

    cls_to_become = InstanceNorm3d
