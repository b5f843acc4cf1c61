"""Running sums and products along an axis: lines in chunks, whose totals are found first where lines are few."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from hal import ops
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.maps import GRAIN, PER_UNIT
from hal.codegen.kernels.movement import in_rows
from hal.codegen.kernels.runtime import Runtime
from hal.codegen.kernels.table import kernels
from hal.codegen.kernels.templates import run
from hal.plugin import DType, Op, dtypes

LEAST = 4096, 64  # elements that are worth a chunk: on a CPU, and where there are items for all
MOST = 1024  # chunks of a line: each adds up the totals of those before it

_CHUNK = """
    @LOOP {
        const i64 line = i / chunks, chunk = i - line * chunks, start = chunk * each;
        const i64 stop = start + each < length ? start + each : length;
        const i64 first = line / inner * length * inner + line % inner;
"""
# The total of the chunk i.
_TOTALS = (
    """
HAL_KERNEL kernel_(const i64 n, const i64 per, const i64 length, const i64 inner, const i64 chunks, const i64 each,
    HAL_GLOBAL const @X *restrict x, const i64 ox, HAL_GLOBAL @V *restrict totals, const i64 ot) {
    x += ox; totals += ot;
"""
    + _CHUNK
    + """        @V total = @FIRST;
        for (i64 k = start; k < stop; k++) total = total @WITH (@V)@loadX(x, first + k * inner);
        totals[i] = total;
    }
}
"""
)
# What runs through the chunk i, beginning with the totals before it.
_RUNNING = (
    """
HAL_KERNEL kernel_(const i64 n, const i64 per, const i64 length, const i64 inner, const i64 chunks, const i64 each,
    HAL_GLOBAL const @X *restrict x, const i64 ox, HAL_GLOBAL const @V *restrict totals, const i64 ot,
    HAL_GLOBAL @Y *restrict y, const i64 oy) {
    x += ox; totals += ot; y += oy;
"""
    + _CHUNK
    + """        @V total = @FIRST;
        for (i64 c = 0; c < chunk; c++) total = total @WITH totals[line * chunks + c];
        for (i64 k = start; k < stop; k++) {
            const i64 place = first + k * inner;
            total = total @WITH (@V)@loadX(x, place);
            @storeY(y, place, (@valueY)total);
        }
    }
}
"""
)


def _summed_in(out: DType) -> DType:
    """The dtype of running results: integers wrap around, halves are rounded when they are written."""
    if out.is_floating:
        return dtypes.float64 if out is dtypes.float64 else dtypes.float32
    return dtypes.uint64


def _chunks(runtime: Runtime, lines: int, length: int) -> int:
    """Into how many parts a line is cut, so that there is work for all."""
    wanted = PER_UNIT * runtime.units * (1 if runtime.is_cpu else runtime.local)
    return max(1, min(-(-wanted // lines), length // LEAST[not runtime.is_cpu], MOST))


def _register(op: Op, first: str, with_: str) -> None:
    infer: Callable[..., Any] = op.infer

    @kernels.register(op)
    def kernel(x: Buffer, *, axis: int) -> Buffer:
        runtime = x.memory.runtime
        spec = infer(x.spec, axis=axis)
        out = runtime.empty(x.shape, spec.dtype, op.name)
        if out.size == 0:
            return out
        axis %= len(x.shape)
        length, inner = x.shape[axis], prod(x.shape[axis + 1 :])
        lines = out.size // length
        chunks = _chunks(runtime, lines, length)
        each = -(-length // chunks)
        chunks = -(-length // each)
        wide = _summed_in(out.dtype)
        x = in_rows(x)
        totals = runtime.empty((lines * chunks,), wide, op.name) if chunks > 1 else out
        types = {"X": x.dtype, "Y": out.dtype, "V": wide}
        words = {"FIRST": first, "WITH": with_}
        grain = max(1, GRAIN // each)
        sizes = (length, inner, chunks, each, x, totals)
        units = lines * chunks
        how: dict[str, Any] = {"types": types, "words": words, "grain": grain}
        if chunks > 1:
            run(runtime, op.name, _TOTALS, units, sizes, writes=[totals], **how)
        run(runtime, op.name, _RUNNING, units, (*sizes, out), writes=[out], **how)
        return out


_register(ops.cumsum, "0", "+")
_register(ops.cumprod, "1", "*")
