"""Threefry's words in NumPy, in blocks that stay in the cache, and the distributions made from them there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import pi, prod
from typing import Any

import numpy as np

from hal import ops
from hal.ops.choices import threshold
from hal.ops.distributions import below
from hal.ops.random import PARITY, ROTATIONS, UNIFORM_BITS, WORD
from hal.plugin import Array, DType
from hal_cpu.blocks import constant
from hal_cpu.table import kernels

BLOCK = 16_384  # pairs of words: three such arrays of uint32 fit a second-level cache
Shape = tuple[int, ...]
Pairs = Iterator[tuple[int, Array, Array]]
_INDEX = np.arange(BLOCK, dtype=np.uint32)
# Numbers for NumPy as arrays, which it takes faster than Python's integers.
_BITS = [np.array(i, np.uint32) for i in range(33)]


def _rounds(keys: tuple[int, ...], low: int, high: int, x0: Array, x1: Array, spare: Array) -> None:
    """Threefry-2x32 with 20 rounds of the counters (low + i, high), i = 0, 1, ..., without a carry, into x0 and x1."""
    mask = WORD - 1
    first = high + keys[1] & mask  # the second word is the same for all, so its first round needs no array
    np.add(_INDEX[: x0.size], np.array(low + keys[0] + first & mask, np.uint32), out=x0)
    rotated = (first << ROTATIONS[0][0] | first >> 32 - ROTATIONS[0][0]) & mask
    np.bitwise_xor(x0, np.array(rotated, np.uint32), out=x1)
    for group in range(5):
        for bits in ROTATIONS[group % 2][group == 0 :]:
            np.add(x0, x1, out=x0)
            np.left_shift(x1, _BITS[bits], out=spare)
            np.right_shift(x1, _BITS[32 - bits], out=x1)
            np.bitwise_or(x1, spare, out=x1)
            np.bitwise_xor(x1, x0, out=x1)
        np.add(x0, np.array(keys[(group + 1) % 3], np.uint32), out=x0)
        np.add(x1, np.array(keys[(group + 2) % 3] + group + 1 & mask, np.uint32), out=x1)


def pairs(state: Array, count: int) -> Pairs:
    """The words of `count` counters as (start, first words, second words), in blocks whose memory is used again."""
    key0, key1, low, high = state.tolist()
    keys = (key0, key1, key0 ^ key1 ^ PARITY)
    counter = low + (high << 32)
    x0, x1, spare = np.empty((3, min(count, BLOCK)), np.uint32)
    start = 0
    while start < count:
        at = counter + start & (1 << 64) - 1
        low, high = at % WORD, at >> 32
        n = min(BLOCK, count - start, WORD - low)  # up to a carry into the high word
        _rounds(keys, low, high, x0[:n], x1[:n], spare[:n])
        yield start, x0[:n], x1[:n]
        start += n


def _halves(flat: Array, start: int, n: int) -> tuple[Array, Array]:
    """Where the first and the second words of `n` counters from `start` belong; the second may be one shorter."""
    piece = flat[2 * start : 2 * (start + n)]
    return piece[0::2], piece[1::2]


@kernels.register(ops.random_bits, out=True)
def random_bits(state: Array, *, shape: Shape, out: Array | None = None) -> Array:
    words = _line(prod(shape), np.dtype(np.uint32), out)
    for start, x0, x1 in pairs(state, (words.size + 1) // 2):
        first, second = _halves(words, start, x0.size)
        first[:] = x0
        second[:] = x1[: second.size]
    return _finished(words, shape, out)


def _line(size: int, dtype: np.dtype[Any], out: Array | None) -> Array:
    """Where to write a result of `size` elements: `out` as a line if that is possible, else new memory."""
    return out.reshape(-1) if out is not None and out.flags.c_contiguous else np.empty(size, dtype)


def _finished(line: Array, shape: Shape, out: Array | None) -> Array:
    """A line from `_line` in its shape, in `out` if there is one."""
    if out is None:
        return line.reshape(shape)
    if not out.flags.c_contiguous:
        np.copyto(out, line.reshape(shape))
    return out


def _in_float32(words: Array, bits: int, out: Array) -> None:
    """The upper `bits` of words, at most 24, as float32. The words are used up."""
    np.right_shift(words, _BITS[32 - bits], out=words)
    np.copyto(out, words.view(np.int32), casting="unsafe")  # quicker than from uint32, and the sign bit is 0


@kernels.register(ops.uniform, out=True)
def uniform(state: Array, *, shape: Shape, dtype: DType, low: float, high: float, out: Array | None = None) -> Array:
    flat = _line(prod(shape), dtype.numpy, out)
    bits = UNIFORM_BITS[dtype.name]
    wide = np.float64 if bits == 53 else np.float32
    whole = (low, high) == (0.0, 1.0)
    top = max(below(high, dtype), low)

    def finish(fractions: Array, unit: float, target: Array) -> None:
        """Multiples of `unit` to numbers from low to high, each step rounded as the op says."""
        if whole:
            np.multiply(fractions, wide(unit), out=target, casting="unsafe")
            return
        fractions *= wide(unit)
        fractions *= wide(high - low)
        np.add(fractions, wide(low), out=target, casting="unsafe")
        np.minimum(target, constant(top, target), out=target)

    if bits == 53:
        for start, x0, x1 in pairs(state, flat.size):
            target = flat[start : start + x0.size]
            _in_float64(x0, x1, target)
            finish(target, 1.0, target)
        return _finished(flat, shape, out)
    fractions = np.empty(min(flat.size, BLOCK), np.float32)
    for start, x0, x1 in pairs(state, (flat.size + 1) // 2):
        for words, target in zip((x0, x1), _halves(flat, start, x0.size), strict=True):
            n = target.size
            _in_float32(words[:n], bits, fractions[:n])
            finish(fractions[:n], 2.0**-bits, target)
    return _finished(flat, shape, out)


def _in_float64(x0: Array, x1: Array, out: Array) -> None:
    """The 27 and 26 upper bits of two words as a multiple of 2**-53 in [0, 1). The words are used up."""
    np.right_shift(x0, _BITS[5], out=x0)
    np.right_shift(x1, _BITS[6], out=x1)
    np.multiply(x0.view(np.int32), 2.0**26, out=out)
    np.add(out, x1.view(np.int32), out=out)
    np.multiply(out, 2.0**-53, out=out)


@kernels.register(ops.normal, out=True)
def normal(state: Array, *, shape: Shape, dtype: DType, mean: float, std: float, out: Array | None = None) -> Array:
    flat = _line(prod(shape), dtype.numpy, out)
    count = (flat.size + 1) // 2
    wave = np.empty(min(count, BLOCK), np.float64 if dtype.name == "float64" else np.float32)
    for start, radius, angle in (_polar64 if dtype.name == "float64" else _polar32)(state, count):
        np.log(radius, out=radius)
        np.multiply(radius, -2.0, out=radius)
        np.sqrt(radius, out=radius)
        np.multiply(radius, std, out=radius)
        for function, target in zip((np.cos, np.sin), _halves(flat, start, radius.size), strict=True):
            n = target.size
            function(angle[:n], out=wave[:n])
            if mean:
                np.multiply(wave[:n], radius[:n], out=wave[:n])
                np.add(wave[:n], mean, out=target, casting="unsafe", dtype=wave.dtype)
            else:
                np.multiply(wave[:n], radius[:n], out=target, casting="unsafe", dtype=wave.dtype)
    return _finished(flat, shape, out)


def _polar32(state: Array, count: int) -> Pairs:
    """Uniform numbers in (0, 1] and angles, from one counter each pair."""
    radius, angle = np.empty((2, min(count, BLOCK)), np.float32)
    for start, x0, x1 in pairs(state, count):
        n = x0.size
        np.copyto(radius[:n], x0, casting="unsafe")
        radius[:n] *= 2.0**-32
        radius[:n] += 2.0**-33
        _in_float32(x1, 24, angle[:n])
        angle[:n] *= 2 * pi / (1 << 24)
        yield start, radius[:n], angle[:n]


def _polar64(state: Array, count: int) -> Pairs:
    """The same in float64, from two counters each pair, which a block may part."""
    numbers = np.empty(2 * count)
    for start, x0, x1 in pairs(state, numbers.size):
        _in_float64(x0, x1, numbers[start : start + x0.size])
    for start in range(0, count, BLOCK):
        radius, angle = _halves(numbers, start, min(BLOCK, count - start))
        yield start, 1.0 - radius, angle * (2 * pi)


@kernels.register(ops.randint, out=True)
def randint(state: Array, *, shape: Shape, low: int, high: int, dtype: DType, out: Array | None = None) -> Array:
    flat = _line(prod(shape), dtype.numpy, out)
    count = high - low
    offset = np.uint64(low % (1 << 64))
    if count > WORD:
        words = random_bits(state, shape=(4 * flat.size,)).reshape(-1, 4).astype(np.uint64)
        upper, lower = (words[:, i] << np.uint64(32) | words[:, i + 1] for i in (0, 2))
        np.copyto(flat, _scaled(upper, lower, count) + offset, casting="unsafe")
        return _finished(flat, shape, out)
    upper, lower = np.empty((2, min(flat.size, BLOCK)), np.uint64)
    factor = np.uint64(count)
    for start, x0, x1 in pairs(state, flat.size):
        a, b = upper[: x0.size], lower[: x0.size]
        np.multiply(x0, factor, out=a)
        np.multiply(x1, factor, out=b)
        b >>= np.uint64(32)
        a += b
        a >>= np.uint64(32)
        a += offset
        np.copyto(
            flat[start : start + a.size], a, casting="unsafe"
        )  # the lower bits: whole in the dtype, sign included
    return _finished(flat, shape, out)


def _upper(x: Array, factor: int) -> Array:
    """The upper 64 bits of the product of 64-bit words and a factor, by long multiplication with digits of 32 bits."""
    half, mask = np.uint64(32), np.uint64(WORD - 1)
    x1, x0, f1, f0 = x >> half, x & mask, np.uint64(factor >> 32), np.uint64(factor & WORD - 1)
    middle = x1 * f0 + (x0 * f0 >> half)
    carried = x0 * f1 + (middle & mask)
    return np.asarray(x1 * f1 + (middle >> half) + (carried >> half))


def _scaled(upper: Array, lower: Array, count: int) -> Array:
    """floor((upper, lower) * count / 2**128)."""
    if count == 1 << 64:
        return upper
    product = upper * np.uint64(count)
    total = product + _upper(lower, count)
    return np.asarray(_upper(upper, count) + (total < product))


def _on_words(state: Array, size: int, use: Callable[[slice, Array], None]) -> None:
    """Call `use(part, words)` for each part of `size` elements and its words, which it may change."""
    together = np.empty(min(size + 1, 2 * BLOCK), np.uint32)
    for start, x0, x1 in pairs(state, (size + 1) // 2):
        words = together[: 2 * x0.size]
        words[0::2], words[1::2] = x0, x1
        part = slice(2 * start, min(2 * start + words.size, size))
        use(part, words[: part.stop - part.start])


@kernels.register(ops.bernoulli, out=True)
def bernoulli(p: Array, state: Array, *, out: Array | None = None) -> Array:
    flat = _line(p.size, p.dtype, out)
    wide = p.dtype if p.dtype.itemsize > 2 else np.dtype(np.float32)
    chances = np.ascontiguousarray(p, wide).reshape(-1)
    fractions = np.empty(min(p.size + 1, 2 * BLOCK), np.float32)

    def choose(part: slice, words: Array) -> None:
        n = words.size
        _in_float32(words, 24, fractions[:n])
        fractions[:n] *= 2.0**-24
        np.copyto(flat[part], np.less(fractions[:n], chances[part]), casting="unsafe")

    _on_words(state, p.size, choose)
    return _finished(flat, p.shape, out)


@kernels.register(ops.dropout, out=True)
def dropout(x: Array, state: Array, *, p: float, out: Array | None = None) -> Array:
    limit = threshold(p)
    if limit == WORD or x.size == 0:
        flat = _line(x.size, x.dtype, out)
        flat[:] = 0
        return _finished(flat, x.shape, out)
    flat = _line(x.size, x.dtype, out)
    given = np.ascontiguousarray(x).reshape(-1)
    wide = x.dtype if x.dtype.itemsize > 2 else np.dtype(np.float32)
    bits = np.dtype(f"u{x.dtype.itemsize}")
    masks = np.empty(min(x.size + 1, 2 * BLOCK), bits)
    patterns, scale, least = flat.view(bits), wide.type(1 / (1 - p)), np.array(limit, np.uint32)

    def drop(part: slice, words: Array) -> None:
        mask = masks[: words.size]
        np.multiply(given[part], scale, out=flat[part], dtype=wide, casting="unsafe")
        np.copyto(mask, np.greater_equal(words, least))
        np.negative(mask, out=mask)  # all ones where the element is kept: choosing by bits is quicker than by a branch
        np.bitwise_and(patterns[part], mask, out=patterns[part])

    _on_words(state, x.size, drop)
    return _finished(flat, x.shape, out)
