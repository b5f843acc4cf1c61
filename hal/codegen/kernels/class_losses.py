"""Losses of class indices and their gradients: cross entropy from scores, and nll_loss from log-probabilities."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from hal import ops
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.composed import Out, Run, composite
from hal.codegen.kernels.elementwise import map_of
from hal.codegen.kernels.movement import copied, copy_into, in_rows
from hal.codegen.kernels.reduction import reduction_of
from hal.codegen.kernels.rows import TOP, TOTAL, Rows, exp_of, wide_of
from hal.codegen.kernels.runtime import Runtime
from hal.plugin import DType, Op, Spec

# Of a row: whether its target counts, and with which weight.
_CHOSEN = """const i64 chosen = (i64)t_;
        const i32 counts = chosen != ignored && chosen >= 0 && chosen < length;
        const i64 place = counts ? chosen : 0;
        @V weight = 1; { const i64 k = place; weight = @WEIGHT; }"""


class _Kernels:
    """The kernels of one way to compute such a loss.

    Args:
        softmax: from scores, not from log-probabilities.
        weighted: each class has a weight.
        smoothed: the target is mixed with equal probabilities.

    Attributes:
        loss: the loss of each row, and its weight.
        weight: the weight of each row alone.
        gradient: of each score, given that of its row's loss.
    """

    def __init__(self, name: str, softmax: bool, weighted: bool, smoothed: bool) -> None:
        self.vectors = ("w",) if weighted else ()
        numbers = (("i64", "ignored"), *((("@V", "smooth"),) if smoothed else ()))
        chosen = _CHOSEN.replace("@WEIGHT", "w_" if weighted else "1")
        folds = (TOP, TOTAL) if softmax else ()
        of_all, each = "", "w_" if weighted else "1"
        loss = "weight * (hal_log_@V(all) - (x_ - top))" if softmax else "-weight * x_"
        share, total = "(k == chosen ? weight : 0)", "weight"
        if smoothed:
            level = ("sum", "level", f"{each} * (x_ - top)")
            of_all = "const @V low = smooth / length, high = 1 - smooth;"
            of_all += "" if weighted else " const @V weights = length;"
            loss = f"high * {loss} + low * (hal_log_@V(all) * weights - level)"
            share, total = f"((k == chosen ? high * weight : 0) + low * {each})", "(high * weight + low * weights)"
            folds = (*folds, *((("sum", "weights", "w_"),) if weighted else ()))
        self.loss = Rows(
            name, ("x",), values=("t", "loss", "weight_of"), vectors=self.vectors, numbers=numbers,
            folds=(*folds, level) if smoothed else folds,
            lines=f"{chosen} {of_all} @V value; {{ const i64 k = place; value = {loss}; }}",
            value=(("loss", "counts ? value : 0"), ("weight_of", "counts ? weight : 0")),
        )  # fmt: skip
        self.weight = Rows(
            name, (), values=("t", "weight_of"), vectors=self.vectors, numbers=numbers[:1], lines=chosen,
            value=(("weight_of", "counts ? weight : 0"),),
        )  # fmt: skip
        slope = f"{exp_of('x_ - top')} / all * {total} - {share}" if softmax else f"-{share}"
        self.gradient = Rows(
            f"{name}_gradient", ("x", "y") if softmax else ("y",), values=("t", "g"), vectors=self.vectors,
            numbers=numbers, folds=folds, lines=f"{chosen} {of_all} const @V scale = counts ? g_ : 0;",
            element=(("y", f"counts ? ({slope}) * scale : 0"),),
        )  # fmt: skip


_kernels = lru_cache(maxsize=None)(_Kernels)


def _class_axis(x: Buffer | Spec) -> int:
    return 0 if len(x.shape) == 1 else 1


def _of_indices(x: Spec, target: Spec, *weight: Spec, **settings: Any) -> bool:
    return target.dtype.kind in ("int", "uint") and x.size > 0


def _gradient_of_indices(g: Spec, x: Spec, target: Spec, *weight: Spec, **settings: Any) -> bool:
    return _of_indices(x, target)


def _summed(x: Buffer, wide: DType) -> Buffer:
    """The sums over all but the first axis."""
    total = x.memory.runtime.empty(x.shape[:1], wide, "a loss")
    run = reduction_of(ops.sum, wide, wide)
    assert run is not None
    run(x.memory.runtime, x, tuple(range(1, len(x.shape))), total)
    return total


def _divided(x: Buffer, by: Buffer, dtype: DType) -> Buffer:
    runtime = x.memory.runtime
    out = runtime.empty(x.shape, dtype, "a loss")
    map_of(ops.div, (x.dtype, by.dtype), (dtype,), ())(runtime, (x, by), (out,))
    return out


def _register(op: Op, gradient: Op, softmax: bool) -> None:
    @composite(op, when=_of_indices)
    def loss(
        runtime: Runtime, x: Spec, target: Spec, *weight: Spec, reduction: str, ignore_index: int,
        label_smoothing: float = 0.0,
    ) -> Run:  # fmt: skip
        own, wide = _kernels(op.name, softmax, bool(weight), label_smoothing > 0), wide_of(x.dtype)

        def run(x: Buffer, target: Buffer, *weight: Buffer, out: Out) -> tuple[Buffer, ...]:
            both = runtime.empty((2, *target.shape), wide, op.name)
            each, weights = (both.view(target.shape, both.strides[1:], i * target.size) for i in (0, 1))
            given: dict[str, Any] = {"x": in_rows(x), "t": in_rows(target), "loss": each, "weight_of": weights}
            given |= {"ignored": ignore_index, "smooth": label_smoothing, **_by_name(weight)}
            own.loss(runtime, x.shape, _class_axis(x), wide, given)
            result = each
            if reduction != "none":
                totals = _summed(both, wide)
                result = totals.view((), ())
                result = _divided(result, totals.view((), (), 1), wide) if reduction == "mean" else result
            if x.dtype is not wide:
                narrow = runtime.empty(result.shape, x.dtype, op.name)
                map_of(ops.cast, (wide,), (x.dtype,), (("dtype", x.dtype),))(runtime, (result,), (narrow,))
                return (narrow,)
            return (result if reduction == "mean" else copied(result),)

        return run

    @composite(gradient, when=_gradient_of_indices)
    def loss_gradient(
        runtime: Runtime, g: Spec, x: Spec, target: Spec, *weight: Spec, reduction: str, ignore_index: int,
        label_smoothing: float = 0.0,
    ) -> Run:  # fmt: skip
        own, wide = _kernels(op.name, softmax, bool(weight), label_smoothing > 0), wide_of(x.dtype)

        def run(g: Buffer, x: Buffer, target: Buffer, *weight: Buffer, out: Out) -> tuple[Buffer, ...]:
            made = runtime.empty(x.shape, x.dtype, gradient.name)
            given: dict[str, Any] = {"x": in_rows(x), "t": in_rows(target), "y": made, **_by_name(weight)}
            given |= {"ignored": ignore_index, "smooth": label_smoothing}
            if reduction == "mean":
                weights = runtime.empty((1, *target.shape), wide, gradient.name)
                own.weight(runtime, x.shape, _class_axis(x), wide, {**given, "weight_of": weights})
                g = _divided(g, _summed(weights, wide).view((), ()), wide)
            each = runtime.empty(target.shape, g.dtype, gradient.name)
            copy_into(g, each)
            own.gradient(runtime, x.shape, _class_axis(x), wide, {**given, "g": each})
            return (made,)

        return run


def _by_name(weight: tuple[Buffer, ...]) -> dict[str, Buffer]:
    return dict(zip("w", map(in_rows, weight), strict=False))


_register(ops.cross_entropy, ops.cross_entropy_gradient, True)
_register(ops.nll_loss, ops.nll_loss_gradient, False)
