"""Normalisation over channels and groups of channels, and gradients: statistics in one pass, then a map over elements.

Whatever the layout: the axes of what is normalised are views. What is common to a channel or a group has axes of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hal import ops
from hal.codegen.folds import moments, sums
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.composed import Out, Run, composite, folded, mapped, shaped, widely
from hal.codegen.kernels.rows import wide_of
from hal.codegen.kernels.runtime import Runtime
from hal.ops.batch_normalization import over_channels
from hal.ops.precision import HALVES, widened
from hal.plugin import DType, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _as(*xs: Tensor, dtype: DType) -> tuple[Tensor, ...]:
    """The same in the dtype of results, behind the unrounded ones that are computed with."""
    return (*xs, *(ops.cast(x, dtype=dtype) for x in xs)) if dtype in HALVES else xs


@widened
def _normal(x: Tensor, mean: Tensor, var: Tensor, *affine: Tensor, eps: float) -> Tensor:
    scale = ops.rsqrt(var + eps)
    if affine:
        scale = scale * affine[0]
    return (x - mean) * scale + affine[1] if len(affine) == 2 else (x - mean) * scale


# Batch norm: one number for each channel, in an axis of its own between those of x.


def _column(x: Spec, ndim: int, dtype: DType | None = None) -> Spec:
    return Spec((x.shape[0], *[1] * (ndim - 2)), dtype or x.dtype)


def _columns(xs: Sequence[Buffer], ndim: int) -> list[Buffer]:
    more = ndim - 2
    return [x.view((x.shape[0], *[1] * more), (x.strides[0], *[0] * more)) for x in xs]


@composite(ops.batch_norm, alone=True)
def batch_norm(runtime: Runtime, x: Spec, *given: Spec, eps: float) -> Run:
    ndim = len(x.shape)
    columns = [_column(s, ndim) for s in given]
    normal = mapped(runtime, "batch_norm", (x, *columns), lambda *xs: _normal(*xs, eps=eps))
    return lambda x, *given, out: normal(x, *_columns(given, ndim), out=out)


@composite(ops.batch_norm_train)
def batch_norm_train(runtime: Runtime, x: Spec, *affine: Spec, eps: float) -> Run:
    ndim, label, wide = len(x.shape), "batch_norm_train", wide_of(x.dtype)
    statistics = folded(
        runtime, label, [x], over_channels(ndim), moments(wide), widely, lambda *found: _as(*found, dtype=x.dtype)
    )
    one = Spec((x.shape[1], *[1] * (ndim - 2)), wide)
    columns = [_column(s, ndim) for s in affine]
    normal = mapped(runtime, label, (x, one, one, *columns), lambda *xs: _normal(*xs, eps=eps))
    unrounded = (None, None) if x.dtype in HALVES else ()

    def run(x: Buffer, *affine: Buffer, out: Out) -> tuple[Buffer, ...]:
        found = statistics(x, out=(*unrounded, *out[1:]))
        columns = _columns((*found[:2], *affine), ndim)
        return *normal(x, *columns, out=out[:1]), *found[-2:]

    return run


@composite(ops.batch_norm_train_gradient)
def batch_norm_train_gradient(
    runtime: Runtime, g: Spec, x: Spec, mean: Spec, var: Spec, *weight: Spec, eps: float
) -> Run:
    ndim, label, wide = len(x.shape), "batch_norm_train_gradient", wide_of(x.dtype)

    def away(g: Tensor, x: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        g, x, mean, var = map(widely, (g, x, mean, var))
        return g * ((x - mean) * ops.rsqrt(var + eps)), g

    def after(of_weight: Tensor, of_bias: Tensor, along: Tensor, level: Tensor) -> tuple[Tensor, ...]:
        return along, level, *(ops.cast(total, dtype=x.dtype) for total in (of_weight, of_bias))

    @widened
    def by_x(g: Tensor, x: Tensor, mean: Tensor, var: Tensor, along: Tensor, level: Tensor, *weight: Tensor) -> Tensor:
        inverse = ops.rsqrt(var + eps)
        scale = inverse * weight[0] if weight else inverse
        return (g - level - (x - mean) * (inverse * along)) * scale

    columns = [_column(s, ndim) for s in (mean, var)]
    totals = folded(runtime, label, (g, x, *columns), over_channels(ndim), sums(2, wide), away, after)
    inner = [_column(mean, ndim, wide)] * 2
    result = mapped(runtime, label, (g, x, *columns, *inner, *(_column(w, ndim) for w in weight)), by_x)

    def run(g: Buffer, x: Buffer, mean: Buffer, var: Buffer, *weight: Buffer, out: Out) -> tuple[Buffer, ...]:
        columns = _columns((mean, var), ndim)
        along, level, *found = totals(g, x, *columns, out=(None, None, *out[1:]))
        more = _columns((along, level, *weight), ndim)
        return *result(g, x, *columns, *more, out=out[:1]), *found

    return run


# Group norm: x (N, C, ...) seen as (N, groups, C / groups, ...).


def _in_groups(x: Spec, groups: int) -> Spec:
    return x.with_shape((x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))


def _grouped(x: Buffer, groups: int) -> Buffer:
    each = x.shape[1] // groups
    step = x.strides[1]
    return x.view((x.shape[0], groups, each, *x.shape[2:]), (x.strides[0], step * each, step, *x.strides[2:]))


def _channels(x: Buffer, groups: int, ndim: int) -> Buffer:
    """A number for each channel, as it stands in the axes of groups and channels."""
    each, step, more = x.shape[0] // groups, x.strides[0], ndim - 2
    return x.view((groups, each, *[1] * more), (step * each, step, *[0] * more))


def _over(ndim: int) -> tuple[int, ...]:
    return tuple(range(2, ndim + 1))


def _group_statistics(runtime: Runtime, label: str, x: Spec, groups: int) -> Run:
    """Mean and variance of each group, (N, groups, 1, ...)."""
    ndim, wide = len(x.shape), wide_of(x.dtype)
    fold = moments(wide)
    found = folded(runtime, label, [_in_groups(x, groups)], _over(ndim), fold, widely, lambda *made: made)
    shape, strides = (x.shape[0], groups, *[1] * (ndim - 1)), (groups, 1, *[0] * (ndim - 1))
    return lambda x: tuple(made.view(shape, strides) for made in found(x))


def _group_norm(runtime: Runtime, label: str, x: Spec, affine: Sequence[Spec], groups: int, eps: float) -> Run:
    ndim = len(x.shape)
    statistics = _group_statistics(runtime, label, x, groups)
    one = Spec((x.shape[0], groups, *[1] * (ndim - 1)), wide_of(x.dtype))
    each = (groups, x.shape[1] // groups, *[1] * (ndim - 2))
    specs = (_in_groups(x, groups), one, one, *(s.with_shape(each) for s in affine))
    normal = mapped(runtime, label, specs, lambda *xs: _normal(*xs, eps=eps))

    def run(x: Buffer, *affine: Buffer, out: Out) -> tuple[Buffer, ...]:
        seen = _grouped(x, groups)
        target = None if out[0] is None else (_grouped(out[0], groups),)
        columns = [_channels(a, groups, ndim) for a in affine]
        (made,) = normal(seen, *statistics(seen), *columns, out=target)
        return (shaped(made, x.shape) if out[0] is None else out[0],)

    return run


@composite(ops.group_norm)
def group_norm(runtime: Runtime, x: Spec, *affine: Spec, groups: int, eps: float) -> Run:
    return _group_norm(runtime, "group_norm", x, affine, groups, eps)


@composite(ops.instance_norm)
def instance_norm(runtime: Runtime, x: Spec, *affine: Spec, eps: float) -> Run:
    return _group_norm(runtime, "instance_norm", x, affine, x.shape[1], eps)


@composite(ops.group_norm_gradient)
def group_norm_gradient(runtime: Runtime, g: Spec, x: Spec, *weight: Spec, groups: int, eps: float) -> Run:
    ndim, label, wide = len(x.shape), "group_norm_gradient", wide_of(x.dtype)
    seen = _in_groups(x, groups)
    count, _, each, *_ = seen.shape
    one = Spec((count, groups, *[1] * (ndim - 1)), wide)
    scale = [w.with_shape((groups, each, *[1] * (ndim - 2))) for w in weight]
    inner = Spec((count, groups, each), wide)

    def away(g: Tensor, x: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        g = widely(g)
        return g * ((widely(x) - mean) * ops.rsqrt(var + eps)), g

    def weighted(along: Tensor, level: Tensor, *weight: Tensor) -> tuple[Tensor, ...]:
        return (along * weight[0], level * weight[0]) if weight else (along, level)

    @widened
    def by_x(g: Tensor, x: Tensor, mean: Tensor, var: Tensor, along: Tensor, level: Tensor, *weight: Tensor) -> Tensor:
        inverse = ops.rsqrt(var + eps)
        return ((g * weight[0] if weight else g) - level - (x - mean) * (inverse * along)) * inverse

    statistics = _group_statistics(runtime, label, x, groups)
    # Of each channel of each sample, then of the channels of a sample's group, and of the samples of a channel.
    inside = folded(
        runtime, label, (seen, seen, one, one), tuple(range(3, ndim + 1)), sums(2, wide), away, lambda *made: made
    )
    of_groups = folded(
        runtime, label, (inner, inner, *(w.with_shape((groups, each)) for w in weight)), (2,), sums(2, wide),
        weighted, lambda along, level, *means: means,
    )  # fmt: skip
    of_channels = folded(
        runtime, label, (inner, inner), (0,), sums(2, wide), lambda *xs: xs,
        lambda of_weight, of_bias, *means: (ops.cast(of_weight, dtype=x.dtype), ops.cast(of_bias, dtype=x.dtype)),
    )  # fmt: skip
    result = mapped(runtime, label, (seen, seen, one, one, one, one, *scale), by_x)

    def run(g: Buffer, x: Buffer, *weight: Buffer, out: Out) -> tuple[Buffer, ...]:
        shape, channels = x.shape, x.shape[1:2]
        g, x = _grouped(g, groups), _grouped(x, groups)
        found = statistics(x)
        of_weight, of_bias, along, level = inside(g, x, *found)
        flat = [w.view((groups, each), (w.strides[0] * each, w.strides[0])) for w in weight]
        means = [made.view(one.shape, found[0].strides) for made in of_groups(along, level, *flat)]
        rest = of_channels(of_weight, of_bias, out=out[1:])
        columns = [_channels(w, groups, ndim) for w in weight]
        target = None if out[0] is None else (_grouped(out[0], groups),)
        (made,) = result(g, x, *found, *means, *columns, out=target)
        rest = tuple(r.view(channels, (1,)) for r in rest)
        return shaped(made, shape) if out[0] is None else out[0], *rest

    return run
