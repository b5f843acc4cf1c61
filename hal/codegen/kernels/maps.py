"""Maps: kernels that compute each element of their results from the elements at the same place of their inputs.

The source is made for what it is called on: where all lie row by row it is one loop; else the axes that differ are
walked over, with inner loops that the compiler can vectorise where the innermost steps are 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hal.codegen.expressions import loaded, memory_type, stored, value_type
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.layout import Shape, collapsed, stretched
from hal.codegen.kernels.memory import Memory
from hal.plugin import DType, Spec, dtypes

if TYPE_CHECKING:
    from hal.codegen.kernels.runtime import Runtime

GRAIN = 8192  # elements that are worth a work item of their own on a CPU
PER_UNIT = 4  # work items for each compute unit of a CPU, so that a late one delays little
UNROLLED = "#pragma unroll 4\n"  # more loads of an item of a GPU are on their way at a time
Body = Callable[[list[str]], tuple[list[str], list[str]]]
SMALL = 2048  # elements up to which one kernel serves all strides: compiling another costs more than it saves
MOST_WALKS = 1024  # strides that a map remembers
LARGEST = (1 << 31) - 1
MOST_AXES = 4  # of that kernel; what has more has one of its own


def items_for(runtime: Runtime, count: int, grain: int = GRAIN) -> tuple[Shape, Shape, int]:
    """Work items, the size of their groups, and how many elements each takes (on a CPU, one after the other)."""
    if runtime.is_cpu:
        items = max(1, min(PER_UNIT * runtime.units, count // grain))
        return (items,), (1,), -(-count // items)
    local = runtime.local
    groups = max(1, min(-(-count // local), 64 * runtime.units))
    return (groups * local,), (local,), 1


class Map:
    """One map on given dtypes: `map(runtime, inputs, outputs)` enqueues it.

    Attributes:
        label: the op, for errors.
        inputs, outputs: dtypes.
        body: from the names of the loaded inputs to the lines that compute, and the names of the results.
    """

    def __init__(self, label: str, inputs: Sequence[DType], outputs: Sequence[DType], body: Body) -> None:
        self.label = label
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.body = body
        self._kernels: dict[Any, Any] = {}
        self._walks: dict[Any, Any] = {}

    def __call__(self, runtime: Runtime, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
        """Compute `outputs`, which have one shape, from inputs that broadcast to it."""
        shape = outputs[0].shape
        count = outputs[0].size
        if count == 0:
            return
        if count <= SMALL:
            return self._strided(runtime, inputs, outputs, count, True)
        modes = ""
        for x in inputs:
            if x.contiguous and x.shape == shape:
                modes += "v"
            elif x.size == 1:
                modes += "s"
            else:
                return self._strided(runtime, inputs, outputs, count, False)
        for x in outputs:
            if not x.contiguous:
                return self._strided(runtime, inputs, outputs, count, False)
        kernel = self._kernels.get((runtime, modes))
        if kernel is None:
            source = self._flat_source(modes, runtime.is_cpu)
            kernel = self._kernels[runtime, modes] = runtime.programs.kernel(source, "map", self.label)
        items, local, per = items_for(runtime, count)
        arguments: list[Any] = [np.int64(count), np.int64(per)]
        for x in (*inputs, *outputs):
            arguments += (x.memory, np.int64(x.offset))
        runtime.launch(self.label, kernel, items, local, *arguments, writes=[x.memory for x in outputs])

    def _strided(
        self, runtime: Runtime, inputs: Sequence[Buffer], outputs: Sequence[Buffer], count: int, small: bool
    ) -> None:
        key = (runtime, outputs[0].shape, *[(x.shape, x.strides) for x in inputs], *[x.strides for x in outputs])
        walk = self._walks.get(key)
        if walk is None:
            if len(self._walks) >= MOST_WALKS:
                self._walks.clear()
            walk = self._walks[key] = self._walk(runtime, inputs, outputs, count, small)
        kernel, layout, items, local, per = walk
        arguments: list[Any] = [layout, np.int64(count), per]
        for x in (*inputs, *outputs):
            arguments += (x.memory, np.int64(x.offset))
        runtime.launch(self.label, kernel, items, local, *arguments, writes=[x.memory for x in outputs])

    def _walk(
        self, runtime: Runtime, inputs: Sequence[Buffer], outputs: Sequence[Buffer], count: int, small: bool
    ) -> tuple[Any, Memory, Shape, Shape, np.int64]:
        """The kernel for these strides, and how it is told of them and launched."""
        shape = outputs[0].shape
        steps = [stretched(x.shape, x.strides, shape) for x in inputs] + [x.strides for x in outputs]
        sizes, strides = collapsed(shape, steps)
        if small:
            missing = max(0, MOST_AXES - len(sizes))
            sizes, strides = (1,) * missing + sizes, tuple((0,) * missing + s for s in strides)
        modes = ("s" if small or s[-1] not in (0, 1) else s[-1] for s in strides)
        kind = "i64" if count > LARGEST else "u32"  # GPUs divide integers of 64 bits in software
        source = self._strided_source(len(sizes), tuple(modes), runtime.is_cpu, kind)
        items, local, per = items_for(runtime, count)
        kernel = runtime.programs.kernel(source, "map", self.label)
        numbers = np.array([sizes, *strides], np.int64)
        layout = runtime.upload(numbers, Spec(numbers.shape, dtypes.int64))  # cheaper than to pass it with each call
        return kernel, layout.memory, items, local, np.int64(per)

    # Sources.

    def _parameters(self) -> str:
        parts = []
        for i, dtype in enumerate(self.inputs):
            parts.append(f"HAL_GLOBAL const {memory_type(dtype)} *restrict p{i}, const i64 o{i}")
        for i, dtype in enumerate(self.outputs):
            parts.append(f"HAL_GLOBAL {memory_type(dtype)} *restrict q{i}, const i64 r{i}")
        return ",\n    ".join(parts)

    def _offsets(self) -> str:
        moves = [f"p{i} += o{i};" for i in range(len(self.inputs))] + [
            f"q{i} += r{i};" for i in range(len(self.outputs))
        ]
        return " ".join(moves)

    def _element(self, places: list[str], hoisted: frozenset[int] = frozenset()) -> str:
        """The lines for one element, whose inputs and outputs are at these places."""
        lines = []
        for i, dtype in enumerate(self.inputs):
            if i not in hoisted:
                lines.append(f"const {value_type(dtype)} x{i} = {loaded(f'p{i}', places[i], dtype)};")
        body, results = self.body([f"x{i}" for i in range(len(self.inputs))])
        lines += body
        for i, (dtype, result) in enumerate(zip(self.outputs, results, strict=True)):
            lines.append(stored(f"q{i}", places[len(self.inputs) + i], result, dtype))
        return "\n        ".join(lines)

    def _flat_source(self, modes: str, is_cpu: bool) -> str:
        single = frozenset(i for i, mode in enumerate(modes) if mode == "s")
        hoisted = " ".join(
            f"const {value_type(self.inputs[i])} x{i} = {loaded(f'p{i}', '0', self.inputs[i])};" for i in sorted(single)
        )
        element = self._element(["i"] * (len(self.inputs) + len(self.outputs)), single)
        return f"""HAL_KERNEL map(const i64 n, const i64 per,
    {self._parameters()}) {{
    {self._offsets()}
    {hoisted}
{"" if is_cpu else UNROLLED}    {loop(is_cpu)} {{
        {element}
    }}
}}
"""

    def _strided_source(self, rank: int, modes: tuple[Any, ...], is_cpu: bool, kind: str) -> str:
        count = len(self.inputs) + len(self.outputs)
        last = rank - 1
        struct = f"typedef struct {{ i64 n[{rank}]; i64 s[{count}][{rank}]; }} layout;\n"
        head = f"""{struct}HAL_KERNEL map(HAL_GLOBAL const layout *restrict walk, const i64 n, const i64 per,
    {self._parameters()}) {{
    {self._offsets()}
    const layout l = *walk;
"""
        if is_cpu:
            inner = ["0" if m == 0 else "j" if m == 1 else f"j * l.s[{k}][{last}]" for k, m in enumerate(modes)]
            places = [f"(b{k} + {place})" for k, place in enumerate(inner)]
            bases = "i64 " + ", ".join(f"b{k} = 0" for k in range(count)) + ";"
            decode = _decode(range(last - 1, -1, -1), count, "row", "b")
            return f"""{head}
    const i64 first = HAL_INDEX * per;
    const i64 last = first + per < n ? first + per : n;
    i64 i = first;
    while (i < last) {{
        i64 row = i / l.n[{last}];
        const i64 from = i - row * l.n[{last}];
        const i64 to = from + (last - i) < l.n[{last}] ? from + (last - i) : l.n[{last}];
        i += to - from;
        {bases}
        {decode}
        for (i64 j = from; j < to; j++) {{
        {self._element(places)}
        }}
    }}
}}
"""
        places = [f"b{k}" for k in range(count)]
        bases = f"{kind} rest = ({kind})i; i64 " + ", ".join(f"b{k} = 0" for k in range(count)) + ";"
        return f"""{head}
    {loop(is_cpu)} {{
        {bases}
        {_decode(range(last, -1, -1), count, "rest", "b", kind)}
        {self._element(places)}
    }}
}}
"""


def loop(is_cpu: bool) -> str:
    """The loop of a work item over elements: a range on a CPU, every so many on a GPU."""
    if is_cpu:
        return (
            "const i64 first = HAL_INDEX * per;\n"
            "    const i64 last = first + per < n ? first + per : n;\n"
            "    for (i64 i = first; i < last; i++)"
        )
    return "for (i64 i = HAL_INDEX; i < n; i += HAL_TOTAL)"


def _decode(axes: range, count: int, rest: str, base: str, kind: str = "i64") -> str:
    """Lines that add to each array's place what the axes of an index give, which is of type `kind`."""
    lines = []
    for axis in axes:
        if axis:
            size = f"({kind})l.n[{axis}]"
            lines.append(f"{{ const {kind} at = {rest} % {size}; {rest} /= {size};")
        else:
            lines.append(f"{{ const {kind} at = {rest};")
        lines.append(" ".join(f"{base}{k} += at * l.s[{k}][{axis}];" for k in range(count)) + " }")
    return "\n        ".join(lines)
