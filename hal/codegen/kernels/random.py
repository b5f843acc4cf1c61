"""Threefry's words, and what is drawn from them: bits, uniform and normal numbers, choices. Equal on every device."""

from __future__ import annotations

from typing import Any

import numpy as np

from hal import ops
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.layout import Shape
from hal.codegen.kernels.movement import in_rows, into
from hal.codegen.kernels.table import kernels
from hal.codegen.kernels.templates import run
from hal.ops.choices import threshold
from hal.ops.distributions import below
from hal.ops.random import PARITY, ROTATIONS, UNIFORM_BITS, WORD
from hal.plugin import DType, Spec, dtypes


def _rounds() -> str:
    lines = []
    for group in range(5):
        for bits in ROTATIONS[group % 2]:
            lines.append(f"a += b; b = (b << {bits} | b >> {32 - bits}) ^ a;")
        lines.append(f"a += key[{(group + 1) % 3}]; b += key[{(group + 2) % 3}] + {group + 1};")
    return "\n    ".join(lines)


# Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
_WORDS = f"""
HAL_FUNCTION u64 threefry(HAL_GLOBAL const u32 *state, u32 counter) {{
    const u32 key[3] = {{ state[0], state[1], state[0] ^ state[1] ^ {PARITY}u }};
    const u32 low = state[2] + counter;
    u32 a = low + key[0], b = state[3] + (low < counter) + key[1];
    {_rounds()}
    return (u64)b << 32 | a;
}}
"""
# Each i is a counter: two words, which are two elements or one.
_KERNEL = """
HAL_KERNEL kernel_(const i64 n, const i64 per, const i64 size, HAL_GLOBAL const u32 *restrict state, const i64 os,
    HAL_GLOBAL @T *restrict out, const i64 oo@PARAMETERS) {
    state += os; out += oo;
    @OFFSETS
    @LOOP {
        const u64 words = threefry(state, (u32)i);
        const u32 first = (u32)words, second = (u32)(words >> 32);
        @BODY
    }
}
"""


def _draw(
    label: str,
    state: Buffer,
    result: Buffer,
    body: str,
    *,
    pairs: bool = True,
    parameters: str = "",
    offsets: str = "",
    arguments: tuple[Any, ...] = (),
    types: dict[str, DType] | None = None,
    before: str = "",
) -> Buffer:
    """Enqueue `body` for each counter, of which an element needs half a one (`pairs`) or a whole one."""
    runtime = state.memory.runtime
    count = (result.size + 1) // 2 if pairs else result.size
    text = (
        _WORDS + before + _KERNEL.replace("@PARAMETERS", parameters).replace("@OFFSETS", offsets).replace("@BODY", body)
    )
    given = [result.size, in_rows(state), result, *arguments]
    run(runtime, label, text, count, given, writes=[result], types={"T": result.dtype, **(types or {})}, grain=512)
    return result


def _target(state: Buffer, shape: Shape, dtype: DType, out: Buffer | None, label: str) -> Buffer:
    if out is not None and out.contiguous and out.memory is not state.memory:
        return out
    return state.memory.runtime.empty(shape, dtype, label)


_TWO = "@storeT(out, 2 * i, {a}); if (2 * i + 1 < size) {{ @storeT(out, 2 * i + 1, {b}); }}"


@kernels.register(ops.random_bits, out=True)
def random_bits(state: Buffer, *, shape: Shape, out: Buffer | None = None) -> Buffer:
    result = _target(state, shape, dtypes.uint32, out, "random_bits")
    return into(_draw("random_bits", state, result, _TWO.format(a="first", b="second")), out)


def _real(x: float, dtype: DType) -> Any:
    return np.float64(x) if dtype is dtypes.float64 else np.float32(x)


def _value(dtype: DType) -> str:
    return "f64" if dtype is dtypes.float64 else "f32"


@kernels.register(ops.uniform, out=True)
def uniform(state: Buffer, *, shape: Shape, dtype: DType, low: float, high: float, out: Buffer | None = None) -> Buffer:
    result = _target(state, shape, dtype, out, "uniform")
    bits, wide = UNIFORM_BITS[dtype.name], _value(dtype)
    # Three statements: each step is rounded by itself, as in the op's record.
    finish = f"""const {wide} scaled_@ = unit_@ * range; const {wide} moved_@ = scaled_@ + low;
        const {wide} result_@ = whole_ ? unit_@ : moved_@ > top ? top : moved_@;"""
    if bits == 53:
        unit = "const f64 unit_0 = ((f64)(first >> 5) * 67108864.0 + (f64)(second >> 6)) * 0x1p-53;"
        body = unit + finish.replace("_@", "_0") + " @storeT(out, i, result_0);"
    else:
        units = [
            f"const f32 unit_{k} = (f32)({w} >> {32 - bits}) * 0x1p-{bits}f;" for k, w in enumerate(("first", "second"))
        ]
        body = "".join(u + finish.replace("_@", f"_{k}") for k, u in enumerate(units))
        body += _TWO.format(a="result_0", b="result_1")
    parameters = f", const {wide} low, const {wide} range, const {wide} top, const i64 whole_"
    whole = int((low, high) == (0.0, 1.0))
    top = max(below(high, dtype), low)
    arguments = (_real(low, dtype), _real(high - low, dtype), _real(top, dtype), whole)
    _draw("uniform", state, result, body, pairs=bits != 53, parameters=parameters, arguments=arguments)
    return into(result, out)


@kernels.register(ops.bernoulli, out=True)
def bernoulli(p: Buffer, state: Buffer, *, out: Buffer | None = None) -> Buffer:
    result = _target(state, p.shape, p.dtype, out if out is None or out.memory is not p.memory else None, "bernoulli")
    chosen = "(f32)({w} >> 8) * 0x1p-24f < @loadT(p, {i}) ? 1 : 0"
    first = chosen.format(w="first", i="2 * i")
    body = f"@storeT(out, 2 * i, {first}); if (2 * i + 1 < size) {{ @storeT(out, 2 * i + 1, "
    body += chosen.format(w="second", i="2 * i + 1") + "); }"
    parameters = ", HAL_GLOBAL const @T *restrict p, const i64 op"
    _draw("bernoulli", state, result, body, parameters=parameters, offsets="p += op;", arguments=(in_rows(p),))
    return into(result, out)


@kernels.register(ops.dropout, out=True)
def dropout(x: Buffer, state: Buffer, *, p: float, out: Buffer | None = None) -> Buffer:
    result = _target(state, x.shape, x.dtype, out if out is None or out.memory is not x.memory else None, "dropout")
    limit = threshold(p)
    kept = "limit <= {w} ? @loadX(x, {i}) * scale : 0"
    first, second = kept.format(w="first", i="2 * i"), kept.format(w="second", i="2 * i + 1")
    body = f"@storeT(out, 2 * i, {first}); if (2 * i + 1 < size) {{ @storeT(out, 2 * i + 1, {second}); }}"
    wide = _value(x.dtype)
    parameters = f", HAL_GLOBAL const @X *restrict x, const i64 ox, const u64 limit, const {wide} scale"
    arguments = (in_rows(x), np.uint64(limit), _real(0 if limit == WORD else 1 / (1 - p), x.dtype))
    _draw(
        "dropout", state, result, body,
        parameters=parameters, offsets="x += ox;", arguments=arguments, types={"X": x.dtype},
    )  # fmt: skip
    return into(result, out)


# cos and sin of `turn` whole turns, for turns in [0, 1): the nearest quarter is taken off without rounding, and what is
# left, at most an eighth, goes into polynomials in its square (Chebyshev's points; relative errors 2**-37).
_TURNS = """
HAL_FUNCTION f32 hal_sin_eighth(f32 x, f32 z) {
    return x * (6.2831854820251465f + z * (-41.34170150756836f + z * (81.6052017211914f + z * (-76.69786834716797f
        + z * 41.4728889465332f))));
}
HAL_FUNCTION f32 hal_cos_eighth(f32 z) {
    return 1.0f + z * (-19.739208221435547f + z * (64.93939208984375f + z * (-85.4567642211914f
        + z * (60.23818588256836f + z * -26.05815315246582f))));
}
"""


def _is_float32(state: Spec, *, dtype: DType, **settings: Any) -> bool:
    return dtype is not dtypes.float64


@kernels.register(ops.normal, when=_is_float32, out=True)
def normal(state: Buffer, *, shape: Shape, dtype: DType, mean: float, std: float, out: Buffer | None = None) -> Buffer:
    result = _target(state, shape, dtype, out, "normal")
    body = """
        const f32 radius = sqrt(hal_log_f32((f32)first * 0x1p-32f + 0x1p-33f) * -2.0f);
        const f32 turn = (f32)(second >> 8) * 0x1p-24f;
        const i32 quarter = (i32)(turn * 4.0f + 0.5f);
        const f32 rest = turn - (f32)quarter * 0.25f, z = rest * rest;
        const f32 s = hal_sin_eighth(rest, z), c = hal_cos_eighth(z);
        const f32 cosine = quarter & 1 ? s : c, sine = quarter & 1 ? c : s;
        const f32 x0 = radius * ((quarter + 1) & 2 ? -cosine : cosine), y0 = x0 * std;
        const f32 x1 = radius * (quarter & 2 ? -sine : sine), y1 = x1 * std;
        """
    body += _TWO.format(a="y0 + mean", b="y1 + mean")
    given = (np.float32(mean), np.float32(std))
    _draw("normal", state, result, body, parameters=", const f32 mean, const f32 std", arguments=given, before=_TURNS)
    return into(result, out)


def _of_two_words(state: Spec, *, low: int, high: int, **settings: Any) -> bool:
    return high - low <= WORD


@kernels.register(ops.randint, when=_of_two_words, out=True)
def randint(state: Buffer, *, shape: Shape, low: int, high: int, dtype: DType, out: Buffer | None = None) -> Buffer:
    result = _target(state, shape, dtype, out, "randint")
    body = "@storeT(out, i, (@valueT)(hal_high_u64((u64)first << 32 | second, count) + low));"
    given = (np.uint64(high - low), np.uint64(low % (1 << 64)))
    _draw(
        "randint", state, result, body, pairs=False, parameters=", const u64 count, const u64 low", arguments=given
    )  # fmt: skip
    return into(result, out)
