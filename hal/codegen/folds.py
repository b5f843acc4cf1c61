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
        step: takes the element `{x}`, which is number `{i}` of those that are reduced, into the state. Where several
            arrays are reduced together, the elements of the others are `{x1}`, `{x2}`, …
        merge: takes the other state into this one.
        results: the values of the results, of which `{n}` elements were reduced.
    """

    state: tuple[tuple[str, str], ...]
    step: str
    merge: str
    results: tuple[str, ...] = ("{a0}",)


def _simple(kind: str, first: str, update: str, result: str = "{a0}") -> Fold:
    """A fold whose state is one number: `update` is in `{a}` and `{x}`."""
    return Fold(
        ((kind, first),),
        "{a0} = " + update.format(a="{a0}", x="{x}") + ";",
        "{a0} = " + update.format(a="{a0}", x="{b0}") + ";",
        (result,),
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
    return Fold(((kind, first), ("i64", "-1")), step, merge + "{ {a0} = {b0}; {a1} = {b1}; }", ("{a1}",))


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


def sums(count: int, dtype: DType) -> Fold:
    """The sums of several arrays in one pass; results: the sums, and then the means."""
    kind, each = value_type(dtype), range(count)
    return Fold(
        tuple((kind, "0") for _ in each),
        " ".join(f"{{a{k}}} += {{x{k or ''}}};" for k in each),
        " ".join(f"{{a{k}}} += {{b{k}}};" for k in each),
        (*(f"{{a{k}}}" for k in each), *(f"{{a{k}}} / ({kind}){{n}}" for k in each)),
    )


# Of n elements x: n, the first of them (k), mean and sum of squared differences of x - k, and the sum of x. Elements
# are taken in as by Welford, "Note on a Method for Calculating Corrected Sums of Squares and Products" (1962), lanes,
# blocks and parts become one as in Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing
# Sample Variances" (1979). With k, numbers far from zero lose nothing; should k be far from the others, the variance
# is so large that what they lose does not count. The mean that is told is the sum divided by n: where it is small
# beside the elements, the other has been rounded too often.
_MOMENTS_STEP = """{ {a1} = {a0} == 0 ? {x} : {a1}; {a0} += 1;
    const @T share_ = 1 / {a0}, moved_ = {x} - {a1}, away_ = moved_ - {a2};
    {a2} += away_ * share_; {a3} += away_ * (moved_ - {a2}); {a4} += {x}; }"""
_MOMENTS_MERGE = """{ {a1} = {a0} == 0 ? {b1} : {a1};
    const @T all_ = {a0} + {b0}, share_ = all_ > 0 ? {b0} / all_ : 0;
    const @T apart_ = {b0} > 0 ? ({b1} - {a1}) + ({b2} - {a2}) : 0;
    {a3} += {b3} + apart_ * apart_ * ({a0} * share_);
    {a2} += apart_ * share_; {a0} = all_; {a4} += {b4}; }"""


def moments(dtype: DType) -> Fold:
    """Mean and variance in one pass; both are 0 where there is nothing."""
    kind = value_type(dtype)
    results = ("({n} > 0 ? {a4} / (@T){n} : 0)", "{a3} / ({n} > 0 ? (@T){n} : 1)")
    step, merge, *made = (text.replace("@T", kind) for text in (_MOMENTS_STEP, _MOMENTS_MERGE, *results))
    return Fold(((kind, "0"),) * 5, step, merge, tuple(made))


def spread(dtype: DType, correction: float) -> Fold:
    """The sum divided by `correction` less than the number of elements, and never by less than zero."""
    kind = value_type(dtype)
    less = f"({kind})({{n}} - {literal(correction, dtypes.float64 if kind == 'f64' else dtypes.float32)})"
    return _simple(kind, "0", "{a} + {x}", f"{{a0}} / ({less} > 0 ? {less} : 0)")
