"""Reading and writing by position: take, gather, index_add, scatter_add, put, scatter, embedding, one_hot.

What is written to one place by several is written in the order of the indices, by one work item: results are the same
on every run. Indices that are out of range are moved to the nearest element: a device cannot raise.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.codegen.kernels.buffer import Buffer, Shape
from hal.codegen.kernels.elementwise import map_of
from hal.codegen.kernels.maps import GRAIN
from hal.codegen.kernels.movement import copied, copy_into, in_rows
from hal.codegen.kernels.table import kernels
from hal.codegen.kernels.templates import run
from hal.plugin import Array, DType, Spec, dtypes

_INDEX = """
HAL_FUNCTION i64 place_of(i64 index, i64 size) {
    const i64 place = index + (index < 0) * size;
    return place < 0 ? 0 : place < size ? place : size - 1;
}
"""
# One element of the result for each i: `inner` elements lie behind each index.
_TAKE = (
    _INDEX
    + """
HAL_KERNEL kernel_(const i64 n, const i64 per, const i64 inner, const i64 count, const i64 size,
    HAL_GLOBAL const @X *restrict x, const i64 ox, HAL_GLOBAL const @I *restrict indices, const i64 oi,
    HAL_GLOBAL @X *restrict out, const i64 oo) {
    x += ox; indices += oi; out += oo;
    @LOOP {
        const i64 row = i / inner, column = i - row * inner, outer = row / count, k = row - outer * count;
        out[i] = x[(outer * size + place_of((i64)indices[k], size)) * inner + column];
    }
}
"""
)
# The same where every element has an index of its own.
_PLACES = """
typedef struct { i64 n[8]; i64 x[8]; i64 u[8]; } places_;
"""
_GATHER = (
    _INDEX
    + _PLACES
    + """
HAL_KERNEL kernel_(const i64 n, const i64 per, const i64 rank, const i64 along, const i64 size, const places_ s,
    HAL_GLOBAL const @X *restrict x, const i64 ox, HAL_GLOBAL const @I *restrict indices, const i64 oi,
    HAL_GLOBAL @X *restrict out, const i64 oo) {
    x += ox; indices += oi; out += oo;
    @LOOP {
        i64 rest = i, from = place_of((i64)indices[i], size) * s.x[along];
        for (int axis = (int)rank - 1; axis >= 0; axis--) {
            const i64 at = rest % s.n[axis];
            rest /= s.n[axis];
            if (axis != along) from += at * s.x[axis];
        }
        out[i] = x[from];
    }
}
"""
)
# One column of the result for each i: whoever writes to it is this work item.
_WRITE = (
    _INDEX
    + """
HAL_KERNEL kernel_(const i64 n, const i64 per, const i64 inner, const i64 count, const i64 size,
    HAL_GLOBAL const @I *restrict indices, const i64 oi, HAL_GLOBAL const @U *restrict updates, const i64 ou,
    HAL_GLOBAL @X *restrict out, const i64 oo) {
    indices += oi; updates += ou; out += oo;
    @WALK
        for (i64 k = 0; k < count; k++) {
            const i64 to = place_of((i64)indices[k], size);
            for (i64 i = first; i < last; i++) {
                const i64 outer = i / inner, column = i - outer * inner;
                const i64 at = (outer * size + to) * inner + column;
                const @valueU value = @loadU(updates, (outer * count + k) * inner + column);
                const @valueX before = @loadX(out, at);
                @storeX(out, at, @CHANGE);
            }
        }
}
"""
)
# The same where there are many items: indices in order, and for each element of the result an item that begins where
# its index begins, and goes on while it lasts.
_KEYS = (
    _INDEX
    + """
HAL_KERNEL kernel_(const i64 n, const i64 per, const i64 size, HAL_GLOBAL const @I *restrict indices, const i64 oi,
    HAL_GLOBAL i64 *restrict keys, const i64 ok) {
    indices += oi; keys += ok;
    @LOOP { keys[i] = place_of((i64)indices[i], size); }
}
"""
)
_SEGMENTS = """
HAL_KERNEL kernel_(const i64 n, const i64 per, const i64 columns, const i64 inner, const i64 count, const i64 size,
    HAL_GLOBAL const i64 *restrict keys, const i64 ok, HAL_GLOBAL const i64 *restrict order, const i64 or_,
    HAL_GLOBAL const @U *restrict updates, const i64 ou, HAL_GLOBAL @X *restrict out, const i64 oo) {
    keys += ok; order += or_; updates += ou; out += oo;
    @LOOP {
        const i64 first = i / columns, rest = i - first * columns;
        const i64 to = keys[order[first]];
        if (first > 0 && keys[order[first - 1]] == to) continue;
        const i64 outer = rest / inner, column = rest - outer * inner;
        const i64 at = (outer * size + to) * inner + column;
        @valueX before = @loadX(out, at);
        for (i64 k = first; k < count && keys[order[k]] == to; k++) {
            const @valueU value = @loadU(updates, (outer * count + order[k]) * inner + column);
            before = (@valueX)(@CHANGE);
        }
        @storeX(out, at, before);
    }
}
"""
FEW = 64  # indices up to which an item of a GPU goes through all of them
# One line along the axis for each i, whose indices lie in rows: no other work item writes to it.
_SCATTER = (
    _INDEX
    + _PLACES
    + """
HAL_KERNEL kernel_(const i64 n, const i64 per, const i64 rank, const i64 along, const i64 size, const places_ s,
    const i64 inner, HAL_GLOBAL const @I *restrict indices, const i64 oi,
    HAL_GLOBAL const @U *restrict updates, const i64 ou, HAL_GLOBAL @X *restrict out, const i64 oo) {
    indices += oi; updates += ou; out += oo;
    @LOOP {
        i64 rest = i, base = 0, from = 0;
        for (int axis = (int)rank - 1; axis >= 0; axis--) {
            if (axis == along) continue;
            const i64 at = rest % s.n[axis];
            rest /= s.n[axis];
            base += at * s.x[axis];
            from += at * s.u[axis];
        }
        const i64 outer = i / inner, first = outer * s.n[along] * inner + i - outer * inner;
        for (i64 k = 0; k < s.n[along]; k++) {
            const i64 at = base + place_of((i64)indices[first + k * inner], size) * s.x[along];
            const @valueU value = @loadU(updates, from + k * s.u[along]);
            const @valueX before = @loadX(out, at);
            @storeX(out, at, @CHANGE);
        }
    }
}
"""
)
MOST_AXES = 8


def _split(x: Buffer, axis: int) -> tuple[int, int, int]:
    """The number of elements before an axis, along it, and behind it."""
    axis %= max(1, len(x.shape))
    return prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :])


@kernels.register(ops.take)
def take(x: Buffer, indices: Buffer, *, axis: int) -> Buffer:
    runtime = x.memory.runtime
    x, indices = in_rows(x), in_rows(indices)
    _, size, inner = _split(x, axis)
    axis %= len(x.shape)
    out = runtime.empty((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype, "take")
    bits = out.as_bits()
    types = {"X": bits.dtype, "I": indices.dtype}
    arguments = [inner, indices.size, size, x.as_bits(), indices, bits]
    run(runtime, "take", _TAKE, out.size, arguments, writes=[out], types=types)
    return out


@kernels.register(ops.embedding)
def embedding(weight: Buffer, indices: Buffer, *, padding_idx: int | None = None) -> Buffer:
    return take(weight, indices, axis=0)


def _few_axes(x: Spec, *rest: Spec, **settings: Any) -> bool:
    return 0 < len(x.shape) <= MOST_AXES


def _places(shape: Shape, x: Shape, u: Shape) -> Array:
    filler = (1,) * (MOST_AXES - len(shape))
    return np.array([(*shape, *filler), (*x, *filler), (*u, *filler)], np.int64)


@kernels.register(ops.gather, when=_few_axes)
def gather(x: Buffer, index: Buffer, *, axis: int) -> Buffer:
    runtime = x.memory.runtime
    index = in_rows(index)
    rank = len(x.shape)
    out = runtime.empty(index.shape, x.dtype, "gather")
    bits = out.as_bits()
    places = _places(index.shape, x.strides, x.strides)
    arguments = [rank, axis % rank, x.shape[axis], places, x.as_bits(), index, bits]
    run(runtime, "gather", _GATHER, out.size, arguments, writes=[out], types={"X": bits.dtype, "I": index.dtype})
    return out


class _Target:
    """Where several write into a copy of `x`: in its own dtype, or for sums of halves in float32."""

    def __init__(self, x: Buffer, out: Buffer | None, adds: bool, label: str) -> None:
        runtime = x.memory.runtime
        self.result = runtime.empty(x.shape, x.dtype, label) if out is None else out
        self.widened = adds and x.dtype.is_floating and x.dtype.itemsize == 2
        direct = self.result.contiguous and not self.widened
        self.sums = self.result
        if not direct:
            dtype = dtypes.float32 if self.widened else x.dtype
            self.sums = runtime.empty(x.shape, dtype, label)
        if self.widened:
            _cast(x, self.sums)
        elif self.sums is not x:
            copy_into(x, self.sums)

    def finished(self) -> Buffer:
        """The result, rounded once."""
        if self.widened:
            _cast(self.sums, self.result)
        elif self.sums is not self.result:
            copy_into(self.sums, self.result)
        return self.result


def _cast(x: Buffer, out: Buffer) -> None:
    map_of(ops.cast, (x.dtype,), (out.dtype,), (("dtype", out.dtype),))(x.memory.runtime, (x,), (out,))


def _change(dtype: DType, adds: bool) -> str:
    if not adds:
        return "value"
    return "before | value" if dtype is dtypes.bool_ else "before + value"


# On a CPU a work item goes through its columns for each index; on others each column is a loop of its own.
_RANGE = "const i64 first = HAL_INDEX * per, last = first + per < n ? first + per : n;"
_EACH = "for (i64 first = HAL_INDEX, last = first + 1; first < n; first += HAL_TOTAL, last = first + 1)"


def _write(
    x: Buffer, indices: Buffer, updates: Buffer, axis: int, adds: bool, out: Buffer | None, label: str
) -> Buffer:
    runtime = x.memory.runtime
    indices, updates = in_rows(_apart(indices, out)), in_rows(_apart(updates, out))
    if not adds:
        updates = updates.as_bits()
    target = _Target(x, out, adds, label)
    sums = target.sums if adds else target.sums.as_bits()
    outer, size, inner = _split(x, axis)
    types = {"X": sums.dtype, "U": updates.dtype, "I": indices.dtype}
    if not runtime.is_cpu and indices.size > FEW:
        _write_in_order(label, indices, updates, sums, (outer, size, inner), _change(sums.dtype, adds))
        return target.finished()
    words = {"WALK": _RANGE if runtime.is_cpu else _EACH, "CHANGE": _change(sums.dtype, adds)}
    arguments = [inner, indices.size, size, indices, updates, sums]
    grain = max(1, GRAIN // max(1, indices.size))
    run(runtime, label, _WRITE, outer * inner, arguments, writes=[sums], types=types, words=words, grain=grain)
    return target.finished()


def _write_in_order(
    label: str, indices: Buffer, updates: Buffer, sums: Buffer, sizes: tuple[int, int, int], change: str
) -> None:
    """Enqueue what is written to each place in the order of the indices, by many items."""
    from hal.codegen.kernels.sorting import ordered

    runtime, count = sums.memory.runtime, indices.size
    outer, size, inner = sizes
    keys = runtime.empty((count,), dtypes.int64, label)
    run(runtime, label, _KEYS, count, [size, indices, keys], writes=[keys], types={"I": indices.dtype})
    order, columns = ordered(keys, False), outer * inner
    run(
        runtime, label, _SEGMENTS, count * columns, [columns, inner, count, size, keys, order, updates, sums],
        writes=[sums], types={"X": sums.dtype, "U": updates.dtype}, words={"CHANGE": change},
    )  # fmt: skip


def _apart(x: Buffer, out: Buffer | None) -> Buffer:
    return copied(x) if out is not None and out.memory is x.memory else x


@kernels.register(ops.index_add, out=True)
def index_add(x: Buffer, indices: Buffer, updates: Buffer, *, axis: int, out: Buffer | None = None) -> Buffer:
    return _write(x, indices, updates, axis, True, out, "index_add")


@kernels.register(ops.put, out=True)
def put(x: Buffer, indices: Buffer, values: Buffer, *, axis: int, out: Buffer | None = None) -> Buffer:
    axis %= len(x.shape)
    spread = x.memory.runtime.empty((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), values.dtype, "put")
    copy_into(values, spread)
    return _write(x, indices, spread, axis, False, out, "put")


def _write_lines(
    x: Buffer, index: Buffer, src: Buffer, axis: int, adds: bool, out: Buffer | None, label: str
) -> Buffer:
    runtime = x.memory.runtime
    rank, along = len(x.shape), axis % len(x.shape)
    index, src = in_rows(_apart(index, out)), _apart(src, out)
    target = _Target(x, out, adds, label)
    sums = target.sums if adds else target.sums.as_bits()
    src = src if adds else src.as_bits()
    steps = src.strides if src.shape else (0,) * rank
    places = _places(index.shape, sums.strides, steps)
    inner = prod(index.shape[along + 1 :])
    lines = index.size // index.shape[along] if index.size else 0
    types = {"X": sums.dtype, "U": src.dtype, "I": index.dtype}
    arguments = [rank, along, x.shape[along], places, inner, index, src, sums]
    words = {"CHANGE": _change(sums.dtype, adds)}
    grain = max(1, GRAIN // max(1, index.shape[along]))
    run(runtime, label, _SCATTER, lines, arguments, writes=[sums], types=types, words=words, grain=grain)
    return target.finished()


@kernels.register(ops.scatter, when=_few_axes, out=True)
def scatter(x: Buffer, index: Buffer, src: Buffer, *, axis: int, out: Buffer | None = None) -> Buffer:
    return _write_lines(x, index, src, axis, False, out, "scatter")


@kernels.register(ops.scatter_add, when=_few_axes, out=True)
def scatter_add(x: Buffer, index: Buffer, src: Buffer, *, axis: int, out: Buffer | None = None) -> Buffer:
    return _write_lines(x, index, src, axis, True, out, "scatter_add")
