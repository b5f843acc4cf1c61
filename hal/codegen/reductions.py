"""Source of kernels that reduce what an elementwise chain makes of each place, and go on with the result.

Sums are made in lanes, blocks and parts, never in one long row, so that they stay accurate; in which order depends on
shapes and the device alone, so that a result is the same every time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hal.codegen.chain import Chain
from hal.codegen.expressions import loaded, memory_type, stored, value_type
from hal.codegen.folds import Fold
from hal.codegen.loops import INDEX, ITEMS, LARGEST, prod_of
from hal.codegen.target import Target

BLOCK = 4096  # elements after which the lanes become one
WIDTH = 64  # neighbouring results that an item of a serial target reduces together, where those lie side by side


@dataclass(frozen=True)
class Walk:
    """How a kernel goes over its arrays.

    Attributes:
        outer, inner: how many axes are kept and reduced, after merging.
        columns: whether results lie side by side and what is reduced does not: then items take neighbouring results.
        steps: of each input of the first chain along the axis that is walked innermost: 0, 1, or None for any.
        parted: whether several items share a result, and leave their states for the kernel `merge`.
    """

    outer: int
    inner: int
    columns: bool
    steps: tuple[int | None, ...]
    parted: bool


class Reduction:
    """A chain, a fold of its results over some axes, and a chain on what comes out.

    Attributes:
        before: its outputs are reduced.
        fold: how.
        after: its first inputs are what the fold gives; others lie as the results do.
    """

    def __init__(self, before: Chain, fold: Fold, after: Chain, target: Target) -> None:
        self.before = before
        self.fold = fold
        self.after = after
        self.target = target
        self.narrow = not target.serial and prod_of(before) <= LARGEST  # GPUs divide integers of 64 bits in software
        self.count = len(before.inputs)
        self.folded = len(fold.results)

    # Pieces.

    def _declared(self, prefix: str, size: str = "") -> str:
        if size:
            return " ".join(f"{kind} {prefix}{k}[{size}];" for k, (kind, _) in enumerate(self.fold.state))
        return " ".join(f"{kind} {prefix}{k} = {first};" for k, (kind, first) in enumerate(self.fold.state))

    def _reset(self, prefix: str, size: str) -> str:
        sets = " ".join(f"{prefix}{k}[w] = {first};" for k, (_, first) in enumerate(self.fold.state))
        return f"for (int w = 0; w < {size}; w++) {{ {sets} }}"

    def _names(self, letter: str, prefix: str, index: str = "") -> dict[str, str]:
        return {f"{letter}{k}": f"{prefix}{k}{index}" for k in range(len(self.fold.state))}

    def _merged(self, into: str, other: str, into_index: str = "", other_index: str = "") -> str:
        return _filled(self.fold.merge, **self._names("a", into, into_index), **self._names("b", other, other_index))

    def _step(
        self, prefix: str, places: list[str], number: str, index: str = "", still: frozenset[int] = frozenset()
    ) -> str:
        """Take one element into a state."""
        lines = [
            f"const {value_type(d)} x{i} = {loaded(f'p{i}', f'({places[i]})', d)};"
            for i, d in enumerate(self.before.given)
            if i not in still
        ]
        body, results = self.before.body([f"x{i}" for i in range(self.count)])
        names = {"x" if k == 0 else f"x{k}": f"x_{k}" for k in range(len(results))}
        lines += body
        for name, dtype, result in zip(names.values(), self.before.made, results, strict=True):
            lines.append(f"const {value_type(dtype)} {name} = {result};")
        step = _filled(self.fold.step, i=number, **names, **self._names("a", prefix, index))
        return f"{{ {' '.join(lines)} {step} }}"

    def _finish(self, prefix: str, place: str, walk: Walk, index: str = "", unit: str = "") -> str:
        """Store a state for the kernel `merge`, or what the second chain makes of the result."""
        if walk.parted:
            return " ".join(f"t{k}[{unit}] = {prefix}{k}{index};" for k in range(len(self.fold.state)))
        names = self._names("a", prefix, index)
        lines = []
        for i, d in enumerate(self.after.given):
            value = _filled(self.fold.results[i], n="m", **names) if i < self.folded else loaded(f"e{i}", place, d)
            lines.append(f"const {value_type(d)} x{i} = {value};")
        body, results = self.after.body([f"x{i}" for i in range(len(self.after.inputs))], "y")
        made = zip(self.after.made, results, strict=True)
        stores = [stored(f"q{i}", place, result, d) for i, (d, result) in enumerate(made)]
        return f"{{ {' '.join([*lines, *body, *stores])} }}"

    def _after_parameters(self) -> str:
        parts = [
            f"HAL_GLOBAL const {memory_type(d)} *e{i}, const i64 f{i}"
            for i, d in enumerate(self.after.given)
            if i >= self.folded
        ]
        parts += [f"HAL_GLOBAL {memory_type(d)} *q{i}, const i64 r{i}" for i, d in enumerate(self.after.made)]
        return ",\n    ".join(parts)

    def _after_moves(self) -> str:
        moves = [f"e{i} += f{i};" for i in range(self.folded, len(self.after.given))]
        return " ".join([*moves, *(f"q{i} += r{i};" for i in range(len(self.after.made)))])

    # Kernels.

    def source(self, walk: Walk) -> str:
        """The kernel `reduce(layout, n, parts, m, pointers…)`.

        n units of work: results, times `parts` of what is reduced (m elements for each result). The layout has the
        sizes of the kept and the reduced axes, and the strides of each input along both. With `walk.parted` the last
        pointers are to states, [part][result]; else to the inputs and outputs of the second chain, which lie in rows.
        """
        arrays = [f"HAL_GLOBAL const {memory_type(d)} *p{i}, const i64 o{i}" for i, d in enumerate(self.before.given)]
        if walk.parted:
            arrays += [f"HAL_GLOBAL {kind} *t{k}" for k, (kind, _) in enumerate(self.fold.state)]
        else:
            arrays += [self._after_parameters()]
        listed = ",\n    ".join(arrays)
        moves = " ".join(f"p{i} += o{i};" for i in range(self.count))
        head = f"""typedef struct {{ i64 kept[{walk.outer}]; i64 over[{walk.inner}];
    i64 s[{self.count}][{walk.outer}]; i64 t[{self.count}][{walk.inner}]; }} layout;
HAL_KERNEL reduce(const layout l, const i64 results, const i64 parts, const i64 m,
    {listed}) {{
    {moves} {"" if walk.parted else self._after_moves()}
    const i64 share = (m + parts - 1) / parts;
"""
        if walk.columns:
            return head + (self._columns(walk) if self.target.serial else self._items(walk)) + "}\n"
        return head + (self._rows(walk) if self.target.serial else self._groups(walk)) + "}\n"

    def _bases(self, prefix: str = "b") -> str:
        return "i64 " + ", ".join(f"{prefix}{k} = 0" for k in range(self.count)) + ";"

    def _decode(self, axes: range, rest: str, sizes: str, steps: str, base: str = "b") -> str:
        lines = []
        for axis in axes:
            moves = " ".join(f"{base}{k} += at * l.{steps}[{k}][{axis}];" for k in range(self.count))
            if axis:
                kind = "u32" if self.narrow else "i64"
                size = f"({kind})l.{sizes}[{axis}]"
                lines.append(
                    f"{{ const {kind} whole = ({kind}){rest} / {size}; const i64 at = ({kind}){rest} - whole * {size}; "
                    f"{rest} = whole; {moves} }}"
                )
            else:
                lines.append(f"{{ const i64 at = {rest}; {moves} }}")
        return " ".join(lines)

    def _place(self, k: int, walk: Walk, index: str, base: str) -> str:
        step = walk.steps[k]
        axis = f"l.s[{k}][{walk.outer - 1}]" if walk.columns else f"l.t[{k}][{walk.inner - 1}]"
        return f"{base}{k}" if step == 0 else f"{base}{k} + {index}" if step == 1 else f"{base}{k} + ({index}) * {axis}"

    def _rows(self, walk: Walk) -> str:
        lanes, last = self.target.lanes, walk.inner - 1
        still = frozenset(k for k in range(self.count) if walk.steps[k] == 0)
        before = " ".join(
            f"const {value_type(self.before.given[k])} x{k} = {loaded(f'p{k}', f'c{k}', self.before.given[k])};"
            for k in sorted(still)
        )
        many = [self._place(k, walk, "j + w", "c") for k in range(self.count)]
        one = [self._place(k, walk, "j", "c") for k in range(self.count)]
        number = f"(row * l.over[{last}] + j)"
        copies = " ".join(f"c{k} = b{k}" + ("," if k < self.count - 1 else ";") for k in range(self.count))
        halves = ""
        for half in (lanes >> n for n in range(1, lanes.bit_length())):  # so that lanes are merged as vectors, too
            halves += f"for (int w = 0; w < {half}; w++) {{ {self._merged('a', 'a', '[w]', f'[w + {half}]')} }} "
        return f"""    for (i64 u = {INDEX}; u < results * parts; u += {ITEMS}) {{
        const i64 result = u / parts, part = u - result * parts;
        i64 kept = result;
        {self._bases()}
        {self._decode(range(walk.outer - 1, -1, -1), "kept", "kept", "s")}
        {self._declared("z")}
        {self._declared("a", str(lanes))}
        {self._reset("a", str(lanes))}
        i64 i = part * share, held = 0;
        const i64 stop = i + share < m ? i + share : m;
        while (i < stop) {{
            const i64 row = i / l.over[{last}];
            i64 j = i - row * l.over[{last}];
            i64 end = l.over[{last}] - j < stop - i ? l.over[{last}] : j + stop - i;
            if (end - j > {BLOCK}) end = j + {BLOCK};
            i += end - j;
            held += end - j;
            i64 rest = row, {copies}
            {self._decode(range(last - 1, -1, -1), "rest", "over", "t", "c")}
            {before}
            for (; j + {lanes} <= end; j += {lanes})
                HAL_INDEPENDENT
                for (int w = 0; w < {lanes}; w++) {self._step("a", many, f"({number} + w)", "[w]", still)}
            for (; j < end; j++) {self._step("a", one, number, "[0]", still)}
            if (held >= {BLOCK} || i >= stop) {{
                {halves}
                {self._merged("z", "a", "", "[0]")}
                {self._reset("a", str(lanes))}
                held = 0;
            }}
        }}
        {self._finish("z", "result", walk, unit="part * results + result")}
    }}
"""

    def _columns(self, walk: Walk) -> str:
        last = walk.outer - 1
        places = [self._place(k, walk, "w", "c") for k in range(self.count)]
        copies = " ".join(f"c{k} = b{k}" + ("," if k < self.count - 1 else ";") for k in range(self.count))
        begin = " ".join(f"b{k} += column * l.s[{k}][{last}];" for k in range(self.count))
        step = self._step("a", places, "i", "[w]")
        put = self._finish("z", "first + w", walk, "[w]", "part * results + first + w")
        return f"""    const i64 blocks = (l.kept[{last}] + {WIDTH - 1}) / {WIDTH};
    const i64 units = results / l.kept[{last}] * blocks * parts;
    for (i64 u = {INDEX}; u < units; u += {ITEMS}) {{
        const i64 unit = u / parts, part = u - unit * parts;
        const i64 row = unit / blocks, column = (unit - row * blocks) * {WIDTH};
        const int wide = l.kept[{last}] - column < {WIDTH} ? (int)(l.kept[{last}] - column) : {WIDTH};
        i64 kept = row;
        {self._bases()}
        {self._decode(range(last - 1, -1, -1), "kept", "kept", "s")}
        {begin}
        {self._declared("z", str(WIDTH))}
        {self._declared("a", str(WIDTH))}
        {self._reset("z", str(WIDTH))}
        i64 i = part * share;
        const i64 stop = i + share < m ? i + share : m;
        while (i < stop) {{
            const i64 end = i + {BLOCK // 16} < stop ? i + {BLOCK // 16} : stop;
            {self._reset("a", str(WIDTH))}
            for (; i < end; i++) {{
                i64 rest = i, {copies}
                {self._decode(range(walk.inner - 1, -1, -1), "rest", "over", "t", "c")}
                if (wide == {WIDTH})
                    HAL_INDEPENDENT
                    for (int w = 0; w < {WIDTH}; w++) {step}
                else
                    HAL_INDEPENDENT
                    for (int w = 0; w < wide; w++) {step}
            }}
            for (int w = 0; w < {WIDTH}; w++) {{ {self._merged("z", "a", "[w]", "[w]")} }}
        }}
        const i64 first = row * l.kept[{last}] + column;
        for (int w = 0; w < wide; w++) {{ {put} }}
    }}
"""

    def _items(self, walk: Walk) -> str:
        """Each item of a GPU reduces one result: neighbours read neighbouring elements."""
        places = [f"c{k}" for k in range(self.count)]
        copies = " ".join(f"c{k} = b{k}" + ("," if k < self.count - 1 else ";") for k in range(self.count))
        return f"""    for (i64 u = {INDEX}; u < results * parts; u += {ITEMS}) {{
        const i64 part = u / results, result = u - part * results;
        i64 kept = result;
        {self._bases()}
        {self._decode(range(walk.outer - 1, -1, -1), "kept", "kept", "s")}
        {self._declared("a")}
        const i64 stop = (part + 1) * share < m ? (part + 1) * share : m;
        for (i64 i = part * share; i < stop; i++) {{
            i64 rest = i, {copies}
            {self._decode(range(walk.inner - 1, -1, -1), "rest", "over", "t", "c")}
            {self._step("a", places, "i")}
        }}
        {self._finish("a", "result", walk, unit="u")}
    }}
"""

    def _groups(self, walk: Walk) -> str:
        """Each group of a GPU reduces one result."""
        group = self.target.group
        shared = " ".join(f"HAL_LOCAL {kind} h{k}[{group}];" for k, (kind, _) in enumerate(self.fold.state))
        put = " ".join(f"h{k}[item] = a{k};" for k in range(len(self.fold.state)))
        places = [f"c{k}" for k in range(self.count)]
        copies = " ".join(f"c{k} = b{k}" + ("," if k < self.count - 1 else ";") for k in range(self.count))
        return f"""    {shared}
    const int item = HAL_ITEM(0);
    for (i64 u = HAL_GROUP(0); u < results * parts; u += HAL_GROUPS(0)) {{
        const i64 result = u / parts, part = u - result * parts;
        i64 kept = result;
        {self._bases()}
        {self._decode(range(walk.outer - 1, -1, -1), "kept", "kept", "s")}
        {self._declared("a")}
        const i64 stop = (part + 1) * share < m ? (part + 1) * share : m;
        for (i64 i = part * share + item; i < stop; i += {group}) {{
            i64 rest = i, {copies}
            {self._decode(range(walk.inner - 1, -1, -1), "rest", "over", "t", "c")}
            {self._step("a", places, "i")}
        }}
        {put}
        HAL_BARRIER;
        for (int step = {group} / 2; step > 0; step /= 2) {{
            if (item < step) {{ {self._merged("h", "h", "[item]", "[item + step]")} }}
            HAL_BARRIER;
        }}
        if (item == 0) {{ {self._finish("h", "result", walk, "[0]", "part * results + result")} }}
        HAL_BARRIER;
    }}
"""

    def merge_source(self) -> str:
        """The kernel `merge(results, parts, m, states…, pointers of the second chain…)`: parts together, in order."""
        states = ",\n    ".join(f"HAL_GLOBAL const {kind} *t{k}" for k, (kind, _) in enumerate(self.fold.state))
        whole = Walk(1, 1, False, (), False)
        return f"""HAL_KERNEL merge(const i64 results, const i64 parts, const i64 m,
    {states},
    {self._after_parameters()}) {{
    {self._after_moves()}
    for (i64 u = {INDEX}; u < results; u += {ITEMS}) {{
        {self._declared("z")}
        for (i64 part = 0; part < parts; part++) {{ {self._merged("z", "t", "", "[part * results + u]")} }}
        {self._finish("z", "u", whole)}
    }}
}}
"""


def _filled(text: str, **names: str) -> str:
    """`text` with `{name}` replaced; other braces stay."""
    return re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], found[0]), text)
