"""What elementwise ops are in C: expressions of the simple ones by kind of dtype, decompositions of the rest.

Eager kernels, fused groups and every C-like dialect are made of these. The words are those of `hal.codegen.dialect`;
functions with an `hal_` prefix are in `hal.codegen.functions`; others (`sin`, `fmod`, …) are built into OpenCL C and
CUDA C++ under the same names, for float and double.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hal import dtypes, ops
from hal.codegen.trace import trace
from hal.dtypes import DType
from hal.op import Op
from hal.spec import Spec


def memory_type(dtype: DType) -> str:
    """The name of a dtype where it lies in memory: `f32`, `i64`, `b8`, `bf16`, …"""
    return "bf16" if dtype is dtypes.bfloat16 else f"{dtype.kind[0]}{8 * dtype.itemsize}"


def value_type(dtype: DType) -> str:
    """The name of the type that a dtype is computed in: `f32` for the halves, an `i32` that is 0 or 1 for bool."""
    if dtype is dtypes.bool_:
        return "i32"
    return "f32" if dtype.is_floating and dtype.itemsize < 4 else memory_type(dtype)


def loaded(pointer: str, index: str, dtype: DType) -> str:
    """The value of an element in memory."""
    name = memory_type(dtype)
    return f"hal_load_{name}({pointer} + {index})" if name in _CONVERTED else f"{pointer}[{index}]"


def stored(pointer: str, index: str, value: str, dtype: DType) -> str:
    """The statement that puts a value into memory."""
    name = memory_type(dtype)
    if name in _CONVERTED:
        return f"hal_store_{name}({pointer} + {index}, {value});"
    return f"{pointer}[{index}] = {value};"


def literal(value: bool | int | float, dtype: DType) -> str:
    """A number as a constant of a dtype's value type."""
    if dtype.is_floating:
        number = float(value)
        name = value_type(dtype)
        if math.isnan(number):
            return f"({name})NAN"
        if math.isinf(number):
            return f"({name})({'-' if number < 0 else ''}INFINITY)"
        if name == "f32" and abs(number) > 3.4028235677973366e38:
            return f"({name})({'-' if number < 0 else ''}INFINITY)"
        return f"({number!r}{'f' if name == 'f32' else ''})"
    whole = int(value)
    if dtype is dtypes.bool_:
        return "1" if value else "0"
    bits = 8 * dtype.itemsize
    whole &= (1 << bits) - 1
    if dtype.kind == "uint":
        return f"(({value_type(dtype)}){whole}u{'l' if bits == 64 else ''})"
    if whole >= 1 << (bits - 1):
        whole -= 1 << bits
    if whole == -(1 << (bits - 1)):
        return f"(({value_type(dtype)})({whole + 1}{'l' if bits == 64 else ''} - 1))"
    return f"(({value_type(dtype)}){whole}{'l' if bits == 64 else ''})"


# {a}, {b}, {c} are the operands, {t} is the value type of the result and {u} the unsigned type that arithmetic wraps
# around in without being undefined, {s} is the value type of the operands.
# fmt: off
_COMPARISONS = {
    "less": "{a} < {b}", "less_equal": "{a} <= {b}", "greater": "{a} > {b}", "greater_equal": "{a} >= {b}",
    "equal": "{a} == {b}", "not_equal": "{a} != {b}",
    "logical_and": "({a} != 0) && ({b} != 0)", "logical_or": "({a} != 0) || ({b} != 0)",
    "logical_xor": "({a} != 0) != ({b} != 0)", "logical_not": "{a} == 0",
    "where": "{a} ? {b} : {c}", "conj": "{a}", "real": "{a}", "imag": "0",
}
FLOAT = _COMPARISONS | {
    "add": "{a} + {b}", "sub": "{a} - {b}", "mul": "{a} * {b}", "div": "{a} / {b}", "neg": "-{a}",
    "floor_divide": "hal_floor_divide_{t}({a}, {b})", "remainder": "hal_remainder_{t}({a}, {b})",
    "fmod": "fmod({a}, {b})", "abs": "fabs({a})", "sign": "{a} > 0 ? 1 : {a} < 0 ? -1 : {a} + 0",
    "square": "{a} * {a}", "reciprocal": "1 / {a}",
    "sqrt": "sqrt({a})", "rsqrt": "1 / sqrt({a})", "pow": "hal_pow_{t}({a}, {b})", "hypot": "hypot({a}, {b})",
    "exp": "hal_exp_{t}({a})", "log": "hal_log_{t}({a})", "exp2": "exp2({a})", "expm1": "hal_expm1_{t}({a})",
    "log2": "log2({a})", "log10": "log10({a})", "log1p": "hal_log1p_{t}({a})",
    "sin": "sin({a})", "cos": "cos({a})", "tan": "tan({a})",
    "asin": "asin({a})", "acos": "acos({a})", "atan": "atan({a})", "atan2": "atan2({a}, {b})",
    "sinh": "sinh({a})", "cosh": "cosh({a})", "tanh": "hal_tanh_{t}({a})",
    "asinh": "asinh({a})", "acosh": "acosh({a})", "atanh": "atanh({a})",
    "erf": "hal_erf_{t}({a})", "sigmoid": "1 / (1 + hal_exp_{t}(-{a}))", "silu": "{a} / (1 + hal_exp_{t}(-{a}))",
    "floor": "floor({a})", "ceil": "ceil({a})", "trunc": "trunc({a})", "round": "rint({a})",
    "isnan": "{a} != {a}", "isinf": "fabs({a}) == INFINITY", "isfinite": "fabs({a}) < INFINITY",
    "signbit": "hal_signbit_{s}({a})", "copysign": "copysign({a}, {b})", "nextafter": "nextafter({a}, {b})",
    "maximum": "{a} > {b} || {a} != {a} ? {a} : {b}", "minimum": "{a} < {b} || {a} != {a} ? {a} : {b}",
    "relu": "{a} < 0 ? 0 : {a}",
}
_WHOLE = _COMPARISONS | {
    "floor": "{a}", "ceil": "{a}", "trunc": "{a}", "round": "{a}", "isnan": "0", "isinf": "0", "isfinite": "1",
    "maximum": "{a} > {b} ? {a} : {b}", "minimum": "{a} < {b} ? {a} : {b}",
    "bitwise_and": "{a} & {b}", "bitwise_or": "{a} | {b}", "bitwise_xor": "{a} ^ {b}",
    "relu": "{a} < 0 ? 0 : {a}",
}
INTEGER = _WHOLE | {
    "add": "({u}){a} + ({u}){b}", "sub": "({u}){a} - ({u}){b}", "mul": "({u}){a} * ({u}){b}", "neg": "0 - ({u}){a}",
    "square": "({u}){a} * ({u}){a}", "abs": "{a} < 0 ? 0 - ({u}){a} : ({u}){a}", "sign": "({a} > 0) - ({a} < 0)",
    "floor_divide": "hal_floor_divide_{t}({a}, {b})", "remainder": "hal_remainder_{t}({a}, {b})",
    "fmod": "hal_fmod_{t}({a}, {b})", "pow": "hal_pow_{t}({a}, {b})",
    "bitwise_invert": "~{a}", "bitwise_left_shift": "({u}){a} << {b}", "bitwise_right_shift": "{a} >> {b}",
    "signbit": "{a} < 0",
}
BOOL = _WHOLE | {
    "add": "{a} | {b}", "mul": "{a} & {b}", "bitwise_invert": "!{a}",
}
# fmt: on
_TABLES = {"float": FLOAT, "int": INTEGER, "uint": INTEGER, "bool": BOOL}
_CONVERTED = ("b8", "f16", "bf16")  # types that a dialect reads and writes by functions
_HALVES = {dtypes.float16: "10, -14, 65504.0f", dtypes.bfloat16: "7, -126, 0x1.fep+127f"}  # digits, exponents, largest


def expression(op: Op, given: Sequence[DType], out: DType, operands: Sequence[str], settings: Any) -> str | None:
    """One C expression for an op on operands of these dtypes, of the result's value type; None if it takes more.

    Operands must be variables or constants: they may be used more than once.
    """
    if op.name == "cast":
        return converted(operands[0], given[0], out)
    if op.name == "clip":
        return _clipped(operands[0], given[0], settings)
    if op.kind != "elementwise" or any(d.kind == "complex" for d in (*given, out)):
        return None
    source = given[-1]  # of `where`, the condition comes first
    if op.name == "nextafter" and source in _HALVES:  # which is the neighbour depends on the dtype in memory
        return f"hal_next_half({operands[0]}, {operands[1]}, {_HALVES[source]})"
    text = _TABLES[source.kind].get(op.name)
    if text is None:
        return None
    wide = "u64" if source.itemsize == 8 else "u32"
    names = dict(zip("abc", operands, strict=False))
    return f"({value_type(out)})({text.format(t=value_type(out), s=value_type(source), u=wide, **names)})"


def converted(operand: str, source: DType, target: DType) -> str:
    """The value of another dtype: floats become integers towards zero, integers wrap around, not zero is True."""
    if source is target:
        return operand
    if target is dtypes.bool_:
        return f"(i32)({operand} != 0)"
    halves = (dtypes.float16, dtypes.bfloat16)
    if source is dtypes.float64 and target in halves:  # rounded once, not twice
        return f"hal_odd_f32({operand})"
    if source.is_floating and target.kind == "uint":  # a negative one wraps around
        if target.itemsize == 8:
            return f"({operand} < 0 ? (u64)(i64){operand} : (u64){operand})"
        return f"({value_type(target)})(i64){operand}"
    if source.is_floating and target.kind == "int" and target.itemsize < 4:
        return f"({value_type(target)})(i32){operand}"
    return f"({value_type(target)}){operand}"


def _clipped(operand: str, dtype: DType, settings: Any) -> str:
    low, high = (_within(settings.get(name), dtype) for name in ("low", "high"))
    text = operand
    if low is not None:
        bound = literal(low, dtype)
        text = f"({text} < {bound} ? {bound} : {text})"
    if high is not None:  # last, so that it holds if it is below `low`
        bound = literal(high, dtype)
        text = f"({text} > {bound} ? {bound} : {text})"
    return f"({value_type(dtype)}){text}"


def _within(bound: bool | int | float | None, dtype: DType) -> bool | int | float | None:
    """A bound that a dtype holds: what no element of an integer dtype can reach is its least or largest number."""
    if bound is None or dtype.kind not in ("int", "uint"):
        return bound
    bits = 8 * dtype.itemsize
    least = 0 if dtype.kind == "uint" else -(1 << bits - 1)
    return max(least, min(bound, least + (1 << bits) - 1))


class NoExpression(Exception):
    """An op is made of more than what C does with one element of each input."""


class Writer:
    """The lines of a kernel's body, one variable each.

    Attributes:
        lines: what has been written: `const float v3 = …;`.
    """

    def __init__(self, prefix: str = "v") -> None:
        self.prefix = prefix
        self.lines: list[str] = []
        self._count = 0

    def let(self, dtype: DType, text: str) -> str:
        """A new variable with the value of an expression."""
        name = f"{self.prefix}{self._count}"
        self._count += 1
        self.lines.append(f"const {value_type(dtype)} {name} = {text};")
        return name

    def apply(self, op: Op, specs: Sequence[Spec], operands: Sequence[str], settings: Any) -> tuple[str, ...]:
        """Write an op on variables (or constants) that hold one element each; the names of its results.

        An op without an expression of its own is written as its decomposition.

        Raises:
            NoExpression: it is not elementwise, or the decomposition is not.
        """
        settings = op.bind(len(specs), settings)
        given = tuple(s.dtype for s in specs)
        if op.promote is not None:
            wanted = op.promote(*given)
            operands = [converted(x, d, w) for x, d, w in zip(operands, given, wanted, strict=True)]
            operands = [self.let(w, x) if d is not w else x for x, d, w in zip(operands, given, wanted, strict=True)]
            specs = tuple(s.with_dtype(w) for s, w in zip(specs, wanted, strict=True))
            given = wanted
        inferred = op.infer(*specs, **settings)
        if not isinstance(inferred, tuple):
            text = expression(op, given, inferred.dtype, operands, settings)
            if text is not None:
                return (self.let(inferred.dtype, text),)
        if op.decompose is None:
            raise NoExpression(f"{op.name} works on more than one element of each input")
        traced = trace(op, tuple(specs), settings)
        names: dict[int, str] = {id(x): name for x, name in zip(traced.inputs, operands, strict=True)}

        def name_of(x: Any) -> str:
            if id(x) not in names:
                if x.value is None:
                    raise NoExpression(f"{op.name} makes an array of its own")
                names[id(x)] = literal(x.value, x.spec.dtype)
            return names[id(x)]

        for call in traced.calls:
            if call.op.kind != "elementwise":
                raise NoExpression(f"{op.name} is made of {call.op.name}, among others")
            found = self.apply(call.op, [x.spec for x in call.inputs], [name_of(x) for x in call.inputs], call.settings)
            names |= {id(x): name for x, name in zip(call.outputs, found, strict=True)}
        return tuple(name_of(x) for x in traced.outputs)


def elementwise_ops() -> list[Op]:
    """The ops of the table that are elementwise on real numbers."""
    return [op for op in ops.TABLE.values() if op.kind == "elementwise"]
