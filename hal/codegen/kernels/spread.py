"""Variance, standard deviation and logsumexp: folds over any axes, with what stands before and after in one kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hal import ops
from hal.codegen.folds import fold_of, spread, sums
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.composed import Out, Run, composite, folded, shaped, widely
from hal.codegen.kernels.reduction import Axes, axes_of
from hal.codegen.kernels.rows import wide_of
from hal.codegen.kernels.runtime import Runtime
from hal.ops.steps import kept_shape
from hal.plugin import Op, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _with_axes(run: Run, shape: tuple[int, ...]) -> Run:
    """`run`, whose one result has these axes."""
    return lambda *xs, out: tuple(shaped(made, shape) for made in run(*xs, out=out))


def _result_shape(shape: tuple[int, ...], axis: Axes, keepdims: bool) -> tuple[int, ...]:
    axes = axes_of(axis, len(shape))
    return kept_shape(shape, axis) if keepdims else tuple(n for i, n in enumerate(shape) if i not in axes)


def _spread(op: Op, end: Callable[[Tensor], Tensor]) -> None:
    @composite(op)
    def make(runtime: Runtime, x: Spec, *, axis: Axes, keepdims: bool, correction: float) -> Run:
        axes, wide = axes_of(axis, len(x.shape)), wide_of(x.dtype)
        between = Spec(kept_shape(x.shape, axis), wide)
        means = folded(runtime, op.name, [x], axes, sums(1, wide), widely, lambda total, mean: mean)
        squares = folded(
            runtime, op.name, [x, between], axes, spread(wide, correction),
            lambda x, mean: ops.square(widely(x) - mean), lambda var: ops.cast(end(var), dtype=x.dtype),
        )  # fmt: skip

        def run(x: Buffer, out: Out) -> tuple[Buffer, ...]:
            (mean,) = means(x)
            return squares(x, shaped(mean, between.shape), out=out)

        return _with_axes(run, _result_shape(x.shape, axis, keepdims))


_spread(ops.var, lambda var: var)
_spread(ops.std, ops.sqrt)


@composite(ops.logsumexp, alone=True)
def logsumexp(runtime: Runtime, x: Spec, *, axis: Axes, keepdims: bool) -> Run:
    axes, wide, label = axes_of(axis, len(x.shape)), wide_of(x.dtype), "logsumexp"
    between = Spec(kept_shape(x.shape, axis), wide)
    largest = fold_of(ops.max, wide, wide)
    assert largest is not None

    def finite(top: Tensor) -> Tensor:
        """A maximum that can be subtracted: infinity less infinity is not a number."""
        return ops.where(ops.isinf(top), 0.0, top)

    def after(total: Tensor, mean: Tensor, top: Tensor) -> Tensor:
        return ops.cast(ops.log(total) + top, dtype=x.dtype)

    highest = folded(runtime, label, [x], axes, largest, widely, finite)
    shares = folded(
        runtime, label, [x, between], axes, sums(1, wide), lambda x, top: ops.exp(widely(x) - top), after, [between]
    )

    def run(x: Buffer, out: Out) -> tuple[Buffer, ...]:
        top = shaped(highest(x)[0], between.shape)
        return shares(x, top, top, out=out)

    return _with_axes(run, _result_shape(x.shape, axis, keepdims))


# Losses that are the mean or the sum of one for each element.


def _loss(op: Op) -> None:
    def reduced(*specs: Spec, reduction: str, **settings: Any) -> bool:
        return reduction != "none" and all(s.size for s in specs)

    @composite(op, when=reduced, alone=True)
    def make(runtime: Runtime, *specs: Spec, reduction: str, **settings: Any) -> Run:
        def each(*xs: Tensor) -> Any:
            return op(*map(widely, xs), reduction="none", **settings)

        def after(total: Tensor, mean: Tensor) -> Tensor:
            result = {"mean": mean, "sum": total}.get(reduction)
            return ops.cast(total / specs[0].shape[0] if result is None else result, dtype=specs[0].dtype)

        rank = max(len(s.shape) for s in specs)
        return folded(runtime, op.name, specs, tuple(range(rank)), sums(1, wide_of(specs[0].dtype)), each, after)


for _op in (
    ops.mse_loss, ops.l1_loss, ops.smooth_l1_loss, ops.huber_loss, ops.binary_cross_entropy, ops.bce_with_logits,
    ops.kl_div,
):  # fmt: skip
    _loss(_op)
