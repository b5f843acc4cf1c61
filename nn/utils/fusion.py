"""Batch norms in use folded into the layer before them, which then does the work of both."""

from __future__ import annotations

import copy
from typing import TypeVar

import hal
from hal import ops
from hal.errors import SettingError
from hal.tensor import Tensor
from nn.batchnorm import _BatchNorm
from nn.convolution import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from nn.module import Module
from nn.parameter import Parameter

Layer = TypeVar("Layer", bound=Module)
TRANSPOSED = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)


def fuse_conv_bn_eval(conv: Layer, bn: Module, transpose: bool = False) -> Layer:
    """A copy of a convolution that gives what the batch norm behind it would; both must be in eval mode.

    Args:
        transpose: whether the convolution is a transposed one, which is also seen by its class.

    Raises:
        SettingError: one of them is in training, or the norm has no running statistics.

    Source: torch.nn.utils.fuse_conv_bn_eval.
    """
    outputs = 1 if transpose or isinstance(conv, TRANSPOSED) else 0
    return _fused("fuse_conv_bn_eval", conv, bn, outputs)


def fuse_linear_bn_eval(linear: Layer, bn: Module) -> Layer:
    """A copy of a linear layer that gives what the batch norm behind it would; both must be in eval mode.

    Raises:
        SettingError: one of them is in training, or the norm has no running statistics.

    Source: torch.nn.utils.fuse_linear_bn_eval.
    """
    return _fused("fuse_linear_bn_eval", linear, bn, 0)


def _fused(who: str, layer: Layer, bn: Module, outputs: int) -> Layer:
    """`outputs` is the axis of the weight that the channels of the result are along."""
    if layer.training or bn.training:
        raise SettingError(f"{who} needs both modules in eval mode: call eval() on the model first")
    if not isinstance(bn, _BatchNorm) or bn.running_mean is None or bn.running_var is None:
        raise SettingError(f"{who} needs a batch norm with running statistics, got {bn!r}")
    fused = copy.deepcopy(layer)
    with hal.no_grad():
        inverse = ops.rsqrt(bn.running_var + bn.eps)
        scale = inverse if bn.weight is None else inverse * bn.weight
        shift = -bn.running_mean * scale
        shift = shift if bn.bias is None else shift + bn.bias
        weight, bias = _tensors(layer)
        groups = getattr(layer, "groups", 1) if outputs else 1
        shape = [1] * weight.ndim
        if groups == 1:
            shape[outputs] = scale.shape[0]
            wide = ops.reshape(scale, shape=tuple(shape))
        else:  # (in, out / groups, ...): each group of inputs has outputs of its own
            rows = weight.shape[0] // groups
            per_group = ops.reshape(scale, shape=(groups, 1, scale.shape[0] // groups))
            wide = ops.broadcast_to(per_group, shape=(groups, rows, scale.shape[0] // groups))
            wide = ops.reshape(wide, shape=(weight.shape[0], weight.shape[1], *shape[2:]))
        fused.weight = Parameter((weight * wide).to(weight.dtype), weight.requires_grad)
        moved = shift if bias is None else bias * scale + shift
        fused.bias = Parameter(moved.to(weight.dtype), weight.requires_grad)
    return fused


def _tensors(layer: Module) -> tuple[Tensor, Tensor | None]:
    return layer.weight, layer.bias
