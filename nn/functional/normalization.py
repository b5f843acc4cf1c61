"""Normalisations as functions of torch's signatures; batch_norm also keeps the running statistics."""

from __future__ import annotations

from math import prod

import numpy as np

import hal
from hal import ops
from hal.errors import ShapeError
from hal.tensor import Tensor

Shape = int | tuple[int, ...] | list[int]


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Weight and bias as ops take them: a bias alone gets a weight of ones."""
    if bias is None:
        return () if weight is None else (weight,)
    return (hal.ones(*shape, dtype=x.dtype, device=x.device) if weight is None else weight, bias)


def _keep(running: Tensor, value: Tensor, momentum: float | Tensor) -> None:
    """Move a running statistic towards a new value, in place."""
    with hal.no_grad():
        hal.run_into((running,), ops.add, (running * (1 - momentum), value.detach().to(running.dtype) * momentum), {})


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float | Tensor = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Each channel of (N, C, ...) with mean 0 and variance 1, times `weight`, plus `bias`.

    Args:
        running_mean, running_var: used if not `training`; else moved, in place, by `momentum` to those of the input.
        training: normalise with the mean and variance of the input itself.

    Raises:
        ShapeError: training with one value per channel, whose variance is 0; or shapes that do not fit.

    Source: torch.nn.functional.batch_norm.
    """
    affine = _affine(input, weight, bias, input.shape[1:2])
    if not training:
        if running_mean is None or running_var is None:
            raise ShapeError("batch_norm needs running_mean and running_var unless training=True")
        out: Tensor = ops.batch_norm(input, running_mean, running_var, *affine, eps=eps)
        return out
    count = prod(input.shape) // max(1, input.shape[1]) if input.ndim > 1 else 1
    if count == 1:
        raise ShapeError(
            f"batch_norm in training needs more than one value per channel, got {input.shape}: "
            "use a larger batch, or eval()"
        )
    out, mean, var = ops.batch_norm_train(input, *affine, eps=eps)
    if running_mean is not None:
        _keep(running_mean, mean, momentum)
    if running_var is not None:
        _keep(running_var, var * (count / (count - 1)) if count > 1 else var, momentum)
    return out


def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None, weight: Tensor | None = None,
    bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Each channel of each item of (N, C, ...) with mean 0 and variance 1, times `weight`, plus `bias`.

    Args:
        running_mean, running_var: used if not `use_input_stats`; else moved towards those of the input, in place.

    Raises:
        ShapeError: one value per channel, or shapes that do not fit.

    Source: torch.nn.functional.instance_norm.
    """
    affine = _affine(input, weight, bias, input.shape[1:2])
    if not use_input_stats:
        out: Tensor = ops.batch_norm(input, running_mean, running_var, *affine, eps=eps)
        return out
    count = prod(input.shape[2:])
    if count == 1 and input.ndim > 2:
        raise ShapeError(f"instance_norm needs more than one value per channel, got {input.shape}")
    if running_mean is not None and running_var is not None:
        inner = tuple(range(2, input.ndim))
        x = input.detach()
        _keep(running_mean, ops.mean(ops.mean(x, axis=inner), axis=0), momentum)
        _keep(running_var, ops.mean(ops.var(x, axis=inner), axis=0), momentum)
    out = ops.instance_norm(input, *affine, eps=eps)
    return out


def _last_axes(who: str, x: Tensor, normalized_shape: Shape) -> tuple[int, ...]:
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"{who} over {shape} needs an input whose last axes are {shape}, got {x.shape}")
    return shape


def layer_norm(
    input: Tensor, normalized_shape: Shape, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """The last axes, whose shape is `normalized_shape`, with mean 0 and variance 1, times `weight`, plus `bias`.

    Raises:
        ShapeError: the last axes of the input have another shape.

    Source: torch.nn.functional.layer_norm.
    """
    shape = _last_axes("layer_norm", input, normalized_shape)
    out: Tensor = ops.layer_norm(input, *_affine(input, weight, bias, shape), dims=len(shape), eps=eps)
    return out


def rms_norm(input: Tensor, normalized_shape: Shape, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """The last axes divided by the root of their mean square, times `weight`.

    Args:
        eps: added to the mean square; the dtype's machine epsilon if not given.

    Raises:
        ShapeError: the last axes of the input have another shape.

    Source: torch.nn.functional.rms_norm.
    """
    shape = _last_axes("rms_norm", input, normalized_shape)
    if eps is None:
        eps = 2.0**-7 if input.dtype is hal.bfloat16 else float(np.finfo(input.dtype.numpy).eps)
    out: Tensor = ops.rms_norm(input, *(() if weight is None else (weight,)), dims=len(shape), eps=eps)
    return out


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Each group of channels of (N, C, ...) with mean 0 and variance 1, times `weight`, plus `bias` per channel.

    Raises:
        ShapeError: the channels cannot be divided into `num_groups`.

    Source: torch.nn.functional.group_norm.
    """
    out: Tensor = ops.group_norm(input, *_affine(input, weight, bias, input.shape[1:2]), groups=num_groups, eps=eps)
    return out


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Each element divided by (k + alpha * the mean square of `size` neighbouring channels) ** beta.

    Source: torch.nn.functional.local_response_norm.
    """
    return ops.local_response_norm(input, size=size, alpha=alpha, beta=beta, k=k)


def normalize(input: Tensor, p: float = 2.0, dim: int | tuple[int, ...] = 1, eps: float = 1e-12) -> Tensor:
    """The input divided by its p-norm along `dim`, or by `eps` where that is larger.

    Source: torch.nn.functional.normalize.
    """
    return input / ops.maximum(p_norm(input, p, dim, keepdims=True), eps)


def p_norm(x: Tensor, p: float, axis: int | tuple[int, ...], keepdims: bool = False) -> Tensor:
    """The p-norm along `axis`."""
    return hal.norm(x, p, axis=axis, keepdims=keepdims)
