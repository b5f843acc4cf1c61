"""Random numbers of a distribution: uniform, normal, and integers of a range, made from the bits of `random_bits`."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, pi, prod
from typing import TYPE_CHECKING

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import SettingError
from hal.op import Array, Op, Rng, Sample, in_norm
from hal.ops.common import FLOATS, INTEGERS, check_kind
from hal.ops.random import (
    NO_GRADIENT,
    WORD,
    check_shape,
    check_state,
    columns,
    cost_of_bits,
    fractions,
    reference_fractions,
    reference_stream,
    sample_state,
    words_per_element,
    working,
)  # fmt: skip
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


def below(value: float, dtype: DType) -> float:
    """The largest number of `dtype` that is less than `value` rounded to it."""
    rounded = np.asarray(value, dtype.numpy)
    return float(np.nextafter(rounded, np.asarray(-np.inf, dtype.numpy)))


# Uniform numbers.


def _infer_uniform(
    state: Spec, *, shape: Shape, dtype: DType = dtypes.float32, low: float = 0.0, high: float = 1.0
) -> Spec:
    check_state("uniform", state)
    check_shape("uniform", shape)
    check_kind("uniform", Spec(shape, dtype), FLOATS)
    if not (low <= high and isfinite(high - low)):
        raise SettingError(f"uniform needs finite bounds with low <= high, got low={low} and high={high}")
    return Spec(shape, dtype)


def _decompose_uniform(state: Tensor, *, shape: Shape, dtype: DType, low: float, high: float) -> Tensor:
    x = fractions(ops.random_bits(state, shape=(prod(shape) * words_per_element(dtype),)), dtype)
    if (low, high) != (0.0, 1.0):
        x = x * (high - low) + low
    x = ops.cast(x, dtype=dtype)
    if (low, high) != (0.0, 1.0):
        x = ops.where(ops.less(x, high), x, max(below(high, dtype), low))  # the sum may have been rounded up to `high`
    return ops.reshape(x, shape=shape)


def _reference_uniform(
    state: Array, *, shape: Shape, dtype: DType = dtypes.float32, low: float = 0.0, high: float = 1.0
) -> Array:
    # The rounding of each step is part of what the op means: only then can all devices agree to the bit.
    wide = working(dtype).numpy.type
    unit = reference_fractions(reference_stream(state, prod(shape) * words_per_element(dtype)), dtype).astype(wide)
    x = (unit * wide(high - low) + wide(low)).astype(dtype.numpy)
    top = dtype.numpy.type(max(below(high, dtype), low))
    return np.where(x < dtype.numpy.type(high), x, top).astype(np.float64).reshape(shape)


def _sample_uniform(rng: Rng) -> Iterator[Sample]:
    for dtype in dtypes.FLOATS:
        for shape in ((), (0,), (7,), (3, 4)):
            yield Sample((sample_state(rng),), {"shape": shape, "dtype": dtype}, smooth=False)
        yield Sample((sample_state(rng),), {"shape": (5001,), "dtype": dtype, "low": -0.3, "high": 2.5}, smooth=False)
        yield Sample((sample_state(rng),), {"shape": (9,), "dtype": dtype, "low": 1.5, "high": 1.5}, smooth=False)
    narrow = {"shape": (300,), "dtype": dtypes.float32, "low": 1.0, "high": 1.0 + 2**-20}  # most sums are rounded
    yield Sample((sample_state(rng),), narrow, smooth=False)


uniform = Op(
    "uniform", _infer_uniform, _reference_uniform, _sample_uniform, None, _decompose_uniform, cost_of_bits, "random",
    no_gradient=NO_GRADIENT, doc="""Random numbers, uniform in [low, high), equal to the bit on every device.

    An element is the top 24 (float32), 11 (float16) or 8 (bfloat16) bits of a word of `random_bits`, or the top 27 and
    26 bits of two words (float64), times a power of two: a number in [0, 1), exactly. Then comes `* (high - low) + low`
    in float32 (or float64), one rounding each, and a result that was rounded up to `high` becomes the number below it.
    n elements consume (n + 1) // 2 counters, n in float64; advance by `counters(n)`.""",
)  # fmt: skip


# Normal numbers.


def _infer_normal(
    state: Spec, *, shape: Shape, dtype: DType = dtypes.float32, mean: float = 0.0, std: float = 1.0
) -> Spec:
    check_state("normal", state)
    check_shape("normal", shape)
    check_kind("normal", Spec(shape, dtype), FLOATS)
    if not std >= 0:
        raise SettingError(f"normal needs a standard deviation of at least 0, got std={std}")
    return Spec(shape, dtype)


def _decompose_normal(state: Tensor, *, shape: Shape, dtype: DType, mean: float, std: float) -> Tensor:
    wide, size = working(dtype), prod(shape)
    words = ops.random_bits(state, shape=((size + size % 2) * words_per_element(wide),))
    if wide is dtypes.float32:
        first, second = columns(words, 2)
        radius = ops.cast(first, dtype=wide) * 2.0**-32 + 2.0**-33  # in (0, 1], and finest near 0: the far tail
        angle = fractions(second, wide)
    else:
        radius, angle = columns(fractions(words, wide), 2)
        radius = 1.0 - radius
    radius = ops.sqrt(ops.log(radius) * -2.0)
    angle = angle * (2 * pi)
    x = ops.reshape(ops.stack(radius * ops.cos(angle), radius * ops.sin(angle), axis=1), shape=(size + size % 2,))
    x = ops.slice(x, start=(0,), stop=(size,), step=(1,)) if size % 2 else x
    if (mean, std) != (0.0, 1.0):
        x = x * std + mean
    return ops.reshape(ops.cast(x, dtype=dtype), shape=shape)


def _reference_normal(
    state: Array, *, shape: Shape, dtype: DType = dtypes.float32, mean: float = 0.0, std: float = 1.0
) -> Array:
    wide, size = working(dtype), prod(shape)
    words = reference_stream(state, (size + size % 2) * words_per_element(wide))
    if wide is dtypes.float32:
        radius = (words[0::2].astype(np.float32) / np.float32(WORD) + np.float32(2**-33)).astype(np.float64)
        angle = reference_fractions(words[1::2], wide)
    else:
        unit = reference_fractions(words, wide)
        radius, angle = 1.0 - unit[0::2], unit[1::2]
    radius = np.sqrt(-2 * np.log(radius))
    x = np.stack([radius * np.cos(2 * pi * angle), radius * np.sin(2 * pi * angle)], 1).reshape(-1)[:size]
    return (x * std + mean).reshape(shape)


def _sample_normal(rng: Rng) -> Iterator[Sample]:
    for dtype in dtypes.FLOATS:
        for shape in ((), (0,), (7,), (3, 4)):
            yield Sample((sample_state(rng),), {"shape": shape, "dtype": dtype}, smooth=False)
        yield Sample((sample_state(rng),), {"shape": (5001,), "dtype": dtype, "mean": -0.3, "std": 2.5}, smooth=False)
    yield Sample((sample_state(rng),), {"shape": (9,), "dtype": dtypes.float32, "std": 0.0, "mean": 2.0}, smooth=False)


normal = Op(
    "normal", _infer_normal, _reference_normal, _sample_normal, None, _decompose_normal, cost_of_bits, "random",
    no_gradient=NO_GRADIENT,
    tolerance=in_norm(16, "the angle's rounding, up to pi u, and OpenCL's limits of log, sqrt, sin, times a radius"),
    doc="""Random numbers of a normal distribution with `mean` and `std`, by Box and Muller's transform.

    Elements 2j and 2j + 1 are r cos(2 pi v) and r sin(2 pi v), r = sqrt(-2 log u). In float32, and for the half types,
    counter j gives both: u = word0 / 2**32 + 2**-33 rounded to float32, v = the top 24 bits of word1 / 2**24. In
    float64 counters 2j and 2j + 1 give two 53-bit numbers w, v as in `uniform`, and u = 1 - w.
    n elements consume (n + 1) // 2 counters, n + n % 2 in float64; advance by `counters(n)`.

    Source: Box, Muller, "A Note on the Generation of Random Normal Deviates", Ann. Math. Statist. 29 (1958).""",
)  # fmt: skip


# Random integers.


def _infer_randint(state: Spec, *, shape: Shape, low: int, high: int, dtype: DType = dtypes.int64) -> Spec:
    check_state("randint", state)
    check_shape("randint", shape)
    check_kind("randint", Spec(shape, dtype), INTEGERS)
    limits = np.iinfo(dtype.numpy)
    if not limits.min <= low < high <= int(limits.max) + 1:
        raise SettingError(
            f"randint needs low < high, and both within what {dtype.name} holds, got low={low} and high={high}"
        )
    return Spec(shape, dtype)


def _high_product(x: Tensor, factor: int, half: int) -> Tensor:
    """The upper word of x * factor, for words of 2 * half bits: long multiplication with half words as digits."""
    mask = (1 << half) - 1
    x1, x0, f1, f0 = ops.bitwise_right_shift(x, half), ops.bitwise_and(x, mask), factor >> half, factor & mask
    middle = x1 * f0 + ops.bitwise_right_shift(x0 * f0, half)
    carried = x0 * f1 + ops.bitwise_and(middle, mask)
    return x1 * f1 + ops.bitwise_right_shift(middle, half) + ops.bitwise_right_shift(carried, half)


def _scaled(high: Tensor, low: Tensor, count: int, half: int) -> Tensor:
    """floor((high, low) * count / 2**bits) for a number of two words: uniform in range(count)."""
    if count == 1 << 2 * half:
        return high
    product = high * count
    total = product + _high_product(low, count, half)
    return _high_product(high, count, half) + ops.cast(ops.less(total, product), dtype=high.dtype)


def _decompose_randint(state: Tensor, *, shape: Shape, low: int, high: int, dtype: DType) -> Tensor:
    size, count = prod(shape), high - low
    if count <= WORD:
        first, second = columns(ops.random_bits(state, shape=(2 * size,)), 2)
        x = _scaled(first, second, count, 16)
        x = x + low % WORD if dtype.itemsize < 8 else x
        x = ops.cast(x, dtype=dtype)
        x = x + low if dtype.itemsize == 8 else x
    else:
        w = [ops.cast(word, dtype=dtypes.uint64) for word in columns(ops.random_bits(state, shape=(4 * size,)), 4)]
        x = _scaled(w[0] * WORD + w[1], w[2] * WORD + w[3], count, 32)
        x = ops.cast(x + low % (1 << 64), dtype=dtype)
    return ops.reshape(x, shape=shape)


def _reference_randint(state: Array, *, shape: Shape, low: int, high: int, dtype: DType = dtypes.int64) -> Array:
    size, count = prod(shape), high - low
    per_element = 2 if count <= WORD else 4
    rows = reference_stream(state, per_element * size).reshape(size, per_element)
    drawn = [sum(int(w) << 32 * i for i, w in enumerate(reversed(row))) for row in rows]
    return np.array([low + (d * count >> 32 * per_element) for d in drawn], dtype.numpy).reshape(shape)


def _sample_randint(rng: Rng) -> Iterator[Sample]:
    def sample(shape: Shape, low: int, high: int, dtype: DType = dtypes.int64) -> Sample:
        return Sample((sample_state(rng),), {"shape": shape, "low": low, "high": high, "dtype": dtype}, smooth=False)

    for shape in ((), (0,), (7,), (3, 4), (5001,)):
        yield sample(shape, 0, 10)
    for dtype in (d for d in dtypes.ALL if d.kind in INTEGERS):
        limits = np.iinfo(dtype.numpy)
        yield sample((40,), int(limits.min), int(limits.max) + 1, dtype)  # all there are
        yield sample((40,), int(limits.max) - 4, int(limits.max) + 1, dtype)
        yield sample((40,), int(limits.min), int(limits.min) + 3, dtype)
    yield sample((40,), -5, -4)
    yield sample((40,), -5, WORD - 5)
    yield sample((40,), -7, WORD - 5)
    yield sample((40,), -(2**40), 2**61 + 12345)


randint = Op(
    "randint", _infer_randint, _reference_randint, _sample_randint, None, _decompose_randint, cost_of_bits, "random",
    no_gradient=NO_GRADIENT, doc="""Random integers, uniform in range(low, high).

    An element is low + floor(w * count / 2**64), count = high - low, for a number w of two words, the first one on top:
    some values are likelier than others, but by less than one part in 2**32. A count above 2**32 takes four words and
    2**128 in the same way, with an error of less than one part in 2**64. No word is rejected.
    n elements consume n counters, 2n where the count is above 2**32; advance by `counters(n)`.""",
)  # fmt: skip
