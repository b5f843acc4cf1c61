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
from hal.ops.images import flat_weight, lift, lifted, lower, slabs, volume
from hal.ops.precision import widened
from hal.ops.windows import (
    LAYOUT,
    Sizes,
    at,
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
        raise ShapeError(
            f"{who} needs one bias for each of its {channels} output channels, ({channels},); got {bias.shape}"
        )


def check_convolution(
    who: str, n: int, x: Spec, weight: Shape, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Sizes:
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
            f"{who} got an input {LAYOUT[n]} of {x.shape} with {x.shape[1]} channels, but its weights {weight} "
            f"(C_out, C_in / groups, {KERNEL[n]}) with groups={groups} are for {weight[1] * groups}"
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
        out = check_convolution(who, n, x, weight.shape, stride, padding, dilation, groups)
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
        weights = weight[at(place)].reshape(grouped)
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


def _product(
    x: Tensor, weight: Tensor, *bias: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Tensor:
    kernel = weight.shape[2:]
    out = fit_windows("conv", x.shape[2:], kernel, stride, padding, dilation)
    batch, channels, terms = x.shape[0], weight.shape[0], weight.shape[1] * prod(kernel)
    columns = windows(pad_spatial(x, padding, padding), out, kernel, stride, dilation)
    columns = ops.reshape(columns, shape=(batch, groups, terms, prod(out)))
    rows = ops.reshape(weight, shape=(groups, channels // groups, terms))
    result = ops.reshape(ops.matmul(rows, columns), shape=(batch, channels, *out))
    return result + ops.reshape(bias[0], shape=(channels, 1, 1)) if bias else result


def _decompose(x: Tensor, weight: Tensor, *bias: Tensor, **settings: Any) -> Tensor:
    # One product rounds once by itself, in half precision too, where it is fast; adding a bias would round again.
    return widened(_product)(x, weight, *bias, **settings) if bias else _product(x, weight, **settings)


def _terms(x: Spec, weight: Spec, *bias: Spec, **settings: Any) -> int:
    return prod(weight.shape[1:]) + len(bias)


def _cost(x: Spec, weight: Spec, *bias: Spec, out: Spec, **settings: Any) -> Cost:
    moved = sum(s.nbytes for s in (x, weight, *bias, out))
    return Cost(2 * out.size * prod(weight.shape[1:]) + out.size * len(bias), moved)


# One and three spatial axes, in terms of two.


def _decompose_1d(x: Tensor, weight: Tensor, *bias: Tensor, groups: int, **settings: Any) -> Tensor:
    return lower(ops.conv2d(lift(x), lift(weight), *bias, groups=groups, **lifted(**settings)))


def _decompose_3d(x: Tensor, weight: Tensor, *bias: Tensor, groups: int, **settings: Any) -> Tensor:
    depths = fit_windows("conv3d", x.shape[2:], weight.shape[2:], **settings)[0]
    images = slabs(x, weight.shape[2:], **settings)
    settings = {name: sizes[1:] for name, sizes in settings.items()}
    return volume(ops.conv2d(images, flat_weight(weight), *bias, groups=groups, **settings), x.shape[0], depths)


# Sample calls.

Case = tuple[Shape, Shape, dict[str, Any]]


def cases(n: int) -> Iterator[Case]:
    """Shapes of inputs and weights, and settings, for `n` spatial axes: the last one is large."""

    def last(*values: int) -> Sizes:
        return values[-n:]

    sizes, kernel, ones = last(4, 5, 6), last(2, 3, 2), (1,) * n
    yield (2, 3, *sizes), (4, 3, *kernel), {}
    yield (2, 2, *sizes), (3, 2, *last(3, 3, 3)), {"padding": ones}
    yield (1, 2, *last(5, 6, 7)), (2, 2, *kernel), {"stride": last(2, 2, 3)}  # some elements are in no window
    yield (2, 2, *sizes), (3, 2, *kernel), {"stride": last(1, 2, 2), "padding": last(1, 2, 1)}
    yield (1, 2, *last(5, 6, 7)), (2, 2, *kernel), {"dilation": last(2, 2, 3), "padding": last(0, 1, 2)}
    yield (1, 1, *last(5, 7, 8)), (2, 1, *last(2, 2, 3)), {"dilation": last(1, 3, 2), "stride": last(2, 2, 3)}
    yield (2, 4, *sizes), (6, 2, *kernel), {"groups": 2}
    yield (2, 3, *sizes), (3, 1, *last(3, 3, 3)), {"groups": 3, "padding": ones}  # depthwise
    yield (1, 2, *sizes), (6, 1, *kernel), {"groups": 2, "stride": last(2, 2, 2)}  # depthwise, three for each channel
    yield (2, 3, *sizes), (4, 3, *ones), {}
    yield (2, 3, *sizes), (2, 3, *ones), {"stride": last(2, 2, 3)}
    yield (3, 2, *kernel), (4, 2, *kernel), {}  # one window
    yield (2, 1, *ones), (1, 1, *last(3, 3, 3)), {"padding": last(2, 2, 2)}  # more padding than image
    yield (0, 2, *sizes), (3, 2, *kernel), {"padding": ones}
    yield (3, 5, *last(5, 19, 37)), (7, 5, *last(3, 3, 5)), {"padding": last(1, 1, 2)}


def drawn(rng: Rng, *shapes: Shape) -> tuple[Array, ...]:
    """Random arrays of these shapes."""
    return tuple(uniform(rng, shape) for shape in shapes)


def mirrored(array: Array) -> Array:
    """The same shape with negative strides and swapped axes in memory."""
    return array.T.copy().T[(slice(None, None, -1),) * array.ndim]


def _samples(n: int) -> Callable[[Rng], Iterator[Sample]]:
    def samples(rng: Rng) -> Iterator[Sample]:
        for i, (x, weight, settings) in enumerate(cases(n)):
            shapes = (x, weight, weight[:1]) if i % 2 else (x, weight)
            yield Sample(drawn(rng, *shapes), settings, smooth=prod(x) < 300)
        x, weight, settings = next(cases(n))
        yield Sample(tuple(map(mirrored, drawn(rng, x, weight, weight[:1]))), settings)
        yield Sample((integers(rng, x), integers(rng, weight)), settings, smooth=False, exact=True)

    return samples


def _convolution(n: int) -> Op:
    return Op(
        f"conv{n}d", _infer(n), _reference, _samples(n), _gradient,
        {1: _decompose_1d, 2: _decompose, 3: _decompose_3d}[n], _cost, "contraction",
        promote=common, terms=_terms, tolerance=SUMS,
        doc=f"The convolution of x {LAYOUT[n]} with weight (C_out, C_in / groups, {KERNEL[n]}), plus bias (C_out).",
    )  # fmt: skip


conv1d, conv2d, conv3d = map(_convolution, (1, 2, 3))
