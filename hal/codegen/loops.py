"""Source of kernels that compute each element of their results from the elements at the same place of their inputs."""

from __future__ import annotations

from collections.abc import Sequence

from hal.codegen.chain import Chain
from hal.codegen.dialect import Dialect
from hal.codegen.expressions import loaded, memory_type, stored, value_type
from hal.codegen.functions import needed
from hal.codegen.target import Target
from hal.dtypes import DType

Steps = tuple[int | None, ...]  # innermost steps of the arrays that the source may rely on: 0, 1, or None for any
INDEX = "(i64)HAL_GROUP(0) * HAL_ITEMS(0) + HAL_ITEM(0)"
TOGETHER = 4  # elements that an item of a GPU has at a time
LARGEST = (1 << 31) - 1
ITEMS = "(i64)HAL_GROUPS(0) * HAL_ITEMS(0)"


def whole(dialect: Dialect, source: str) -> str:
    """A source with all that must stand before it: the dialect's words, and the functions that it calls."""
    text = needed(source) + "\n" + source
    return dialect.prelude(text) + text


def parameters(given: Sequence[DType], made: Sequence[DType], first: int = 0) -> str:
    """A pointer and an offset, in elements, for each array: `p0, o0, …` are read, `q0, r0, …` written."""
    parts = [f"HAL_GLOBAL const {memory_type(d)} *p{first + i}, const i64 o{first + i}" for i, d in enumerate(given)]
    parts += [f"HAL_GLOBAL {memory_type(d)} *q{first + i}, const i64 r{first + i}" for i, d in enumerate(made)]
    return ",\n    ".join(parts)


def elementwise(chain: Chain, rank: int, steps: Steps, target: Target) -> str:
    """The kernel `fused(layout, n, per, pointers and offsets…)` of a chain over `rank` axes.

    The layout is a struct of 64-bit integers: the sizes of the axes, and for each array, inputs first, its strides.
    `n` elements are computed, `per` of them by each item of a serial target.
    """
    count = len(chain.inputs) + len(chain.outputs)
    last = rank - 1
    moves = [f"p{i} += o{i};" for i in range(len(chain.inputs))]
    moves += [f"q{i} += r{i};" for i in range(len(chain.outputs))]
    bases = "i64 " + ", ".join(f"b{k} = 0" for k in range(count)) + ";"
    head = f"""typedef struct {{ i64 n[{rank}]; i64 s[{count}][{rank}]; }} layout;
HAL_KERNEL fused(const layout l, const i64 n, const i64 per,
    {parameters(chain.given, chain.made)}) {{
    {" ".join(moves)}
"""
    if not target.serial:
        if is_flat(rank, steps):
            return head + _together(chain, steps) + "}\n"
        places = [f"b{k}" for k in range(count)]
        kind = "i64" if prod_of(chain) > LARGEST else "u32"  # GPUs divide integers of 64 bits in software
        return f"""{head}    for (i64 i = {INDEX}; i < n; i += {ITEMS}) {{
        {bases}
        {kind} rest = ({kind})i;
        {decode(range(last, -1, -1), count, "rest", steps, kind)}
        {element(chain, places)}
    }}
}}
"""
    # The innermost axis is a loop of its own; what does not move along it is loaded before.
    still = frozenset(k for k in range(len(chain.inputs)) if steps[k] == 0)
    places = [
        f"b{k}" if s == 0 else f"b{k} + j" if s == 1 else f"b{k} + j * l.s[{k}][{last}]" for k, s in enumerate(steps)
    ]
    before = " ".join(
        f"const {value_type(chain.given[k])} x{k} = {loaded(f'p{k}', f'b{k}', chain.given[k])};" for k in sorted(still)
    )
    return f"""{head}    const i64 first = ({INDEX}) * per;
    const i64 stop = first + per < n ? first + per : n;
    i64 i = first;
    while (i < stop) {{
        i64 rest = i / l.n[{last}];
        const i64 begin = i - rest * l.n[{last}];
        const i64 end = begin + (stop - i) < l.n[{last}] ? begin + (stop - i) : l.n[{last}];
        i += end - begin;
        {bases}
        {decode(range(last - 1, -1, -1), count, "rest")}
        {before}
        HAL_INDEPENDENT
        for (i64 j = begin; j < end; j++) {{
            {element(chain, places, still)}
        }}
    }}
}}
"""


def is_flat(rank: int, steps: Steps) -> bool:
    """Whether elements lie side by side in every array that has more than one."""
    return rank == 1 and None not in steps


def items_of(target: Target, count: int, flat: bool) -> tuple[int, int]:
    """How many items compute so many elements, and how many each has in a row; see `Target.items`."""
    return target.items(count if target.serial or not flat else -(-count // TOGETHER))


def _together(chain: Chain, steps: Steps) -> str:
    """The loop of a GPU's item over flat arrays: several elements are loaded before the first of them is stored.

    A store may change what is still to be loaded, for all that a compiler knows; here it cannot, so more loads are on
    their way at a time. The elements are as far apart as a group is wide: neighbours take neighbouring ones.
    """
    given, made = len(chain.inputs), len(chain.outputs)
    loads, sums, stores = [], [], []
    for e in range(TOGETHER):
        at = [f"b + {e} * HAL_ITEMS(0)" if s else "0" for s in steps]
        for i, dtype in enumerate(chain.given):
            loads.append(f"const {value_type(dtype)} x{i}_{e} = {loaded(f'p{i}', f'({at[i]})', dtype)};")
        body, results = chain.body([f"x{i}_{e}" for i in range(given)])
        loads += [f"{value_type(dtype)} y{i}_{e};" for i, dtype in enumerate(chain.made)]
        sums.append("{ " + " ".join([*body, *(f"y{i}_{e} = {r};" for i, r in enumerate(results))]) + " }")
        stores += [stored(f"q{i}", f"({at[given + i]})", f"y{i}_{e}", dtype) for i, dtype in enumerate(chain.made)]
    newline = "\n            "
    return f"""    const i64 wide = (i64)HAL_ITEMS(0) * {TOGETHER};
    for (i64 b = HAL_GROUP(0) * wide + HAL_ITEM(0); b < n; b += HAL_GROUPS(0) * wide) {{
        if (b + {TOGETHER - 1} * HAL_ITEMS(0) < n) {{
            {newline.join(loads + sums + stores)}
        }} else {{
            for (i64 j = b; j < n; j += HAL_ITEMS(0)) {{
                {element(chain, ["j" if s else "0" for s in steps[: given + made]])}
            }}
        }}
    }}
"""


def element(chain: Chain, places: Sequence[str], before: frozenset[int] = frozenset(), first: int = 0) -> str:
    """The lines for one element of a chain.

    Args:
        places: the index of the element in each array, inputs first.
        before: inputs that have been loaded already.
        first: the number of the chain's first array, where a kernel has several chains.
    """
    inputs = range(len(chain.inputs))
    lines = [
        f"const {value_type(chain.given[i])} x{i} = {loaded(f'p{first + i}', f'({places[i]})', chain.given[i])};"
        for i in inputs
        if i not in before
    ]
    body, results = chain.body([f"x{i}" for i in inputs])
    lines += body
    lines += [
        stored(f"q{first + i}", f"({places[len(inputs) + i]})", result, dtype)
        for i, (dtype, result) in enumerate(zip(chain.made, results, strict=True))
    ]
    return "\n            ".join(lines)


def decode(axes: range, count: int, rest: str, steps: Steps | None = None, kind: str = "i64") -> str:
    """Lines that add to each array's base what the axes of an index give, from the innermost outwards.

    Args:
        kind: the type of `rest`.
    """
    lines = []
    for axis in axes:
        innermost = steps is not None and axis == axes.start
        moves = []
        for k in range(count):
            step = steps[k] if innermost and steps is not None else None
            moves.append("" if step == 0 else f"b{k} += at;" if step == 1 else f"b{k} += at * l.s[{k}][{axis}];")
        if axis:
            size = f"({kind})l.n[{axis}]"
            lines.append(f"{{ const {kind} at = {rest} % {size}; {rest} /= {size}; {' '.join(moves)} }}")
        else:
            lines.append(f"{{ const {kind} at = {rest}; {' '.join(moves)} }}")
    return "\n        ".join(lines)


def independent(chains: Sequence[Chain], target: Target) -> str:
    """One kernel `fused(n, per, n0, pointers…, n1, pointers…)` of chains that have nothing to do with each other.

    Optimizer steps of many parameters: chain c has nc elements, all of its arrays lie row by row, and items share the
    n elements of all as if they lay one after another.
    """
    arguments, loops, first = ["const i64 n", "const i64 per"], [], 0
    before = "0"
    for c, chain in enumerate(chains):
        arguments += [f"const i64 n{c}", parameters(chain.given, chain.made, first)]
        single = frozenset(i for i, v in enumerate(chain.inputs) if v.spec.size == 1 and prod_of(chain) != 1)
        places = [f"o{first + i}" + ("" if i in single else " + j") for i in range(len(chain.inputs))]
        places += [f"r{first + i} + j" for i in range(len(chain.outputs))]
        if target.serial:
            walk = f"""const i64 begin = lowest - ({before}) > 0 ? lowest - ({before}) : 0;
        const i64 end = highest - ({before}) < n{c} ? highest - ({before}) : n{c};
        HAL_INDEPENDENT
        for (i64 j = begin; j < end; j++) {{"""
        else:
            walk = f"for (i64 j = {INDEX}; j < n{c}; j += {ITEMS}) {{"
        loops.append(f"""    {{
        {walk}
            {element(chain, places, first=first)}
        }}
    }}
""")
        before += f" + n{c}"
        first += max(len(chain.inputs), len(chain.outputs))
    share = f"""    const i64 lowest = ({INDEX}) * per;
    const i64 highest = lowest + per < n ? lowest + per : n;
"""
    listed = ",\n    ".join(arguments)
    return f"HAL_KERNEL fused({listed}) {{\n{share if target.serial else ''}{''.join(loops)}}}\n"


def prod_of(chain: Chain) -> int:
    """How many elements a chain computes."""
    size = 1
    for n in chain.shape:
        size *= n
    return size
