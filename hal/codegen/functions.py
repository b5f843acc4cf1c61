"""Own functions in C: accurate, inlined, without branches, so that compilers vectorise them; and safe division.

PoCL does not inline its own `exp`, `log`, `tanh`, `erf`: they are calls for one number each, which cost ten times as
much (`log1p` fifty times). Polynomials: least relative error by Remez's exchange, or from the sources that are named.
"""

from __future__ import annotations

import re

# exp(c) = 2**n (1 + r + r r p): c = n log(2) + r with |r| <= log(2) / 2. The whole number n is found by adding
# 1.5 * 2**23, and is then the lower bits of the sum.
_REDUCED = """\
    const f32 shifted = c * 1.44269504088896341f + 12582912.0f;
    const i32 n = hal_bits_f32(shifted) - 0x4B400000;
    const f32 whole = shifted - 12582912.0f;
    const f32 r = (c - whole * 0.693359375f) + whole * 2.12194440e-4f;
    const f32 p = ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r
        + 1.6666665459e-1f) * r + 5.0000001201e-1f;"""  # coefficients, of log too: S. L. Moshier, Cephes, expf, logf

# exp: 2**n is multiplied in two halves, so that the result may be subnormal.
_EXP_F32 = f"""
HAL_FUNCTION f32 hal_exp_f32(f32 x) {{
    const f32 c = x < -104.0f ? -104.0f : x > 89.0f ? 89.0f : x;
{_REDUCED}
    const f32 y = p * (r * r) + r + 1.0f;
    const i32 half_n = n >> 1;
    return y * hal_float_f32((half_n + 127) << 23) * hal_float_f32((n - half_n + 127) << 23);
}}
"""

# log: x = m 2**n with sqrt(1/2) <= m < sqrt(2); subnormals are made larger first.
_LOG_F32 = """
HAL_FUNCTION f32 hal_log_f32(f32 x) {
    const i32 tiny = x < 1.17549435e-38f;
    const f32 scaled = tiny ? x * 8388608.0f : x;
    const i32 bits = hal_bits_f32(scaled) - 0x3F3504F3;
    const i32 exponent = bits >> 23;
    const f32 m = hal_float_f32((bits & 0x007FFFFF) + 0x3F3504F3) - 1.0f;
    const f32 n = (f32)(exponent - (tiny ? 23 : 0));
    const f32 z = m * m;
    f32 p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * z + n * -2.12194440e-4f - 0.5f * z;
    const f32 y = (m + p) + n * 0.693359375f;
    const f32 ends = x == 0.0f ? -INFINITY : x < 0.0f ? NAN : x;
    return x > 0.0f && x < INFINITY ? y : ends;
}
"""

# log(1 + x): what 1 + x has lost of x is added, divided by 1 + x.
_LOG1P_F32 = """
HAL_FUNCTION f32 hal_log1p_f32(f32 x) {
    const f32 u = 1.0f + x;
    const f32 logged = hal_log_f32(u);
    const f32 y = logged + (x - (u - 1.0f)) / u;
    return x > -1.0f && x < INFINITY ? (u == 1.0f ? x : y) : logged;
}
"""

# exp(x) - 1: as exp, but 2**n (exp(r) - 1) and 2**n - 1 are added, halved so that neither overflows early.
_EXPM1_F32 = f"""
HAL_FUNCTION f32 hal_expm1_f32(f32 x) {{
    const f32 c = x < -20.0f ? -20.0f : x > 89.0f ? 89.0f : x;
{_REDUCED}
    const f32 half_of = hal_float_f32((n + 126) << 23);
    const f32 y = 2.0f * (half_of * (p * (r * r) + r) + (half_of - 0.5f));
    return x == 0.0f ? x : y;
}}
"""


def _horner(variable: str, coefficients: tuple[float, ...]) -> str:
    """A polynomial, its constant first, in as many roundings as a device needs."""
    text = f"{coefficients[-1]!r}f"
    for c in reversed(coefficients[:-1]):
        text = f"hal_multiply_add({text}, {variable}, {c!r}f)"
    return text


# tanh and erf: one division costs less than an exponential, a second polynomial near zero and the selection between the
# two. Coefficients: least relative error (of tanh, in the result) by weighted linear fits in 30 digits; 1 in 10^8.
_ERF_ABOVE = (
    1.1283791065216064, 0.1906968355178833, 0.05277830734848976, 0.003775727702304721, 0.0002846998395398259,
    2.0423915430001216e-06,
)  # fmt: skip
_ERF_BELOW = (
    1.0, 0.502333402633667, 0.11422113329172134, 0.014989705756306648, 0.0011642291210591793, 3.800264312303625e-05,
)  # fmt: skip

# tanh: 2 t / (1 + t t) with t = tanh(x / 2) as a rational function N / D, in which one division is left: an error of
# t counts the less, the nearer it is to 1. N = x (1 + ...) / 2 and D = 1 + m are added to so that what is near 1 is
# rounded last. At most 3.8 ULP, where OpenCL allows 5.
_TANH_F32 = f"""
HAL_FUNCTION f32 hal_tanh_f32(f32 x) {{
    const f32 least = x < -9.2f ? -9.2f : x;
    const f32 c = least > 9.2f ? 9.2f : least;
    const f32 z = c * c;
    const f32 n = hal_multiply_add(c * z, {_horner("z", (0.029754964634776115, 0.00011385316311267626))}, c);
    const f32 m = z * {_horner("z", (0.11308824270963669, 0.0012045856565237045, 1.2207260624563787e-06))};
    const f32 y = hal_multiply_add(n, m, n) / (hal_multiply_add(m, m + 2.0f, 0.25f * (n * n)) + 1.0f);
    const f32 most = y > 1.0f ? 1.0f : y;
    return most < -1.0f ? -1.0f : most;
}}
"""

# erf: x P(x x) / Q(x x), up to where it has just passed 1. At most 5 ULP, where OpenCL allows 16.
_ERF_F32 = f"""
HAL_FUNCTION f32 hal_erf_f32(f32 x) {{
    const f32 least = x < -4.2f ? -4.2f : x;
    const f32 c = least > 4.2f ? 4.2f : least;
    const f32 z = c * c;
    const f32 p = {_horner("z", _ERF_ABOVE)};
    const f32 y = c * p / {_horner("z", _ERF_BELOW)};
    const f32 most = y > 1.0f ? 1.0f : y;
    return most < -1.0f ? -1.0f : most;
}}
"""

_BUILT_IN = """
HAL_FUNCTION f64 hal_exp_f64(f64 x) { return exp(x); }
HAL_FUNCTION f64 hal_log_f64(f64 x) { return log(x); }
HAL_FUNCTION f64 hal_log1p_f64(f64 x) { return log1p(x); }
HAL_FUNCTION f64 hal_expm1_f64(f64 x) { return expm1(x); }
HAL_FUNCTION f64 hal_tanh_f64(f64 x) { return tanh(x); }
HAL_FUNCTION f64 hal_erf_f64(f64 x) { return erf(x); }
HAL_FUNCTION i32 hal_signbit_f32(f32 x) { return hal_bits_f32(x) < 0; }
HAL_FUNCTION i32 hal_signbit_f64(f64 x) { return hal_bits_f64(x) < 0; }
"""

# The neighbour of a half, with `digits` behind the point and exponents from `least`, that is held in a float.
_NEXT_HALF = """
HAL_FUNCTION f32 hal_next_half(f32 a, f32 b, i32 digits, i32 least, f32 largest) {
    if (a != a || b != b) return NAN;
    if (a == b) return b;
    if (fabs(a) == INFINITY) return a > 0 ? largest : -largest;
    const i32 bits = hal_bits_f32(a);
    const i32 exponent = ((bits >> 23) & 255) - 127;
    const f32 unit = ldexp(1.0f, (exponent > least ? exponent : least) - digits);
    if (a == 0) return b > 0 ? unit : -unit;
    const i32 halved = (b > a) != (a > 0) && (bits & 0x7FFFFF) == 0 && exponent > least;
    const f32 step = halved ? unit * 0.5f : unit;
    return b > a ? a + step : a - step;
}
"""

# A number between two of the next narrower type, made odd, is rounded once more as if it had never been rounded.
_ODD = """
HAL_FUNCTION f32 hal_odd_f32(f64 x) {
    const f32 y = (f32)x;
    i32 bits = hal_bits_f32(y);
    if (x != x || (f64)y == x || fabs(y) == INFINITY) return y;
    if (fabs((f64)y) > fabs(x)) bits -= 1;
    return hal_float_f32(bits | 1);
}
"""

# Division of integers that neither traps nor is undefined: by zero it gives zero.
_INTEGER = """
HAL_FUNCTION {t} hal_floor_divide_{t}({t} a, {t} b) {{
    if (b == 0) return 0;
    {negative}
    const {t} q = a / b;
    return q - (({t})(q * b) != a && (a < 0) != (b < 0));
}}
HAL_FUNCTION {t} hal_fmod_{t}({t} a, {t} b) {{
    if (b == 0 {or_negative}) return 0;
    return a % b;
}}
HAL_FUNCTION {t} hal_remainder_{t}({t} a, {t} b) {{
    const {t} r = hal_fmod_{t}(a, b);
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}}
HAL_FUNCTION {t} hal_pow_{t}({t} a, {t} b) {{
    {u} y = 1, power = a;
    for ({t} n = b; n > 0; n >>= 1) {{
        if (n & 1) y *= power;
        power *= power;
    }}
    return ({t})y;
}}
"""

# Source: floor_divide and remainder of floats as in Python and NumPy, from fmod, which is exact.
_FLOATING = """
HAL_FUNCTION {t} hal_remainder_{t}({t} a, {t} b) {{
    {t} r = fmod(a, b);
    if (b == 0) return NAN;
    if (r != 0) return (r < 0) != (b < 0) ? r + b : r;
    return copysign(({t})0, b);
}}
HAL_FUNCTION {t} hal_floor_divide_{t}({t} a, {t} b) {{
    if (b == 0) return a / b;
    {t} r = fmod(a, b);
    {t} q = (a - r) / b;
    if (r != 0 && (r < 0) != (b < 0)) q -= 1;
    if (q == 0) return copysign(({t})0, a / b);
    {t} y = floor(q);
    return q - y > ({t})0.5 ? y + 1 : y;
}}
HAL_FUNCTION {t} hal_pow_{t}({t} a, {t} b) {{
    return b == 2 ? a * a : pow(a, b);
}}
"""


def _sources() -> dict[str, str]:
    """The source of each function, by name."""
    texts = [_EXP_F32, _LOG_F32, _LOG1P_F32, _EXPM1_F32, _TANH_F32, _ERF_F32, _BUILT_IN, _NEXT_HALF, _ODD]
    for bits in (8, 16, 32, 64):
        wide = f"u{max(bits, 32)}"
        minus = f"if (b == -1) return (i{bits})(0 - ({wide})a);"
        texts.append(_INTEGER.format(t=f"i{bits}", u=wide, negative=minus, or_negative="|| b == -1"))
        texts.append(_INTEGER.format(t=f"u{bits}", u=wide, negative="", or_negative=""))
    texts += [_FLOATING.format(t=t) for t in ("f32", "f64")]
    found = {}
    for text in texts:
        for part in re.split(r"(?m)^(?=HAL_FUNCTION)", text):
            name = re.match(r"HAL_FUNCTION \w+ (\w+)", part)
            if name is not None:
                found[name[1]] = part.strip()
    return found


SOURCES = _sources()
_CALLS = re.compile(r"\b(hal_\w+)\(")


def needed(text: str) -> str:
    """The source of the functions that `text` calls, and those that they call, each before it is used."""
    order: dict[str, str] = {}

    def add(part: str, itself: str = "") -> None:
        for name in dict.fromkeys(_CALLS.findall(part)):
            if name in SOURCES and name != itself and name not in order:
                add(SOURCES[name], name)
                order[name] = SOURCES[name]

    add(text)
    return "".join(f"{source}\n" for source in order.values())
