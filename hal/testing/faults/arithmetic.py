"""Faults in the primitives and other small ops: rounding, special values, integers, order, randomness."""

from __future__ import annotations

from typing import Any

import numpy as np

from hal import ops
from hal.op import Array
from hal.testing.faults.fault import miscomputes
from hal.testing.inputs import widened


def _rounds_toward_zero(y: Array, a: Array, b: Array) -> Array:
    if y.dtype.kind in "biuc":
        return y
    beyond = np.abs(y.astype(np.float64)) > np.abs(widened(a) + widened(b))
    return np.where(beyond, np.nextafter(y, np.zeros_like(y)), y)


def _four_units_up(y: Array, x: Array) -> Array:
    for _ in range(4):
        y = np.where(np.isfinite(y) & (y > 0), np.nextafter(y, np.full_like(y, np.inf)), y)
    return y


def _max_without_nan(y: Array, x: Array, *, axis: Any, keepdims: bool) -> Array:
    if x.dtype.kind in "biu" or not x.size:
        return y
    reduced: Array = np.fmax.reduce(widened(x), axis=axis).reshape(y.shape)
    return reduced


def _flushes(y: Array, x: Array) -> Array:
    if y.dtype.kind in "iuc":
        return y
    smallest = {"float16": 2.0**-14, "float64": 2.0**-1022}.get(y.dtype.name, 2.0**-126)
    return np.where(np.abs(y.astype(np.float64)) < smallest, np.zeros_like(y), y)


def _saturates(y: Array, a: Array, b: Array) -> Array:
    if y.dtype.kind not in "iu" or y.dtype.itemsize > 4:
        return y
    limits = np.iinfo(y.dtype)
    return np.clip(a.astype(np.int64) + b.astype(np.int64), limits.min, limits.max)


def _in_float64(y: Array, a: Array, b: Array) -> Array:
    if y.dtype.kind not in "iu" or y.dtype.itemsize < 8:
        return y
    return (a.astype(np.float64) + b.astype(np.float64)).astype(y.dtype)


def _toward_zero(y: Array, a: Array, b: Array) -> Array:
    if y.dtype.kind != "i":
        return y
    return np.where((y < 0) & (y.astype(np.int64) * b != a), y + 1, y)


def _last_of_ties(y: Array, x: Array, *, axis: int | None, keepdims: bool) -> Array:
    if axis is None or not x.size:
        return y
    return np.asarray(x.shape[axis] - 1 - np.argmax(np.flip(widened(x), axis), axis=axis, keepdims=keepdims))


def _unstable(y: Array, x: Array, *, axis: int, descending: bool, stable: bool) -> Array:
    values = np.take_along_axis(widened(x), y, axis)
    order = np.argsort(np.flip(widened(x), axis), axis=axis, kind="stable")
    last_first = x.shape[axis] - 1 - order
    ties = np.take_along_axis(widened(x), last_first, axis)
    return y if descending or not np.array_equal(values, ties) else last_first


def _loses_duplicates(y: Array, x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    out = widened(x).copy()
    at = (slice(None),) * (axis % x.ndim) + (indices,)
    out[at] = out[at] + updates
    return out


def _clips_negative(y: Array, x: Array, indices: Array, *, axis: int) -> Array:
    return np.take(x, np.maximum(indices, 0), axis)


def _rounds_to_nearest(y: Array, x: Array, *, dtype: Any) -> Array:
    if y.dtype.kind not in "iu" or x.dtype.kind not in "fV":
        return y
    return np.where(np.isfinite(widened(x)), np.rint(widened(x)), 0).astype(y.dtype)


def _two_for_true(y: Array, a: Array, b: Array) -> Array:
    return (y.view(np.uint8) * 2).view(np.bool_)


def _cycles(y: Array, a: Array, b: Array) -> Array:
    if a.shape == b.shape or 1 not in (*a.shape, *b.shape) or not y.size:
        return y
    flat = (np.resize(a.reshape(-1), y.size), np.resize(b.reshape(-1), y.size))
    return (flat[0] * flat[1]).reshape(y.shape)


def _accumulates_in_float16(y: Array, a: Array, b: Array) -> Array:
    return np.matmul(a.astype(np.float16), b.astype(np.float16)) if y.dtype == np.float32 and y.size else y


def _signed_shift(y: Array, a: Array, b: Array) -> Array:
    if y.dtype != np.uint8:
        return y
    return (np.broadcast_to(a, y.shape).astype(np.int8) >> np.minimum(b, 7).astype(np.int8)).astype(np.uint8)


def _in_few_bits(y: Array, x: Array) -> Array:
    reduced = np.remainder(x.astype(np.float32), np.float32(2 * np.pi)) if x.dtype.kind in "fV" else x
    return np.sin(reduced.astype(np.float64)) if x.dtype.kind in "fV" else y


def _forgets_the_first(y: Array, x: Array, *, axis: int) -> Array:
    return y - x


def _without_carry(y: Array, state: Array, *, shape: tuple[int, ...]) -> Array:
    bits = ops.TABLE["random_bits"].reference
    before = 2 * (2**32 - int(state[2]))  # words until the counter's low word begins again at zero
    if y.size <= before:
        return y
    again = np.array([state[0], state[1], 0, state[3]], np.uint32)
    return np.concatenate([y.reshape(-1)[:before], bits(again, shape=(y.size - before,))]).reshape(shape)


FAULTS = (
    miscomputes("add", "rounding-toward-zero", "Sums are cut off, where the nearest number is asked for.",
                _rounds_toward_zero),
    miscomputes("exp", "one-unit-beyond-the-table", "exp is four units in the last place too large; 3 are allowed.",
                _four_units_up),
    miscomputes("max", "nan-dropping-reduction", "The largest of numbers with a NaN among them is a number.",
                _max_without_nan),
    miscomputes("maximum", "nan-dropping-maximum", "The larger of a number and a NaN is the number.",
                lambda y, a, b: np.fmax(a, b)),
    miscomputes("exp", "infinity-lost", "What should be infinite stops at a large number.",
                lambda y, x: np.where(np.isinf(y), np.asarray(6e4, y.dtype), y)),
    miscomputes("neg", "signed-zero-lost", "The negative of zero is zero, without its sign.",
                lambda y, x: y + np.zeros_like(y) if y.dtype.kind in "fV" else y),
    miscomputes("abs", "subnormals-flushed", "Numbers too small for a full mantissa become zero, and nothing says so.",
                _flushes, level="accuracy"),
    miscomputes("add", "integers-saturate", "Sums of integers stop at the largest, where they should wrap around.",
                _saturates, level="dtypes/wrap-around"),
    miscomputes("add", "integers-in-floats", "64-bit integers are added as floats, which lose their last bits.",
                _in_float64, level="dtypes/wrap-around"),
    miscomputes("floor_divide", "division-toward-zero", "-7 // 2 is -3, as in C, where -4 is asked for.",
                _toward_zero),
    miscomputes("remainder", "remainder-of-the-other-sign", "The remainder has the sign of the dividend, as in C.",
                lambda y, a, b: np.fmod(a, b)),
    miscomputes("argmax", "last-of-ties", "Of equal elements the last one is found, where the first is asked for.",
                _last_of_ties),
    miscomputes("argsort", "unstable-sort", "Equal elements change places, though a stable order was asked for.",
                _unstable),
    miscomputes("topk", "smallest-for-largest", "The smallest are found where the largest were asked for.",
                lambda y, x, **s: tuple(np.flip(part, s["axis"]) for part in y)),
    miscomputes("index_add", "duplicates-lost", "Of several updates to one place only the last arrives.",
                _loses_duplicates),
    miscomputes("take", "negative-indices-clipped", "A negative index finds the first element.",
                _clips_negative),
    miscomputes("cast", "cast-that-rounds", "Floats become the nearest integer, where the fraction should be cut off.",
                _rounds_to_nearest),
    miscomputes("less", "true-as-two", "True is stored as the byte 2.",
                _two_for_true),
    miscomputes("where", "where-by-arithmetic", "where is computed as c * a + (1 - c) * b: NaN times zero is NaN.",
                lambda y, c, a, b: c * widened(a) + (1 - c) * widened(b)),
    miscomputes("equal", "nan-equals-nan", "A NaN is equal to a NaN.",
                lambda y, a, b: y | ((a != a) & (b != b))),
    miscomputes("mul", "broadcast-that-cycles", "An axis of size 1 is not stretched: elements are dealt out in turn.",
                _cycles),
    miscomputes("matmul", "half-accumulation", "Products of float32 matrices are summed in float16.",
                _accumulates_in_float16),
    miscomputes("bitwise_right_shift", "signed-shift", "Bytes without a sign are shifted as if they had one.",
                _signed_shift, level="dtypes/wrap-around"),
    miscomputes("sin", "short-range-reduction", "Large angles are reduced with a pi of 24 bits.",
                _in_few_bits, level="accuracy"),
    miscomputes("log1p", "cancelling-log1p", "log1p(x) is computed as log(1 + x), which loses small x.",
                lambda y, x: np.log(np.asarray(1, x.dtype) + x)),
    miscomputes("pow", "power-by-logarithms", "A power is exp(b * log(a)): that of a negative number is NaN.",
                lambda y, a, b: np.exp(widened(b) * np.log(widened(a))) if y.dtype.kind in "fV" else y),
    miscomputes("cumsum", "exclusive-scan", "A running sum leaves out the element that it stands at.",
                _forgets_the_first),
    miscomputes("pad", "pad-value-ignored", "Padding is always zero.",
                lambda y, x, *, padding, value: np.pad(x, padding)),
    miscomputes("random_bits", "wrong-random-bits", "The last bit of every random number is turned over.",
                lambda y, state, **s: y ^ np.uint32(1), cases=("random/bits",)),
    miscomputes("random_bits", "counter-without-carry", "The counter of random numbers has 32 bits, where it needs 64.",
                _without_carry),
    miscomputes("iota", "off-by-one-sequence", "A sequence begins at 1.",
                lambda y, **s: y + np.asarray(1, y.dtype)),
)  # fmt: skip
