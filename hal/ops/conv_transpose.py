"""Transposed convolutions over one to three spatial axes: a convolution's gradient with respect to its input, as an op.

Layouts: x (N, C_in, *spatial), weight (C_in, C_out / groups, *kernel), bias (C_out). Each element of x adds its
multiple of the kernel to the result: y[n, o, p * stride + k * dilation - padding] += x[n, c, p] weight[c, o, k].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import ops
from hal.errors import SettingError, ShapeError
from hal.op import SUMS, Array, Cost, Grads, Op, Rng, Sample
from hal.ops.common import REAL_NUMBERS, check_kind, common, integers
from hal.ops.convolution import KERNEL, cases, check_bias, check_groups, drawn, mirrored
from hal.ops.steps import cut
from hal.ops.windows import (
    LAYOUT,
    Sizes,
    at,
    check_layout,
    check_tuples,
    extent,
    flip_spatial,
    grow,
    offsets,
    pad_spatial,
    padded,
    seen_from,
)
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def result_sizes(
    sizes: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, output_padding: Sizes, dilation: Sizes
) -> Sizes:
    """The spatial sizes of the result. Source: the shape formula of torch.nn.ConvTranspose2d."""
    reaches = extent(kernel, dilation)
    steps = zip(sizes, stride, padding, output_padding, reaches, strict=True)
    return tuple((size - 1) * s - 2 * p + reach + o for size, s, p, o, reach in steps)


def _infer(n: int) -> Callable[..., Spec]:
    who = f"conv_transpose{n}d"

    def infer(
        x: Spec,
        weight: Spec,
        bias: Spec | None = None,
        *,
        stride: Sizes = (1,) * n,
        padding: Sizes = (0,) * n,
        output_padding: Sizes = (0,) * n,
        dilation: Sizes = (1,) * n,
        groups: int = 1,
    ) -> Spec:
        check_kind(who, x, REAL_NUMBERS)
        check_layout(who, x, n)
        check_tuples(who, n, 1, stride=stride, dilation=dilation)
        check_tuples(who, n, 0, padding=padding, output_padding=output_padding)
        if weight.ndim != n + 2:
            raise ShapeError(f"{who} needs weights of layout (C_in, C_out / groups, {KERNEL[n]}), got {weight.shape}")
        if weight.shape[0] != x.shape[1]:
            raise ShapeError(
                f"{who} got an input {LAYOUT[n]} of {x.shape} with {x.shape[1]} channels, but its weights "
                f"(C_in, C_out / groups, {KERNEL[n]}) of {weight.shape} are for {weight.shape[0]}"
            )
        check_groups(who, groups, input_channels=x.shape[1])
        if any(o >= max(s, d) for o, s, d in zip(output_padding, stride, dilation, strict=True)):
            raise SettingError(
                f"{who} needs output_padding= smaller than the stride {stride} or the dilation {dilation}, "
                f"got {output_padding}"
            )
        out = result_sizes(x.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation)
        if min(*out, *x.shape[2:]) < 1:
            raise ShapeError(
                f"{who} would make a result of spatial sizes {out} from an input {LAYOUT[n]} of {x.shape} with kernel "
                f"{weight.shape[2:]} and padding {padding}: make the input larger or the padding smaller"
            )
        channels = weight.shape[1] * groups
        check_bias(who, bias, channels)
        return Spec((x.shape[0], channels, *out), x.dtype)

    return infer


def _reference(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Array:
    sizes, kernel = x.shape[2:], weight.shape[2:]
    channels = weight.shape[1] * groups
    whole = result_sizes(sizes, kernel, stride, (0,) * len(sizes), output_padding, dilation)
    total = np.zeros((x.shape[0], channels, *whole), x.dtype)
    grouped = x.reshape(x.shape[0], groups, x.shape[1] // groups, *sizes)
    for place in offsets(kernel):
        weights = weight[at(place)].reshape(groups, -1, weight.shape[1])
        parts = np.einsum("ngc...,gco->ngo...", grouped, weights)
        total[seen_from(place, sizes, stride, dilation)] += parts.reshape(x.shape[0], channels, *sizes)
    cropped = padded(total, tuple(-p for p in padding), tuple(-p for p in padding))
    return cropped if bias is None else cropped + bias.reshape(-1, *[1] * len(sizes))


def _gradient(
    g: Tensor, out: Tensor, x: Tensor, weight: Tensor, *bias: Tensor, output_padding: Sizes, **settings: Any
) -> Grads:
    n = x.ndim - 2
    tail = (settings["stride"], settings["padding"], output_padding)
    # `output_padding` of a stride or more adds what the convolution that has x's sizes as its result must not look at.
    further = [extra >= stride for stride, _, extra in zip(*tail, strict=True)]
    settings["padding"] = tuple(0 if f else p for f, p in zip(further, settings["padding"], strict=True))

    def reached() -> Tensor:
        """g with its own padding along the axes that have too much at the end, and without what is too much."""
        widths, seen = [(0, 0), (0, 0)], g
        for axis, (f, (_, p, extra)) in enumerate(zip(further, zip(*tail, strict=True), strict=True), start=2):
            widths.append((p, max(p - extra, 0)) if f else (0, 0))
            if f and extra > p:
                seen = cut(seen, axis, 0, seen.shape[axis] - (extra - p))
        return ops.pad(seen, padding=tuple(widths)) if any(further) else seen

    def of_weight() -> Tensor:
        found: Tensor = ops.TABLE[f"conv{n}d_weight_gradient"](reached(), x, weight_shape=weight.shape, **settings)
        return found

    def of_x() -> Tensor:
        found: Tensor = ops.TABLE[f"conv{n}d"](reached(), weight, **settings)
        return found

    if not bias:
        return of_x, of_weight
    return of_x, of_weight, lambda: ops.sum(g, axis=(0, *range(2, n + 2)))


def _decompose(
    x: Tensor,
    weight: Tensor,
    *bias: Tensor,
    stride: Sizes,
    padding: Sizes,
    output_padding: Sizes,
    dilation: Sizes,
    groups: int,
) -> Tensor:
    """With zeros between the elements of x, it is a convolution with the kernel flipped and the channels swapped."""
    n, kernel = x.ndim - 2, weight.shape[2:]
    around = tuple(reach - 1 - p for reach, p in zip(extent(kernel, dilation), padding, strict=True))
    spaced = pad_spatial(grow(x, stride), around, tuple(map(sum, zip(around, output_padding, strict=True))))
    given, made = x.shape[1] // groups, weight.shape[1]
    swapped = ops.permute(ops.reshape(weight, shape=(groups, given, made, prod(kernel))), axes=(0, 2, 1, 3))
    swapped = flip_spatial(ops.reshape(swapped, shape=(groups * made, given, *kernel)))
    result: Tensor = ops.TABLE[f"conv{n}d"](spaced, swapped, *bias, dilation=dilation, groups=groups)
    return result


def _terms(x: Spec, weight: Spec, *bias: Spec, groups: int, **settings: Any) -> int:
    return x.shape[1] // groups * prod(weight.shape[2:]) + len(bias)


def _cost(x: Spec, weight: Spec, *bias: Spec, out: Spec, **settings: Any) -> Cost:
    moved = sum(s.nbytes for s in (x, weight, *bias, out))
    return Cost(2 * x.size * prod(weight.shape[1:]) + out.size * len(bias), moved)


def _samples(n: int) -> Callable[[Rng], Iterator[Sample]]:
    def draw(rng: Rng, x: Shape, weight: Shape, groups: int, bias: bool) -> tuple[Array, ...]:
        swapped = (x[1], weight[0] // groups, *weight[2:])
        return drawn(rng, x, swapped, weight[:1]) if bias else drawn(rng, x, swapped)

    def samples(rng: Rng) -> Iterator[Sample]:
        for i, (x, weight, settings) in enumerate(cases(n)):
            if settings.get("padding") == (2,) * n:
                x = (*x[:2], *(size + 3 for size in x[2:]))  # so much padding would leave nothing of the result
            inputs = draw(rng, x, weight, settings.get("groups", 1), bias=i % 2 == 0)
            yield Sample(inputs, settings, smooth=prod(x) < 300)
            if i == 0:
                yield Sample(tuple(map(mirrored, inputs)), settings)
                yield Sample((integers(rng, x), integers(rng, inputs[1].shape)), settings, smooth=False, exact=True)
        x, weight = (2, 10, *(3, 4, 3)[:n]), (10, 1, *(3, 2, 3)[:n])
        yield Sample(drawn(rng, x, weight, (2,)), {"groups": 2})  # many channels in, few out
        yield Sample(drawn(rng, x, weight), {"stride": (2,) * n, "output_padding": (1,) * n, "padding": (1,) * n})
        x, weight = (2, 2, *(3, 4, 3)[:n]), (2, 3, *(3, 2, 3)[:n])
        yield Sample(drawn(rng, x, weight), {"stride": (2,) * n, "output_padding": (1,) * n, "padding": (1,) * n})
        yield Sample(
            drawn(rng, x, weight), {"stride": (3,) * n, "output_padding": (2, 0, 1)[:n]}
        )  # gaps, for a kernel of 2
        yield Sample(drawn(rng, x, weight), {"dilation": (3,) * n, "output_padding": (2, 1, 2)[:n]})
        far = {"dilation": (4,) * n, "padding": (2, 1, 3)[:n], "output_padding": (3, 2, 2)[:n]}
        yield Sample(drawn(rng, x, weight), {"stride": (2, 1, 2)[:n], **far})

    return samples


def _transposed(n: int) -> Op:
    return Op(
        f"conv_transpose{n}d", _infer(n), _reference, _samples(n), _gradient, _decompose, _cost, "contraction",
        promote=common, terms=_terms, tolerance=SUMS,
        doc=f"The transposed convolution of x {LAYOUT[n]}, weight (C_in, C_out / groups, {KERNEL[n]}), bias (C_out).",
    )  # fmt: skip


conv_transpose1d, conv_transpose2d, conv_transpose3d = map(_transposed, (1, 2, 3))
