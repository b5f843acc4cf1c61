"""Folds: what a reduction keeps while it goes over elements, how two such states become one, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from hal import dtypes
from hal.codegen.expressions import literal, value_type
from hal.dtypes import DType
from hal.op import Op


@dataclass(frozen=True)
class Fold:
    """A reduction in C. In the texts, `{a0}`, `{a1}` are the state, `{b0}`, `{b1}` another that comes after it.

    Attributes:
        state: the type and first value of each variable.
        step: takes the element `{x}`, which is number `{i}` of those that are reduced, into the state.
        merge: takes the other state into this one.
        result: the value of the result, of which `{n}` elements were reduced.
    """

    state: tuple[tuple[str, str], ...]
    step: str
    merge: str
    result: str = "{a0}"


def _simple(kind: str, first: str, update: str, result: str = "{a0}") -> Fold:
    """A fold whose state is one number: `update` is in `{a}` and `{x}`."""
    return Fold(
        ((kind, first),),
        "{a0} = " + update.format(a="{a0}", x="{x}") + ";",
        "{a0} = " + update.format(a="{a0}", x="{b0}") + ";",
        result,
    )


def _extreme(name: str, dtype: DType, largest: bool) -> Fold:
    kind = value_type(dtype)
    if dtype.is_floating:
        first = literal(float("-inf") if largest else float("inf"), dtype)
    elif dtype is dtypes.bool_:
        first = "0" if largest else "1"
    else:
        bits = 8 * dtype.itemsize
        low, high = (0, (1 << bits) - 1) if dtype.kind == "uint" else (-(1 << bits - 1), (1 << bits - 1) - 1)
        first = literal(low if largest else high, dtype)
    sign = ">" if largest else "<"
    if not name.startswith("arg"):
        return _simple(kind, first, f"{{x}} {sign} {{a}} || {{x}} != {{x}} ? {{x}} : {{a}}")
    better = f"{{n0}} {sign} {{a0}} || ({{n0}} != {{n0}} && {{a0}} == {{a0}})"
    step = (
        "if ({a1} < 0 || "
        + better.replace("{n0}", "{x}")
        + ") {{ {a0} = {x}; {a1} = {i}; }}".replace("{{", "{ ").replace("}}", " }")
    )
    same = "({b0} == {a0} || ({b0} != {b0} && {a0} != {a0})) && {b1} < {a1}"
    merge = "if ({b1} >= 0 && ({a1} < 0 || " + better.replace("{n0}", "{b0}") + " || (" + same + "))) "
    return Fold(((kind, first), ("i64", "-1")), step, merge + "{ {a0} = {b0}; {a1} = {b1}; }", "{a1}")


def fold_of(op: Op, dtype: DType, out: DType) -> Fold | None:
    """How an op of the table reduces elements of a dtype; None if it is no fold."""
    kind = value_type(out)
    wrapping = {"i64": "u64", "i32": "u32"}.get(kind, kind)
    match op.name:
        case "sum":
            if dtype is dtypes.bool_ and out is dtypes.bool_:
                return _simple("i32", "0", "{a} | {x}")
            return _simple(wrapping, "0", f"{{a}} + ({wrapping}){{x}}", f"({kind}){{a0}}")
        case "prod":
            return _simple(wrapping, "1", f"{{a}} * ({wrapping}){{x}}", f"({kind}){{a0}}")
        case "mean":
            return _simple(kind, "0", "{a} + {x}", f"{{a0}} / ({kind}){{n}}")
        case "any":
            return _simple("i32", "0", "{a} | ({x} != 0)")
        case "all":
            return _simple("i32", "1", "{a} & ({x} != 0)")
        case "count_nonzero":
            return Fold((("i64", "0"),), "{a0} += {x} != 0;", "{a0} += {b0};")
        case "max" | "argmax":
            return _extreme(op.name, dtype, True)
        case "min" | "argmin":
            return _extreme(op.name, dtype, False)
    return None
