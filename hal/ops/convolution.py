"""Convolutions over one to three spatial axes, and the gradient with respect to their weights.

Layouts: x (N, C_in, *spatial), weight (C_out, C_in / groups, *kernel), bias (C_out). As in torch the kernel is not
flipped: y[n, o, p] = bias[o] + sum over c and k of weight[o, c, k] x[n, c, p * stride + k * dilation - padding].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import ops
from hal.errors import SettingError, ShapeError
from hal.op import SUMS, Array, Cost, Grads, Op, Rng, Sample
from hal.ops.common import REAL_NUMBERS, check_kind, common, integers, uniform
from hal.ops.windows import (
    LAYOUT,
    Sizes,
    check_layout,
    check_tuples,
    fit_windows,
    offsets,
    overhang,
    pad_spatial,
    padded,
    seen_from,
    windows,
)
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor

KERNEL = {1: "k", 2: "kH, kW", 3: "kD, kH, kW"}


def check_groups(who: str, groups: int, **channels: int) -> None:
    """Raise unless `groups` is a whole number of 1 or more that divides each number of channels."""
    if not isinstance(groups, int) or groups < 1:
        raise SettingError(f"{who} needs groups= as a whole number of 1 or more, got {groups!r}")
    for name, count in channels.items():
        if count % groups:
            raise ShapeError(f"{who} with groups={groups} needs {name} in a multiple of {groups}, got {count}")


def check_bias(who: str, bias: Spec | None, channels: int) -> None:
    """Raise ShapeError unless there is no bias, or one for each output channel."""
    if bias is not None and bias.shape != (channels,):
        raise ShapeError(f"{who} needs one bias for each of its {channels} output channels, ({channels},); got {bias.shape}")


def _check(who: str, n: int, x: Spec, weight: Shape, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int) -> Sizes:
    """The sizes of the result's spatial axes, or an error that says what was needed."""
    check_kind(who, x, REAL_NUMBERS)
    check_layout(who, x, n)
    check_tuples(who, n, 1, stride=stride, dilation=dilation)
    check_tuples(who, n, 0, padding=padding)
    if len(weight) != n + 2:
        raise ShapeError(f"{who} needs weights of layout (C_out, C_in / groups, {KERNEL[n]}), got {weight}")
    check_groups(who, groups, input_channels=x.shape[1], output_channels=weight[0])
    if weight[1] * groups != x.shape[1]:
        raise ShapeError(
            f"{who} got an input {LAYOUT[n]} of {x.shape} with {x.shape[1]} channels, but its weights {weight} in {groups} "
            f"group(s) are for {weight[1] * groups}"
        )
    return fit_windows(who, x.shape[2:], weight[2:], stride, padding, dilation)


# The convolution.


def _infer(n: int) -> Callable[..., Spec]:
    who = f"conv{n}d"

    def infer(
        x: Spec,
        weight: Spec,
        bias: Spec | None = None,
        *,
        stride: Sizes = (1,) * n,
        padding: Sizes = (0,) * n,
        dilation: Sizes = (1,) * n,
        groups: int = 1,
    ) -> Spec:
        out = _check(who, n, x, weight.shape, stride, padding, dilation, groups)
        check_bias(who, bias, weight.shape[0])
        return Spec((x.shape[0], weight.shape[0], *out), x.dtype)

    return infer


def _reference(
    x: Array, weight: Array, bias: Array | None = None, *, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Array:
    kernel = weight.shape[2:]
    out = fit_windows("conv", x.shape[2:], kernel, stride, padding, dilation)
    x = padded(x, padding, padding)
    grouped = (groups, weight.shape[0] // groups, weight.shape[1])
    total = np.zeros((x.shape[0], weight.shape[0], *out), x.dtype)
    for place in offsets(kernel):
        seen = x[seen_from(place, out, stride, dilation)].reshape(x.shape[0], groups, weight.shape[1], *out)
        weights = weight[(slice(None), slice(None), *place)].reshape(grouped)
        total += np.einsum("goc,ngc...->ngo...", weights, seen).reshape(total.shape)
    return total if bias is None else total + bias.reshape(-1, *[1] * len(out))


def _gradient(g: Tensor, out: Tensor, x: Tensor, weight: Tensor, *bias: Tensor, **settings: Any) -> Grads:
    n = x.ndim - 2

    def of_x() -> Tensor:
        rest = unreached(x.shape[2:], weight.shape[2:], **settings)
        found: Tensor = ops.TABLE[f"conv_transpose{n}d"](g, weight, output_padding=rest, **settings)
        return found

    def of_weight() -> Tensor:
        found: Tensor = ops.TABLE[f"conv{n}d_weight_gradient"](x, g, weight_shape=weight.shape, **settings)
        return found

    if not bias:
        return of_x, of_weight
    return of_x, of_weight, lambda: ops.sum(g, axis=(0, *range(2, n + 2)))


def unreached(sizes: Sizes, kernel: Sizes, *, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int) -> Sizes:
    """How many elements at the end of each axis no window reaches, since the stride is too long for one more."""
    out = fit_windows("conv", sizes, kernel, stride, padding, dilation)
    return tuple(p - o for p, o in zip(padding, overhang(sizes, out, kernel, stride, padding, dilation), strict=True))


def _decompose(x: Tensor, weight: Tensor, *bias: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int) -> Tensor:
    kernel = weight.shape[2:]
    out = fit_windows("conv", x.shape[2:], kernel, stride, padding, dilation)
    batch, channels, terms = x.shape[0], weight.shape[0], weight.shape[1] * prod(kernel)
    columns = windows(pad_spatial(x, padding, padding), out, kernel, stride, dilation)
    columns = ops.reshape(columns, shape=(batch, groups, terms, prod(out)))
    rows = ops.reshape(weight, shape=(groups, channels // groups, terms))
    result = ops.reshape(ops.matmul(rows, columns), shape=(batch, channels, *out))
    return result + ops.reshape(bias[0], shape=(channels, 1, 1)) if bias else result


def _terms(x: Spec, weight: Spec, *bias: Spec, **settings: Any) -> int:
    return prod(weight.shape[1:]) + len(bias)


def _cost(x: Spec, weight: Spec, *bias: Spec, out: Spec, **settings: Any) -> Cost:
    moved = sum(s.nbytes for s in (x, weight, *bias, out))
    return Cost(2 * out.size * prod(weight.shape[1:]) + out.size * len(bias), moved)


# One and three spatial axes, in terms of two.


def _lift(x: Tensor) -> Tensor:
    """(N, C, L) as an image of height 1."""
    return ops.reshape(x, shape=(*x.shape[:2], 1, x.shape[2]))


def lifted(stride: Sizes, padding: Sizes, dilation: Sizes) -> dict[str, Sizes]:
    """The settings of a convolution over one axis for the same thing over images of height 1."""
    return {"stride": (1, *stride), "padding": (0, *padding), "dilation": (1, *dilation)}


def _decompose_1d(x: Tensor, weight: Tensor, *bias: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int) -> Tensor:
    flat = ops.conv2d(_lift(x), _lift(weight), *bias, groups=groups, **lifted(stride, padding, dilation))
    return ops.reshape(flat, shape=(*flat.shape[:2], flat.shape[3]))


def _stacks(x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes) -> Tensor:
    """What a kernel sees at each depth, as images: (N, C, D, H, W) becomes (N * depths, C * kD, H, W)."""
    out = fit_windows("conv3d", x.shape[2:], kernel, stride, padding, dilation)
    batch, channels, _, *image = x.shape
    x = pad_spatial(x, (padding[0], 0, 0), (padding[0], 0, 0))
    flat = ops.reshape(x, shape=(batch, channels, x.shape[2], prod(image)))
    slabs = ops.take(flat, _depths(out[0], kernel[0], stride[0], dilation[0], x.device), axis=2)
    slabs = ops.permute(slabs, axes=(0, 2, 1, 3, 4))
    return ops.reshape(slabs, shape=(batch * out[0], channels * kernel[0], *image))


def _depths(out: int, kernel: int, stride: int, dilation: int, device: Any) -> Tensor:
    from hal import dtypes

    start = ops.reshape(ops.iota(size=out, dtype=dtypes.int64, device=device) * stride, shape=(out, 1))
    inside: Tensor = start + ops.iota(size=kernel, dtype=dtypes.int64, device=device) * dilation
    return inside


def _decompose_3d(x: Tensor, weight: Tensor, *bias: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int) -> Tensor:
    images = _stacks(x, weight.shape[2:], stride, padding, dilation)
    flat_weight = ops.reshape(weight, shape=(weight.shape[0], weight.shape[1] * weight.shape[2], *weight.shape[3:]))
    flat = ops.conv2d(
        images, flat_weight, *bias, stride=stride[1:], padding=padding[1:], dilation=dilation[1:], groups=groups
    )
    return ops.permute(ops.reshape(flat, shape=(x.shape[0], -1, *flat.shape[1:])), axes=(0, 2, 1, 3, 4))
