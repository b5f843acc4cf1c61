"""Order along an axis: short runs by insertion, then merges in which each element finds its own place. Always stable.

NaN counts as greater than every number. Equal elements stay in the order in which they came.
"""

from __future__ import annotations

from math import prod
from typing import Any

from hal import ops
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.indexing import gather
from hal.codegen.kernels.movement import copied, copy_into, in_rows
from hal.codegen.kernels.table import kernels
from hal.codegen.kernels.templates import run
from hal.plugin import Spec, dtypes

RUN = 32  # elements that one work item sorts by insertion
SHORT_RUN = 8  # the same where there are items for all

_ORDER = """
HAL_FUNCTION i32 comes_first(const @valueX a, const @valueX b) { return @BEFORE; }
"""
# A run for each i: positions of its elements in order.
_RUNS = (
    _ORDER
    + """
HAL_KERNEL kernel_(const i64 n, const i64 per, const i64 length, const i64 runs,
    HAL_GLOBAL const @X *restrict x, const i64 ox, HAL_GLOBAL i64 *restrict order, const i64 oo) {
    x += ox; order += oo;
    @LOOP {
        const i64 row = i / runs, start = (i - row * runs) * @RUN;
        const i64 stop = start + @RUN < length ? start + @RUN : length;
        HAL_GLOBAL const @X *keys = x + row * length;
        HAL_GLOBAL i64 *places = order + row * length;
        for (i64 k = start; k < stop; k++) {
            const @valueX key = @loadX(keys, k);
            i64 j = k;
            while (j > start) {
                const @valueX other = @loadX(keys, places[j - 1]);
                if (!comes_first(key, other)) break;
                places[j] = places[j - 1];
                j--;
            }
            places[j] = k;
        }
    }
}
"""
)
# An element for each i: how many of the neighbouring run stand before it is found by halving.
_MERGE = (
    _ORDER
    + """
HAL_KERNEL kernel_(const i64 n, const i64 per, const i64 length, const i64 width,
    HAL_GLOBAL const @X *restrict x, const i64 ox, HAL_GLOBAL const i64 *restrict given, const i64 og,
    HAL_GLOBAL i64 *restrict order, const i64 oo) {
    x += ox; given += og; order += oo;
    @LOOP {
        const i64 row = i / length, k = i - row * length;
        HAL_GLOBAL const @X *keys = x + row * length;
        HAL_GLOBAL const i64 *places = given + row * length;
        const i64 pair = k / (2 * width) * (2 * width);
        const i64 middle = pair + width < length ? pair + width : length;
        const i64 end = pair + 2 * width < length ? pair + 2 * width : length;
        const i32 is_left = k < middle;
        const @valueX key = @loadX(keys, places[k]);
        i64 low = is_left ? middle : pair, high = is_left ? end : middle;
        const i64 begin = low;
        while (low < high) {
            const i64 mid = (low + high) / 2;
            const @valueX other = @loadX(keys, places[mid]);
            if (is_left ? comes_first(other, key) : !comes_first(key, other)) low = mid + 1;
            else high = mid;
        }
        const i64 own = is_left ? k - pair : k - middle;
        order[row * length + pair + own + low - begin] = places[k];
    }
}
"""
)
# The same for a pair of runs for each i, one element after the other: what a CPU does in less time.
_ZIP = (
    _ORDER
    + """
HAL_KERNEL kernel_(const i64 n, const i64 per, const i64 length, const i64 width, const i64 pairs,
    HAL_GLOBAL const @X *restrict x, const i64 ox, HAL_GLOBAL const i64 *restrict given, const i64 og,
    HAL_GLOBAL i64 *restrict order, const i64 oo) {
    x += ox; given += og; order += oo;
    @LOOP {
        const i64 row = i / pairs, start = (i - row * pairs) * 2 * width;
        HAL_GLOBAL const @X *keys = x + row * length;
        HAL_GLOBAL const i64 *places = given + row * length;
        const i64 middle = start + width < length ? start + width : length;
        const i64 end = start + 2 * width < length ? start + 2 * width : length;
        i64 left = start, right = middle;
        for (i64 k = start; k < end; k++) {
            i32 takes_right = left >= middle;
            if (!takes_right && right < end) {
                const @valueX a = @loadX(keys, places[left]), b = @loadX(keys, places[right]);
                takes_right = comes_first(b, a);
            }
            order[row * length + k] = takes_right ? places[right++] : places[left++];
        }
    }
}
"""
)


def ordered(x: Buffer, descending: bool) -> Buffer:
    """The positions along the last axis of `x`, whose elements lie row by row, that sort it."""
    runtime = x.memory.runtime
    length = x.shape[-1]
    rows = prod(x.shape[:-1])
    order = runtime.empty(x.shape, dtypes.int64, "argsort")
    if x.size == 0:
        return order
    sign = ">" if descending else "<"
    before = f"a {sign} b"
    if x.dtype.is_floating:
        before += " || (a != a && b == b)" if descending else " || (b != b && a == a)"
    width = RUN if runtime.is_cpu else SHORT_RUN
    types, words = {"X": x.dtype}, {"BEFORE": before, "RUN": str(width)}
    runs = -(-length // width)
    run(
        runtime, "argsort", _RUNS, rows * runs, [length, runs, x, order],
        writes=[order], types=types, words=words, grain=64,
    )  # fmt: skip
    while width < length:
        following = runtime.empty(x.shape, dtypes.int64, "argsort")
        pairs = -(-length // (2 * width))
        if runtime.is_cpu:
            run(
                runtime, "argsort", _ZIP, rows * pairs, [length, width, pairs, x, order, following],
                writes=[following], types=types, words=words, grain=max(1, 2048 // width),
            )  # fmt: skip
        else:
            run(
                runtime, "argsort", _MERGE, x.size, [length, width, x, order, following],
                writes=[following], types=types, words=words,
            )  # fmt: skip
        order = following
        width *= 2
    return order


def _to_last(x: Buffer, axis: int) -> tuple[Buffer, tuple[int, ...]]:
    """`x` in rows with an axis moved to the end, and the axes that move it back."""
    rank = len(x.shape)
    axis %= rank
    axes = (*(i for i in range(rank) if i != axis), axis)
    moved = x.view(tuple(x.shape[a] for a in axes), tuple(x.strides[a] for a in axes))
    return in_rows(moved), tuple(axes.index(i) for i in range(rank))


def _back(x: Buffer, axes: tuple[int, ...]) -> Buffer:
    moved = x.view(tuple(x.shape[a] for a in axes), tuple(x.strides[a] for a in axes))
    return in_rows(moved)


def _has_axes(x: Spec, **settings: Any) -> bool:
    return len(x.shape) > 0


@kernels.register(ops.argsort, when=_has_axes)
def argsort(x: Buffer, *, axis: int, descending: bool, stable: bool) -> Buffer:
    rows, back = _to_last(x, axis)
    return _back(ordered(rows, descending), back)


@kernels.register(ops.sort, when=_has_axes, out=True)
def sort(x: Buffer, *, axis: int, descending: bool, out: Buffer | None = None) -> Buffer:

    rows, back = _to_last(x, axis)
    result = _back(gather(rows, ordered(rows, descending), axis=-1), back)
    if out is None:
        return result
    copy_into(result, out)
    return out


@kernels.register(ops.topk, when=_has_axes)
def topk(x: Buffer, *, k: int, axis: int, largest: bool) -> tuple[Buffer, Buffer]:

    rows, back = _to_last(x, axis)
    order = ordered(rows, largest)
    first = copied(order.view((*order.shape[:-1], k), order.strides))
    return _back(gather(rows, first, axis=-1), back), _back(first, back)
