"""What follows the products of recurrent cells, and activations with a second input: one map over views of the parts.

Gates lie side by side along the last axis; each is a view, and so is what a gradient writes for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hal import ops
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.composed import Out, Run, composite, mapped
from hal.codegen.kernels.fuse import results_for
from hal.codegen.kernels.runtime import Runtime
from hal.ops.precision import widened
from hal.ops.recurrent import gru_slopes, gru_values, lstm_slopes, lstm_values
from hal.plugin import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _parts(x: Buffer, count: int, axis: int = -1) -> list[Buffer]:
    """The parts that lie side by side along an axis."""
    axis %= len(x.shape)
    n, step = x.shape[axis] // count, x.strides[axis]
    shape = (*x.shape[:axis], n, *x.shape[axis + 1 :])
    return [x.view(shape, x.strides, x.offset + i * n * step) for i in range(count)]


@composite(ops.lstm_gates, alone=True)
def lstm_gates(runtime: Runtime, gates: Spec, c: Spec) -> Run:
    values = mapped(runtime, "lstm_gates", [c] * 5, widened(lstm_values))
    return lambda gates, c, out: values(*_parts(gates, 4), c, out=out)


@composite(ops.lstm_gates_gradient)
def lstm_gates_gradient(runtime: Runtime, gh: Spec, gc: Spec, gates: Spec, c: Spec, new: Spec) -> Run:
    label = "lstm_gates_gradient"
    slopes = mapped(runtime, label, [c] * 8, widened(lstm_slopes))

    def run(gh: Buffer, gc: Buffer, gates: Buffer, c: Buffer, new: Buffer, out: Out) -> tuple[Buffer, ...]:
        by_gates, by_c = results_for(runtime, label, (gates.spec, c.spec), out)
        slopes(gh, gc, *_parts(gates, 4), c, new, out=(*_parts(by_gates, 4), by_c))
        return by_gates, by_c

    return run


@composite(ops.gru_gates, alone=True)
def gru_gates(runtime: Runtime, gi: Spec, gh: Spec, h: Spec) -> Run:
    values = mapped(runtime, "gru_gates", [h] * 7, widened(lambda *xs: gru_values(xs[:3], xs[3:6], xs[6])))
    return lambda gi, gh, h, out: values(*_parts(gi, 3), *_parts(gh, 3), h, out=out)


@composite(ops.gru_gates_gradient)
def gru_gates_gradient(runtime: Runtime, g: Spec, gi: Spec, gh: Spec, h: Spec) -> Run:
    label = "gru_gates_gradient"

    @widened
    def all_slopes(g: Tensor, *xs: Tensor) -> tuple[Tensor, ...]:
        by_r, by_z, by_n, by_hn, by_h = gru_slopes(g, xs[:3], xs[3:6], xs[6])
        return by_r, by_z, by_n, by_r, by_z, by_hn, by_h

    slopes = mapped(runtime, label, [h] * 8, all_slopes)

    def run(g: Buffer, gi: Buffer, gh: Buffer, h: Buffer, out: Out) -> tuple[Buffer, ...]:
        by_gi, by_gh, by_h = results_for(runtime, label, (gi.spec, gh.spec, h.spec), out)
        slopes(g, *_parts(gi, 3), *_parts(gh, 3), h, out=(*_parts(by_gi, 3), *_parts(by_gh, 3), by_h))
        return by_gi, by_gh, by_h

    return run


@composite(ops.glu, alone=True)
def glu(runtime: Runtime, x: Spec, *, axis: int) -> Run:
    half = x.with_shape(n // 2 if i == axis % len(x.shape) else n for i, n in enumerate(x.shape))
    gated = mapped(runtime, "glu", [half] * 2, widened(lambda a, b: a * ops.sigmoid(b)))
    return lambda x, out: gated(*_parts(x, 2, axis), out=out)


@composite(ops.prelu, alone=True)
def prelu(runtime: Runtime, x: Spec, weight: Spec) -> Run:
    more = max(len(x.shape) - 2, 0) if weight.size > 1 else 0
    slope = weight.with_shape((*weight.shape, *[1] * more))
    bent = mapped(runtime, "prelu", (x, slope), widened(lambda x, slope: ops.where(ops.less(0, x), x, x * slope)))
    return lambda x, weight, out: bent(x, weight.view(slope.shape, (*weight.strides, *[0] * more)), out=out)
