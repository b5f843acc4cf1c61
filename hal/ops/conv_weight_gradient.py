"""The gradient of a convolution with respect to its weights: an op, so that a backend may have a fast kernel for it.

dw[o, c, k] = sum over n and p of g[n, o, p] x[n, c, p * stride + k * dilation - padding].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import ops
from hal.errors import ShapeError
from hal.op import SUMS, Array, Cost, Grads, Op, Rng, Sample
from hal.ops.common import common
from hal.ops.convolution import cases, check_convolution, drawn, mirrored, unreached
from hal.ops.images import lift, lifted, slabs, slices
from hal.ops.windows import Sizes, at, fit_windows, offsets, pad_spatial, padded, seen_from, windows
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _infer(n: int) -> Callable[..., Spec]:
    who = f"conv{n}d_weight_gradient"

    def infer(
        x: Spec,
        g: Spec,
        *,
        weight_shape: Shape,
        stride: Sizes = (1,) * n,
        padding: Sizes = (0,) * n,
        dilation: Sizes = (1,) * n,
        groups: int = 1,
    ) -> Spec:
        out = check_convolution(who, n, x, weight_shape, stride, padding, dilation, groups)
        wanted = (x.shape[0], weight_shape[0], *out)
        if g.shape != wanted:
            raise ShapeError(
                f"{who} needs a gradient of the shape of the convolution's result, {wanted}; got {g.shape}"
            )
        return Spec(weight_shape, x.dtype)

    return infer


def _reference(
    x: Array, g: Array, *, weight_shape: Shape, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Array:
    out = g.shape[2:]
    x = padded(x, padding, padding)
    g = g.reshape(g.shape[0], groups, weight_shape[0] // groups, *out)
    total = np.zeros(weight_shape, x.dtype)
    for place in offsets(weight_shape[2:]):
        seen = x[seen_from(place, out, stride, dilation)].reshape(x.shape[0], groups, weight_shape[1], *out)
        found = np.einsum("ngo...,ngc...->goc...", g, seen).sum(axis=tuple(range(3, g.ndim)))
        total[at(place)] = found.reshape(weight_shape[:2])
    return total


def _gradient(g: Tensor, out: Tensor, x: Tensor, given: Tensor, *, weight_shape: Shape, **settings: Any) -> Grads:
    n = x.ndim - 2

    def of_x() -> Tensor:
        rest = unreached(x.shape[2:], weight_shape[2:], **settings)
        found: Tensor = ops.TABLE[f"conv_transpose{n}d"](given, g, output_padding=rest, **settings)
        return found

    return of_x, lambda: ops.TABLE[f"conv{n}d"](x, g, **settings)


def _decompose(
    x: Tensor, g: Tensor, *, weight_shape: Shape, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Tensor:
    batch, channels, *out = g.shape
    terms = weight_shape[1] * prod(weight_shape[2:])
    columns = windows(pad_spatial(x, padding, padding), tuple(out), weight_shape[2:], stride, dilation)
    columns = ops.permute(ops.reshape(columns, shape=(batch, groups, terms, prod(out))), axes=(1, 0, 3, 2))
    columns = ops.reshape(columns, shape=(groups, batch * prod(out), terms))
    rows = ops.permute(ops.reshape(g, shape=(batch, groups, channels // groups, prod(out))), axes=(1, 2, 0, 3))
    rows = ops.reshape(rows, shape=(groups, channels // groups, batch * prod(out)))
    return ops.reshape(ops.matmul(rows, columns), shape=weight_shape)


def _decompose_1d(x: Tensor, g: Tensor, *, weight_shape: Shape, groups: int, **settings: Any) -> Tensor:
    flat = ops.conv2d_weight_gradient(
        lift(x), lift(g), weight_shape=(*weight_shape[:2], 1, *weight_shape[2:]), groups=groups, **lifted(**settings)
    )
    return ops.reshape(flat, shape=weight_shape)


def _decompose_3d(x: Tensor, g: Tensor, *, weight_shape: Shape, groups: int, **settings: Any) -> Tensor:
    images = slabs(x, weight_shape[2:], **settings)
    flat_shape = (weight_shape[0], weight_shape[1] * weight_shape[2], *weight_shape[3:])
    settings = {name: sizes[1:] for name, sizes in settings.items()}
    flat = ops.conv2d_weight_gradient(images, slices(g), weight_shape=flat_shape, groups=groups, **settings)
    return ops.reshape(flat, shape=weight_shape)


def _terms(x: Spec, g: Spec, **settings: Any) -> int:
    return g.shape[0] * prod(g.shape[2:])


def _cost(x: Spec, g: Spec, *, out: Spec, **settings: Any) -> Cost:
    return Cost(2 * out.size * g.shape[0] * prod(g.shape[2:]), x.nbytes + g.nbytes + out.nbytes)


def _samples(n: int) -> Callable[[Rng], Iterator[Sample]]:
    def samples(rng: Rng) -> Iterator[Sample]:
        for i, (x, weight, given) in enumerate(cases(n)):
            plain: dict[str, Any] = {"stride": (1,) * n, "padding": (0,) * n, "dilation": (1,) * n} | given
            plain.pop("groups", None)
            g = (x[0], weight[0], *fit_windows("sample", x[2:], weight[2:], **plain))
            inputs = drawn(rng, x, g)
            settings = {"weight_shape": weight, **given}
            yield Sample(inputs, settings, smooth=prod(x) < 300)
            if i == 0:
                yield Sample(tuple(map(mirrored, inputs)), settings)
                yield Sample(tuple(np.rint(a).astype(np.int32) for a in inputs), settings, smooth=False, exact=True)

    return samples


def _weight_gradient(n: int) -> Op:
    return Op(
        f"conv{n}d_weight_gradient", _infer(n), _reference, _samples(n), _gradient,
        {1: _decompose_1d, 2: _decompose, 3: _decompose_3d}[n], _cost, "contraction",
        promote=common, terms=_terms, tolerance=SUMS,
        doc=f"The gradient of conv{n}d(x, weight) by weights of shape `weight_shape`, given that of its result.",
    )  # fmt: skip


conv1d_weight_gradient, conv2d_weight_gradient, conv3d_weight_gradient = map(_weight_gradient, (1, 2, 3))
