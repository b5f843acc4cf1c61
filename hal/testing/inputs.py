"""Inputs that look everywhere: every bit pattern of a small type, and samples of each exponent of a large one."""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np

from hal import dtypes
from hal.dtypes import DType
from hal.op import Array

RANDOM_PATTERNS = 4096
PER_EXPONENT = 16  # significands of each exponent and sign, the smallest and largest among them


@cache
def every_pattern(dtype: DType) -> Array:
    """All bit patterns of a type of at most 16 bits; corners and random ones of a larger. Not to be changed."""
    if dtype.kind == "bool":
        return np.array([False, True, True, False])
    if dtype.itemsize <= 2:
        word = {1: np.uint8, 2: np.uint16}[dtype.itemsize]
        return np.arange(1 << 8 * dtype.itemsize, dtype=word).view(dtype.numpy)
    rng = np.random.default_rng(dtype.itemsize)
    random = np.frombuffer(rng.bytes(RANDOM_PATTERNS * dtype.itemsize), dtype.numpy)
    corners = np.frombuffer(b"\x00" * dtype.itemsize + b"\xff" * dtype.itemsize, dtype.numpy)
    if dtype.kind == "float":
        corners = np.concatenate([corners, special_values(dtype)])
    return np.concatenate([corners, random])


def special_values(dtype: DType) -> Array:
    """NaN, infinities, zeros, ones, the limits of the type, and neighbours of each."""
    info = ml_dtypes.finfo(dtype.numpy)
    limits = [
        float(info.max),
        float(info.tiny),
        float(info.smallest_subnormal),
        float(info.eps),
        1 - float(info.eps) / 2,
    ]
    plain = [0.0, 1.0, 0.5, 2.0, 3.0, 10.0, np.pi, np.e, np.log(2), 1 / 3, 88.7, 104.0, 709.0, 745.2, 65504.0, 1e30]
    positive = np.array([*limits, *plain, np.inf]).astype(np.float64)
    with np.errstate(over="ignore"):
        exact = np.concatenate([positive, -positive, [np.nan]]).astype(dtype.numpy)
    return np.concatenate([exact, neighbours(exact, dtype)])


def neighbours(values: Array, dtype: DType) -> Array:
    """The numbers just above and below each finite value."""
    word = {2: np.int16, 4: np.int32, 8: np.int64}[dtype.itemsize]
    finite = values[np.isfinite(values.astype(np.float64)) & (values != 0)]
    words = finite.view(word)
    return np.concatenate([words + word(1), words - word(1)]).view(dtype.numpy)


@cache
def stratified(dtype: DType) -> Array:
    """Numbers of every exponent and both signs, subnormal ones too, and the special values. Not to be changed."""
    word, mantissa, exponents = {4: (np.uint32, 23, 256), 8: (np.uint64, 52, 2048)}[dtype.itemsize]
    rng = np.random.default_rng(mantissa)
    exponent = np.repeat(np.arange(exponents, dtype=word), PER_EXPONENT).reshape(exponents, PER_EXPONENT)
    significand = rng.integers(0, 1 << mantissa, exponent.shape, dtype=word)
    significand[:, 0], significand[:, 1], significand[:, 2] = 0, (1 << mantissa) - 1, 1
    powers = word(1) << np.arange(mantissa, dtype=word)  # subnormal numbers have exponents too
    subnormal = np.concatenate([powers, powers | rng.integers(0, powers, dtype=word)])
    bits = np.concatenate([((exponent << word(mantissa)) | significand).reshape(-1), subnormal])
    both = np.concatenate([bits, bits | word(1 << (8 * dtype.itemsize - 1))])
    return np.concatenate([both.view(dtype.numpy), special_values(dtype), _ordinary(dtype)])


def _ordinary(dtype: DType) -> Array:
    """Numbers as networks have them, where functions bend."""
    rng = np.random.default_rng(7)
    return np.concatenate([rng.normal(size=20_000), rng.uniform(-10, 10, 20_000), rng.uniform(0, 2, 10_000)]).astype(
        dtype.numpy
    )


@cache
def looked_at(dtype: DType) -> Array:
    """The inputs of functions of one number: all there are of a 16-bit type, else stratified ones. Not to be changed.

    NaN is NaN: its sign and payload mean nothing in arithmetic.
    """
    found = every_pattern(dtype) if dtype.itemsize <= 2 else stratified(dtype)
    with np.errstate(invalid="ignore"):  # signalling NaN
        return np.where(np.isnan(found), np.asarray(np.nan, found.dtype), found)


def pairs(dtype: DType, count: int, seed: int, *, ordinary: bool) -> tuple[Array, Array]:
    """Finite numbers for functions of two, of all exponents, or of those between 2**-5 and 2**5."""
    rng = np.random.default_rng(seed)
    pool = looked_at(dtype)
    with np.errstate(all="ignore"):
        size = np.abs(pool.astype(np.float64))
    usable = (size >= 2.0**-5) & (size < 2.0**5) if ordinary else np.isfinite(size) & (size > 0)
    return rng.choice(pool[usable], count), rng.choice(pool[usable], count)


def widened(x: Array) -> Array:
    """`x` as references take it: real floating types in float64, complex in complex128, others as they are."""
    kind = dtypes.of(x.dtype).kind
    wide: dict[str, type] = {"float": np.float64, "complex": np.complex128}
    with np.errstate(invalid="ignore"):  # NaNs that signal
        return x.astype(wide[kind]) if kind in wide else x
