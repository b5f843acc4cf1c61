"""Composites that go over whole rows: softmax and its relatives.

A row is what lies along one axis; a work item takes a row after the other on a CPU, a group of them a row on others.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.maps import PER_UNIT
from hal.codegen.kernels.movement import in_rows, into
from hal.codegen.kernels.runtime import Runtime
from hal.codegen.kernels.table import kernels
from hal.codegen.kernels.templates import filled_in
from hal.plugin import DType, dtypes

LANES = 16
_NEUTRAL = {"max": "-INFINITY", "sum": "0"}
_TAKEN = {"max": "{a} = {b} > {a} || {b} != {b} ? {b} : {a};", "sum": "{a} += {b};"}


def folded(kind: str, name: str, term: str, is_cpu: bool, local: int) -> str:
    """Lines that declare `name`: the maximum or sum of `term` over `k` below `length`."""
    first, taken = _NEUTRAL[kind], _TAKEN[kind]
    if is_cpu:
        lane, lanes = taken.format(a=f"{name}_l[l]", b="term"), taken.format(a=name, b=f"{name}_l[l]")
        return f"""@V {name}_l[{LANES}], {name} = {first};
        for (int l = 0; l < {LANES}; l++) {name}_l[l] = {first};
        for (i64 block = 0; block < length; block += 4096) {{
            const i64 stop = block + 4096 < length ? block + 4096 : length;
            i64 k_ = block;
            for (; k_ + {LANES} <= stop; k_ += {LANES})
                for (int l = 0; l < {LANES}; l++) {{ const i64 k = k_ + l; const @V term = {term}; {lane} }}
            for (; k_ < stop; k_++) {{ const int l = 0; const i64 k = k_; const @V term = {term}; {lane} }}
            for (int l = 0; l < {LANES}; l++) {{ {lanes} {name}_l[l] = {first}; }}
        }}"""
    return f"""@V {name} = {first};
        for (i64 k = HAL_ITEM(0); k < length; k += {local}) {{
            const @V term = {term}; {taken.format(a=name, b="term")}
        }}
        shared[HAL_ITEM(0)] = {name};
        HAL_BARRIER;
        for (int w = {local} / 2; w > 0; w /= 2) {{
            if ((int)HAL_ITEM(0) < w) {{ {taken.format(a="shared[HAL_ITEM(0)]", b="shared[HAL_ITEM(0) + w]")} }}
            HAL_BARRIER;
        }}
        {name} = shared[0];
        HAL_BARRIER;"""


class Rows:
    """A kernel over rows: `arrays` have an element for each place, `values` one for each row, `vectors` one for each k.

    In the texts, `@x(k)` is not written: `x_` is the value of array or vector x at k, and of value x in this row.

    Args:
        folds: (kind, name, term) in order; terms may use the names before them.
        lines: what is computed for each row after them.
        element: what is stored at each place: (array, expression).
        value: what is stored for each row: (value, expression).
    """

    def __init__(
        self,
        label: str,
        arrays: tuple[str, ...],
        *,
        values: tuple[str, ...] = (),
        vectors: tuple[str, ...] = (),
        numbers: tuple[tuple[str, str], ...] = (),
        folds: tuple[tuple[str, str, str], ...] = (),
        lines: str = "",
        element: tuple[tuple[str, str], ...] = (),
        value: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.label = label
        self.arrays, self.values, self.vectors, self.numbers = arrays, values, vectors, numbers
        self.folds, self.lines, self.element, self.value = folds, lines, element, value

    def __call__(self, runtime: Runtime, shape: tuple[int, ...], axis: int, wide: DType, given: dict[str, Any]) -> None:
        """Enqueue it for all rows along an axis of `shape`; `given` has buffers in rows and numbers by name."""
        axis %= max(1, len(shape))
        length, inner = (shape[axis], prod(shape[axis + 1 :])) if shape else (1, 1)
        rows = prod(shape) // length if length else 0
        if rows == 0:
            return
        names = (*self.arrays, *self.values, *self.vectors)
        types = {n.upper(): given[n].dtype for n in names} | {"V_": wide}
        source = self._source(runtime, inner == 1)
        text = filled_in(source, tuple(types.items()), (("V", "@valueV_"),), runtime.is_cpu)
        kernel = runtime.programs.kernel(text, "rows", self.label)
        if runtime.is_cpu:
            items, local = (max(1, min(rows, PER_UNIT * runtime.units, rows * length // 1024)),), (1,)
        else:
            items, local = (min(rows, 65535) * runtime.local,), (runtime.local,)
        arguments: list[Any] = [np.int64(rows), np.int64(length), np.int64(inner)]
        for name in names:
            arguments += (given[name].memory, np.int64(given[name].offset))
        number = np.float64 if wide is dtypes.float64 else np.float32
        arguments += [np.int64(given[n]) if kind == "i64" else number(given[n]) for kind, n in self.numbers]
        written = [given[n].memory for n, _ in (*self.element, *self.value)]
        runtime.launch(self.label, kernel, items, local, *arguments, writes=written)

    def _source(self, runtime: Runtime, in_line: bool) -> str:
        out = {n for n, _ in (*self.element, *self.value)}
        names = (*self.arrays, *self.values, *self.vectors)
        pointers = ",\n    ".join(
            f"HAL_GLOBAL {'' if n in out else 'const '}@{n.upper()} *restrict {n}, const i64 {n}_o" for n in names
        )
        numbers = "".join(f", const {kind} {n}" for kind, n in self.numbers)
        offsets = " ".join(f"{n} += {n}_o;" for n in names)
        place = "base + k" if in_line else "base + k * inner"
        defines = []
        for n in self.arrays:
            if n not in out:
                defines.append(f"#define {n}_ ((@V)@load{n.upper()}({n}, {place}))")
        for n in self.vectors:
            defines.append(f"#define {n}_ ((@V)@load{n.upper()}({n}, k))")
        for n in self.values:
            if n not in out:
                defines.append(f"#define {n}_ (@load{n.upper()}({n}, i))")
        local = runtime.local
        folds = "\n        ".join(folded(kind, name, term, runtime.is_cpu, local) for kind, name, term in self.folds)
        walk, each, once = "for (i64 i = HAL_INDEX; i < n; i += HAL_TOTAL)", "i64 k = 0", "1"
        step, shared = "k++", ""
        if not runtime.is_cpu:
            walk = "for (i64 i = HAL_GROUP(0); i < n; i += HAL_GROUPS(0))"
            each, step, once = "i64 k = HAL_ITEM(0)", f"k += {local}", "HAL_ITEM(0) == 0"
            shared = f"HAL_LOCAL @V shared[{local}];" if self.folds else ""
        stores = " ".join(f"@store{n.upper()}({n}, {place}, {text})" for n, text in self.element)
        stored = " ".join(f"@store{n.upper()}({n}, i, {text})" for n, text in self.value)
        newline = "\n"
        return f"""{newline.join(defines)}
HAL_KERNEL rows(const i64 n, const i64 length, const i64 inner,
    {pointers}{numbers}) {{
    {shared}
    {offsets}
    {walk} {{
        const i64 base = i / inner * length * inner + i % inner;
        {folds}
        {self.lines}
        {f"for ({each}; k < length; {step}) {{ {stores} }}" if stores else ""}
        {f"if ({once}) {{ {stored} }}" if stored else ""}
    }}
}}
"""


def wide_of(dtype: DType) -> DType:
    """The dtype that a composite of this one is computed in."""
    return dtypes.float64 if dtype is dtypes.float64 else dtypes.float32


def exp_of(x: str) -> str:
    """The exponential of an expression."""
    return f"hal_exp_@V({x})"


def _result(x: Buffer, out: Buffer | None, label: str) -> Buffer:
    if out is not None and out.contiguous and out.memory is not x.memory:
        return out
    return x.memory.runtime.empty(x.shape, x.dtype, label)


TOP = ("max", "top", "x_")
TOTAL = ("sum", "all", exp_of("x_ - top"))
SOFTMAX = Rows("softmax", ("x", "y"), folds=(TOP, TOTAL), element=(("y", exp_of("x_ - top") + " / all"),))
LOG_SOFTMAX = Rows(
    "log_softmax", ("x", "y"), folds=(TOP, TOTAL), lines="const @V logged = hal_log_@V(all);",
    element=(("y", "x_ - top - logged"),),
)  # fmt: skip
SOFTMAX_GRADIENT = Rows(
    "softmax_gradient", ("g", "x", "y"), folds=(("sum", "along", "g_ * x_"),), element=(("y", "x_ * (g_ - along)"),)
)
LOG_SOFTMAX_GRADIENT = Rows(
    "log_softmax_gradient", ("g", "x", "y"), folds=(("sum", "along", "g_"),),
    element=(("y", "g_ - " + exp_of("x_") + " * along"),),
)  # fmt: skip


def _one_input(op: Any, rows: Rows) -> None:
    @kernels.register(op, out=True)
    def kernel(x: Buffer, *, axis: int, out: Buffer | None = None) -> Buffer:
        result = _result(x, out, rows.label)
        rows(x.memory.runtime, x.shape, axis, wide_of(x.dtype), {"x": in_rows(x), "y": result})
        return into(result, out)


def _two_inputs(op: Any, rows: Rows) -> None:
    @kernels.register(op, out=True)
    def kernel(g: Buffer, x: Buffer, *, axis: int, out: Buffer | None = None) -> Buffer:
        result = _result(x, out if out is None or out.memory is not g.memory else None, rows.label)
        given = {"g": in_rows(g), "x": in_rows(x), "y": result}
        rows(x.memory.runtime, x.shape, axis, wide_of(x.dtype), given)
        return into(result, out)


_one_input(ops.softmax, SOFTMAX)
_one_input(ops.log_softmax, LOG_SOFTMAX)
_two_inputs(ops.softmax_gradient, SOFTMAX_GRADIENT)
_two_inputs(ops.log_softmax_gradient, LOG_SOFTMAX_GRADIENT)
