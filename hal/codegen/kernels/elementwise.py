"""Elementwise ops: one kernel for each op and dtypes, made of the expressions that all C-like devices share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from hal import ops
from hal.codegen.expressions import NoExpression, Writer, elementwise_ops
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.layout import Shape
from hal.codegen.kernels.maps import Map
from hal.codegen.kernels.prepared import Prepared
from hal.codegen.kernels.runtime import Runtime
from hal.codegen.kernels.table import kernels
from hal.plugin import DType, Op, Spec


@lru_cache(maxsize=4096)
def map_of(op: Op, inputs: tuple[DType, ...], outputs: tuple[DType, ...], settings: tuple[tuple[str, Any], ...]) -> Map:
    """The map that computes an op on these dtypes.

    Raises:
        NoExpression: it takes more than one element of each input.
    """
    given = dict(settings)
    specs = [Spec((), d) for d in inputs]

    def body(names: list[str]) -> tuple[list[str], list[str]]:
        writer = Writer()
        results = writer.apply(op, specs, names, given)
        return writer.lines, list(results)

    body([f"x{i}" for i in range(len(inputs))])
    return Map(op.name, inputs, outputs, body)


class Elementwise(Prepared):
    """The kernel of one op whose results have the shape that its inputs broadcast to."""

    def prepare(
        self, runtime: Runtime, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
    ) -> Callable[..., Any]:
        given = tuple(s.dtype for s in specs)
        run = map_of(self.op, given, tuple(s.dtype for s in outs), tuple(settings.items()))
        label = self.op.name
        if len(outs) == 1:
            shape, dtype = outs[0].shape, outs[0].dtype

            def one(*xs: Buffer, out: Buffer | None = None, **settings: Any) -> Buffer:
                result = runtime.empty(shape, dtype, label) if out is None else out
                run(runtime, xs, (result,))
                return result

            return one

        def several(*xs: Buffer, out: tuple[Buffer, ...] | None = None, **settings: Any) -> tuple[Buffer, ...]:
            results = out or tuple(runtime.empty(s.shape, s.dtype, label) for s in outs)
            run(runtime, xs, results)
            return results

        return several


def has_expression(op: Op) -> Callable[..., bool]:
    """The `when` of an op: whether it is one expression on these dtypes."""

    def when(*specs: Spec, **settings: Any) -> bool:
        inferred = op.infer(*specs, **settings)
        outs = inferred if isinstance(inferred, tuple) else (inferred,)
        if any(o.shape != outs[0].shape for o in outs) or _broadcast(specs) != outs[0].shape:
            return False
        try:
            map_of(op, tuple(s.dtype for s in specs), tuple(o.dtype for o in outs), tuple(settings.items()))
        except NoExpression:
            return False
        return True

    return when


def _broadcast(specs: tuple[Spec, ...]) -> Shape:
    rank = max(len(s.shape) for s in specs)
    shapes = [(1,) * (rank - len(s.shape)) + s.shape for s in specs]
    return tuple(next((n for n in sizes if n != 1), 1) for sizes in zip(*shapes, strict=True))


# Optimizer steps and losses of each element are elementwise too: their decompositions say so.
COMPOSITES = (
    ops.sgd_step, ops.sgd_momentum_step, ops.adam_step, ops.rmsprop_step, ops.adagrad_step,
    ops.mse_loss, ops.l1_loss, ops.smooth_l1_loss, ops.huber_loss, ops.binary_cross_entropy, ops.bce_with_logits,
    ops.kl_div,
)  # fmt: skip
for _op in (*elementwise_ops(), *COMPOSITES):
    kernels.register(_op, when=has_expression(_op), out=True)(Elementwise(_op))
