"""Reductions along any axes: in rows where the reduced elements lie side by side, in columns where the results do."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np

from hal import ops
from hal.codegen.expressions import loaded, memory_type, stored, value_type
from hal.codegen.folds import Fold, fold_of
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.layout import Shape, collapsed
from hal.codegen.kernels.maps import PER_UNIT
from hal.codegen.kernels.movement import copy_into
from hal.codegen.kernels.runtime import Runtime
from hal.codegen.kernels.table import kernels
from hal.plugin import DType, Op, Spec

LANES = 16  # elements that are taken side by side, so that a CPU's vectors are used and sums are summed in parts
BLOCK = 4096  # elements after which the lanes become one: sums stay accurate
WORK = 8192  # elements that are worth a work item on a CPU
LARGEST = (1 << 31) - 1
Axes = int | tuple[int, ...] | None


def _filled(text: str, **names: str) -> str:
    """`text` with `{name}` replaced; other braces stay."""
    return re.sub(r"\{(\w+)\}", lambda m: names.get(m[1], m[0]), text)


def _state(fold: Fold, prefix: str, index: str = "") -> dict[str, str]:
    return {f"{prefix[0]}{k}": f"{prefix}{k}{index}" for k in range(len(fold.state))}


class Reduction:
    """One fold from a dtype to another: `reduction(runtime, x, axes, out)` enqueues it.

    The kernel's units are results (or, in columns, blocks of results) times parts of what is reduced to each: where
    there are few results, several work items (or groups) share one and their states are merged by a second kernel.
    """

    def __init__(self, label: str, fold: Fold, given: DType, out: DType) -> None:
        self.label = label
        self.fold = fold
        self.given = given
        self.out = out
        self._sources: dict[Any, str] = {}

    def __call__(self, runtime: Runtime, x: Buffer, axes: tuple[int, ...], out: Buffer) -> None:
        """Reduce `axes` of `x` into `out`, whose elements lie row by row, in the order of the axes that are kept."""
        kept = [i for i in range(len(x.shape)) if i not in axes]
        outer, (outer_steps,) = collapsed(tuple(x.shape[i] for i in kept), [tuple(x.strides[i] for i in kept)])
        inner, (inner_steps,) = collapsed(tuple(x.shape[i] for i in axes), [tuple(x.strides[i] for i in axes)])
        results, reduced = out.size, 1
        for i in axes:
            reduced *= x.shape[i]
        if results == 0:
            return
        columns = runtime.is_cpu and outer_steps[-1] == 1 and outer[-1] >= LANES and inner_steps[-1] != 1
        grouped = (
            not runtime.is_cpu and reduced >= 32 and (abs(inner_steps[-1]) <= abs(outer_steps[-1]) or results < 256)
        )
        wanted = PER_UNIT * runtime.units if runtime.is_cpu else 8 * runtime.units
        blocks = -(-outer[-1] // (4 * LANES)) if columns else 1
        units = results // outer[-1] * blocks if columns else results
        most = reduced // (WORK // 4 if runtime.is_cpu else 16 * runtime.local) if runtime.is_cpu or grouped else 1
        parts = max(1, min(most, -(-wanted // units))) if units < wanted else 1
        mode = "columns" if columns else "groups" if grouped else "rows"
        wide = reduced > LARGEST  # GPUs divide integers of 64 bits in software
        key = (mode, len(outer), len(inner), inner_steps[-1] == 1, parts > 1, wide, runtime.is_cpu, runtime.local)
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = self._source(*key[:6], runtime)
        kernel = runtime.programs.kernel(source, "reduce", self.label)
        layout = np.array([*outer, *outer_steps, *inner, *inner_steps], np.int64)
        scratch = [
            runtime.empty((parts * results,), _dtype_of(kind), self.label) for kind, _ in self.fold.state if parts > 1
        ]
        count = units * parts
        if grouped:
            items, local = (min(count, 1 << 20) * runtime.local,), (runtime.local,)
        elif runtime.is_cpu:
            each = max(1, WORK // max(1, reduced // parts * (results // units)))
            items, local = (max(1, min(PER_UNIT * runtime.units * 2, -(-count // each))),), (1,)
        else:
            items, local = (-(-count // runtime.local) * runtime.local,), (runtime.local,)
        arguments = [
            layout, np.int64(count), np.int64(parts), np.int64(reduced), np.int64(results), np.int64(blocks),
            x.memory, np.int64(x.offset), out.memory, np.int64(out.offset), *(s.memory for s in scratch),
        ]  # fmt: skip
        runtime.launch(self.label, kernel, items, local, *arguments, writes=[out.memory])
        if parts > 1:
            self._merge(runtime, scratch, parts, results, reduced, out)

    def _merge(
        self, runtime: Runtime, scratch: list[Buffer], parts: int, results: int, reduced: int, out: Buffer
    ) -> None:
        source = self._sources.get("merge")
        if source is None:
            source = self._sources["merge"] = self._merge_source()
        kernel = runtime.programs.kernel(source, "merge", self.label)
        local = runtime.local
        items = -(-results // local) * local if not runtime.is_cpu else min(results, PER_UNIT * runtime.units)
        arguments = [np.int64(results), np.int64(parts), np.int64(reduced), out.memory, np.int64(out.offset)]
        arguments += [s.memory for s in scratch]
        runtime.launch(self.label, kernel, (items,), (local,), *arguments, writes=[out.memory])

    # Sources.

    def _declare(self, prefix: str, size: str = "") -> str:
        """The variables of a state, or of an array of states."""
        if not size:
            return " ".join(f"{kind} {prefix}{k} = {first};" for k, (kind, first) in enumerate(self.fold.state))
        declared = " ".join(f"{kind} {prefix}{k}[{size}];" for k, (kind, _) in enumerate(self.fold.state))
        return declared

    def _reset(self, prefix: str, size: str) -> str:
        sets = " ".join(f"{prefix}{k}[l] = {first};" for k, (_, first) in enumerate(self.fold.state))
        return f"for (int l = 0; l < {size}; l++) {{ {sets} }}"

    def _step(self, prefix: str, place: str, number: str, index: str = "") -> str:
        x = loaded("p", place, self.given)
        step = _filled(self.fold.step, x="x", i=number, **_state(self.fold, prefix, index))
        return f"{{ const {value_type(self.given)} x = {x}; {step} }}"

    def _merged(self, into: str, other: str, into_index: str = "", other_index: str = "") -> str:
        b = {f"b{k}": f"{other}{k}{other_index}" for k in range(len(self.fold.state))}
        a = {f"a{k}": f"{into}{k}{into_index}" for k in range(len(self.fold.state))}
        return _filled(self.fold.merge, **a, **b)

    def _finish(self, prefix: str, place: str, parted: bool, index: str = "", unit: str = "u") -> str:
        if parted:
            return " ".join(f"s{k}[{unit}] = {prefix}{k}{index};" for k in range(len(self.fold.state)))
        a = {f"a{k}": f"{prefix}{k}{index}" for k in range(len(self.fold.state))}
        return stored("q", place, _filled(self.fold.results[0], n="m", **a), self.out)

    def _source(
        self, mode: str, outer: int, inner: int, unit_step: bool, parted: bool, wide: bool, runtime: Runtime
    ) -> str:
        scratch = "".join(f", HAL_GLOBAL {k} *restrict s{i}" for i, (k, _) in enumerate(self.fold.state) if parted)
        head = f"""typedef struct {{ i64 on[{outer}]; i64 os[{outer}]; i64 in[{inner}]; i64 is[{inner}]; }} layout;
HAL_KERNEL reduce(const layout l_, const i64 n, const i64 parts, const i64 m, const i64 results, const i64 blocks,
    HAL_GLOBAL const {memory_type(self.given)} *restrict p, const i64 o,
    HAL_GLOBAL {memory_type(self.out)} *restrict q, const i64 r{scratch}) {{
    p += o; q += r;
    const i64 share = (m + parts - 1) / parts;
"""
        if mode == "columns":
            return head + self._columns(outer, inner, parted) + "}\n"
        if mode == "groups":
            return head + self._groups(outer, inner, parted, runtime.local, "i64" if wide else "u32") + "}\n"
        return head + self._rows(outer, inner, unit_step, parted, runtime.is_cpu) + "}\n"

    def _rows(self, outer: int, inner: int, unit_step: bool, parted: bool, is_cpu: bool) -> str:
        step = "j" if unit_step else f"j * l_.is[{inner - 1}]"
        lanes = LANES if is_cpu else 1
        at_lane = "(j + l)" if unit_step else f"(j + l) * l_.is[{inner - 1}]"
        number = f"(outer * l_.in[{inner - 1}] + j)" if inner > 1 else "j"
        lane_number = f"(outer * l_.in[{inner - 1}] + j + l)" if inner > 1 else "(j + l)"
        return f"""    for (i64 u = HAL_INDEX; u < n; u += HAL_TOTAL) {{
        const i64 result = u / parts, part = u - result * parts;
        i64 rest = result, base = 0;
        {_decoded(range(outer - 1, -1, -1), "rest", "base", "on", "os")}
        {self._declare("t")}
        {self._declare("a", str(lanes))}
        i64 i = part * share;
        const i64 stop = i + share < m ? i + share : m;
        while (i < stop) {{
            const i64 outer = i / l_.in[{inner - 1}];
            i64 j = i - outer * l_.in[{inner - 1}];
            i64 end = l_.in[{inner - 1}] - j < stop - i ? l_.in[{inner - 1}] : j + stop - i;
            if (end - j > {BLOCK}) end = j + {BLOCK};
            i += end - j;
            i64 inner_rest = outer, b = base;
            {_decoded(range(inner - 2, -1, -1), "inner_rest", "b", "in", "is")}
            {self._reset("a", str(lanes))}
            for (; j + {lanes} <= end; j += {lanes})
                for (int l = 0; l < {lanes}; l++) {self._step("a", f"b + {at_lane}", lane_number, "[l]")}
            for (; j < end; j++) {self._step("a", f"b + {step}", number, "[0]")}
            for (int l = 1; l < {lanes}; l++) {{ {self._merged("a", "a", "[0]", "[l]")} }}
            {self._merged("t", "a", "", "[0]")}
        }}
        {self._finish("t", "result", parted, unit="part * results + result")}
    }}
"""

    def _columns(self, outer: int, inner: int, parted: bool) -> str:
        width = 4 * LANES
        put = self._finish("t", "first + l", parted, "[l]", "part * results + first + l")
        return f"""    for (i64 u = HAL_INDEX; u < n; u += HAL_TOTAL) {{
        const i64 unit = u / parts, part = u - unit * parts;
        const i64 row = unit / blocks, c = (unit - row * blocks) * {width};
        const int wide = l_.on[{outer - 1}] - c < {width} ? (int)(l_.on[{outer - 1}] - c) : {width};
        i64 rest = row, base = c;
        {_decoded(range(outer - 2, -1, -1), "rest", "base", "on", "os")}
        {self._declare("t", str(width))}
        {self._declare("a", str(width))}
        {self._reset("t", str(width))}
        i64 i = part * share;
        const i64 stop = i + share < m ? i + share : m;
        while (i < stop) {{
            const i64 end = i + {BLOCK // LANES} < stop ? i + {BLOCK // LANES} : stop;
            {self._reset("a", str(width))}
            for (; i < end; i++) {{
                i64 inner_rest = i, b = base;
                {_decoded(range(inner - 1, -1, -1), "inner_rest", "b", "in", "is")}
                if (wide == {width})
                    for (int l = 0; l < {width}; l++) {self._step("a", "b + l", "i", "[l]")}
                else
                    for (int l = 0; l < wide; l++) {self._step("a", "b + l", "i", "[l]")}
            }}
            for (int l = 0; l < {width}; l++) {{ {self._merged("t", "a", "[l]", "[l]")} }}
        }}
        const i64 first = row * l_.on[{outer - 1}] + c;
        for (int l = 0; l < wide; l++) {{ {put} }}
    }}
"""

    def _groups(self, outer: int, inner: int, parted: bool, local: int, kind: str) -> str:
        shared = " ".join(f"HAL_LOCAL {kind} h{k}[{local}];" for k, (kind, _) in enumerate(self.fold.state))
        put = " ".join(f"h{k}[item] = a{k};" for k in range(len(self.fold.state)))
        merge = self._merged("h", "h", "[item]", "[item + w]")
        return f"""    {shared}
    const int item = HAL_ITEM(0);
    for (i64 u = HAL_GROUP(0); u < n; u += HAL_GROUPS(0)) {{
        const i64 result = u / parts, part = u - result * parts;
        i64 rest = result, base = 0;
        {_decoded(range(outer - 1, -1, -1), "rest", "base", "on", "os")}
        {self._declare("a")}
        const i64 stop = (part + 1) * share < m ? (part + 1) * share : m;
        for (i64 i = part * share + item; i < stop; i += {local}) {{
            i64 inner_rest = i, b = base;
            {_decoded(range(inner - 1, -1, -1), "inner_rest", "b", "in", "is", kind)}
            {self._step("a", "b", "i")}
        }}
        {put}
        HAL_BARRIER;
        for (int w = {local} / 2; w > 0; w /= 2) {{
            if (item < w) {{ {merge} }}
            HAL_BARRIER;
        }}
        if (item == 0) {{ {self._finish("h", "result", parted, "[0]", "part * results + result")} }}
        HAL_BARRIER;
    }}
"""

    def _merge_source(self) -> str:
        scratch = "".join(f", HAL_GLOBAL const {k} *restrict s{i}" for i, (k, _) in enumerate(self.fold.state))
        merge = self._merged("t", "s", "", "[part * n + u]")
        return f"""HAL_KERNEL merge(const i64 n, const i64 parts, const i64 m,
    HAL_GLOBAL {memory_type(self.out)} *restrict q, const i64 r{scratch}) {{
    q += r;
    for (i64 u = HAL_INDEX; u < n; u += HAL_TOTAL) {{
        {self._declare("t")}
        for (i64 part = 0; part < parts; part++) {{ {merge} }}
        {self._finish("t", "u", False)}
    }}
}}
"""


def _decoded(axes: range, rest: str, base: str, sizes: str, steps: str, kind: str = "i64") -> str:
    """Lines that take an index apart, which fits a number of type `kind`."""
    lines = []
    for axis in axes:
        if axis:
            size = f"({kind})l_.{sizes}[{axis}]"
            lines.append(
                f"{{ const {kind} whole = ({kind}){rest} / {size}; "
                f"{base} += (i64)(({kind}){rest} - whole * {size}) * l_.{steps}[{axis}]; {rest} = whole; }}"
            )
        else:
            lines.append(f"{base} += {rest} * l_.{steps}[0];")
    return " ".join(lines)


def _dtype_of(kind: str) -> DType:
    from hal.plugin import dtypes

    name = {"f": "float", "i": "int", "u": "uint"}[kind[0]] + kind[1:]
    return dtypes.dtype(name)


@lru_cache(maxsize=512)
def reduction_of(op: Op, given: DType, out: DType) -> Reduction | None:
    """The reduction that an op is on a dtype, if it is one."""
    fold = fold_of(op, given, out)
    return None if fold is None else Reduction(op.name, fold, given, out)


def axes_of(axis: Axes, rank: int) -> tuple[int, ...]:
    """The axes that `axis` names, in order, from the front."""
    if axis is None:
        return tuple(range(rank))
    return tuple(sorted(a % rank for a in (axis if isinstance(axis, tuple) else (axis,))))


class Reduce:
    """The kernel of one reduction of the table."""

    def __init__(self, op: Op) -> None:
        self.op = op

    def __call__(self, x: Buffer, *, axis: Axes, keepdims: bool, out: Buffer | None = None) -> Buffer:
        spec: Spec = self.op.infer(x.spec, axis=axis, keepdims=keepdims)  # type: ignore[assignment]  # one result
        runtime = x.memory.runtime
        direct = out is not None and out.contiguous and out.memory is not x.memory
        result = out if out is not None and direct else runtime.empty(spec.shape, spec.dtype, self.op.name)
        run = reduction_of(self.op, x.dtype, spec.dtype)
        assert run is not None
        run(runtime, x, axes_of(axis, len(x.shape)), result)
        if out is not None and not direct:
            copy_into(result, out)
            return out
        return result


for _op in (ops.sum, ops.prod, ops.max, ops.min, ops.any, ops.all, ops.mean, ops.count_nonzero, ops.argmax, ops.argmin):
    kernels.register(_op, out=True)(Reduce(_op))

__all__ = ["Reduction", "Shape", "axes_of", "reduction_of"]
