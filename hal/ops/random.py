"""Random bits, the same on every device: Threefry-2x32 with 20 rounds, and how its words become numbers.

A generator's state is four words, uint32[4]: key0, key1, counter0, counter1. The two key words choose the stream;
the 64-bit counter, low word first, chooses the place in it. Counter i gives the two words 2i and 2i + 1 of the
flattened bits, so a shorter call is a prefix of a longer one. An op never changes the state it is given: whoever
owns it adds `counters(size)` to the counter after a call of `size` elements.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DTypeError, ShapeError
from hal.op import Array, Cost, Op, Rng, Sample, Specs
from hal.spec import Shape, Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA  # the constant that the third key word starts from
WORD = 1 << 32
NO_GRADIENT = "random numbers depend on nothing that has a gradient"
OPS_PER_WORD = 60  # half of 20 rounds of 5 operations, and the keys


def counters(size: int) -> int:
    """How far the 64-bit counter moves for one call of `size` elements, of any random op and any dtype.

    It is what the hungriest call (a `randint` over more than 2**32 values) consumes: two counters, four words, an
    element. The others leave some unused, so that what is drawn next depends on sizes alone and not on dtypes.
    """
    return 2 * size


def working(dtype: DType) -> DType:
    """The type that a distribution of `dtype` is computed in: float32 for the two half types."""
    return dtypes.float64 if dtype is dtypes.float64 else dtypes.float32


UNIFORM_BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}  # the digits of each type's significand


def words_per_element(dtype: DType) -> int:
    """How many words a floating random number of `dtype` is made of."""
    return 2 if dtype is dtypes.float64 else 1


# What is asked of every call.


def check_state(who: str, state: Spec) -> None:
    """Raise DTypeError or ShapeError unless `state` is uint32[4]."""
    if state.dtype is not dtypes.uint32:
        raise DTypeError(f"{who} needs a state of uint32 (key0, key1, counter0, counter1), got {state.dtype.name}")
    if state.shape != (4,):
        raise ShapeError(f"{who} needs a state of shape (4,) (key0, key1, counter0, counter1), got {state.shape}")


def check_shape(who: str, shape: Shape) -> None:
    """Raise ShapeError unless `shape` can be drawn in one call."""
    if not isinstance(shape, tuple) or any(n < 0 for n in shape):
        raise ShapeError(f"{who} needs a shape that is a tuple of sizes of at least 0, got {shape!r}")
    if prod(shape) >= WORD:
        raise ShapeError(f"{who} gives less than 2**32 elements in one call, got shape {shape}; draw it in parts")


# The bits. These functions are written in operators and work on tensors of uint32.


def _xor(a: Tensor, b: Tensor | int) -> Tensor:
    """a ^ b in primitives: a + b counts the common bits twice."""
    return a + b + ops.bitwise_and(a, b) * (WORD - 2)


def _rotate_left(x: Tensor, bits: int) -> Tensor:
    return x * (1 << bits) + ops.bitwise_right_shift(x, 32 - bits)


def _threefry(key0: Tensor, key1: Tensor, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    keys = (key0, key1, _xor(_xor(key0, key1), PARITY))
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for group in range(5):
        for bits in ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = _xor(_rotate_left(x1, bits), x0)
        x0, x1 = x0 + keys[(group + 1) % 3], x1 + (keys[(group + 2) % 3] + (group + 1))
    return x0, x1


def stream(state: Tensor, size: int) -> Tensor:
    """The first `size` words of the stream at `state`, flat."""
    key0, key1, counter0, counter1 = (ops.slice(state, start=(i,), stop=(i + 1,), step=(1,)) for i in range(4))
    low = ops.iota(size=(size + 1) // 2, dtype=dtypes.uint32, device=state.device) + counter0
    high = counter1 + ops.cast(ops.less(low, counter0), dtype=dtypes.uint32)
    words = ops.reshape(ops.stack(*_threefry(key0, key1, low, high), axis=1), shape=(size + size % 2,))
    return ops.slice(words, start=(0,), stop=(size,), step=(1,)) if size % 2 else words


def reference_stream(state: Array, size: int) -> Array:
    """The same words in NumPy, with the counter in Python's integers and the words in 64 bits, masked."""
    counter = int(state[2]) + (int(state[3]) << 32) + np.arange((size + 1) // 2, dtype=object)
    x = [np.array([c >> s & WORD - 1 for c in counter], np.uint64) for s in (0, 32)]
    key = [int(state[0]), int(state[1]), int(state[0]) ^ int(state[1]) ^ PARITY]
    mask = np.uint64(WORD - 1)
    x = [x[0] + np.uint64(key[0]) & mask, x[1] + np.uint64(key[1]) & mask]
    for i in range(20):
        bits = ROTATIONS[i // 4 % 2][i % 4]
        x[0] = x[0] + x[1] & mask
        x[1] = (x[1] << np.uint64(bits) | x[1] >> np.uint64(32 - bits)) & mask ^ x[0]
        if i % 4 == 3:
            s = i // 4 + 1
            x[0] = x[0] + np.uint64(key[s % 3]) & mask
            x[1] = x[1] + np.uint64(key[(s + 1) % 3] + s) & mask
    return np.stack(x, 1).reshape(-1)[:size].astype(np.uint32)


def _infer_bits(state: Spec, *, shape: Shape) -> Spec:
    check_state("random_bits", state)
    check_shape("random_bits", shape)
    return Spec(shape, dtypes.uint32)


def _reference_bits(state: Array, *, shape: Shape) -> Array:
    return reference_stream(state, prod(shape)).reshape(shape)


def _decompose_bits(state: Tensor, *, shape: Shape) -> Tensor:
    return ops.reshape(stream(state, prod(shape)), shape=shape)


def cost_of_bits(state: Spec, *, out: Specs, **settings: Any) -> Cost:
    """The cost of about one word for each element."""
    assert isinstance(out, Spec)
    return Cost(OPS_PER_WORD * out.size, state.nbytes + out.nbytes)


def sample_state(rng: Rng, *counter: int) -> Array:
    """A random state, with these words for its counter."""
    key = rng.integers(0, WORD, 4)
    key[2 : 2 + len(counter)] = counter
    return key.astype(np.uint32)


def _sample_bits(rng: Rng) -> Iterator[Sample]:
    for shape in ((), (0,), (1,), (5,), (2, 3), (4, 0, 2), (3, 1, 2, 2)):
        yield Sample((sample_state(rng),), {"shape": shape}, smooth=False)
    yield Sample((sample_state(rng, WORD - 3, 7),), {"shape": (21,)}, smooth=False)  # the counter's low word overflows
    yield Sample((sample_state(rng, WORD - 1, WORD - 1),), {"shape": (4,)}, smooth=False)  # and the whole counter
    yield Sample((sample_state(rng),), {"shape": (40_001,)}, smooth=False)  # several blocks, and half a pair


random_bits = Op(
    "random_bits", _infer_bits, _reference_bits, _sample_bits, None, _decompose_bits, cost_of_bits, "random",
    no_gradient=NO_GRADIENT, doc="""Random uint32 words of a shape, by Threefry-2x32 with 20 rounds.

    Counter i from `state` (uint32[4]: key0, key1, counter0, counter1) gives the words 2i and 2i + 1 of the flattened
    result: n words consume (n + 1) // 2 counters. After a call of n elements advance the counter by `counters(n)`.

    Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.""",
)  # fmt: skip


# Bits as numbers in [0, 1): what the distributions start from.


def columns(words: Tensor, per_row: int) -> list[Tensor]:
    """Words (n * per_row,) as `per_row` vectors of n: what each element is made of."""
    rows = ops.reshape(words, shape=(words.shape[0] // per_row, per_row))
    n = rows.shape[0]
    parts = (ops.slice(rows, start=(0, i), stop=(n, i + 1), step=(1, 1)) for i in range(per_row))
    return [ops.reshape(part, shape=(n,)) for part in parts]


def fractions(words: Tensor, dtype: DType) -> Tensor:
    """Words as multiples of 2**-bits in [0, 1), exact in `working(dtype)`, where `bits` are those of `dtype`."""
    wide, bits = working(dtype), UNIFORM_BITS[dtype.name]
    if wide is dtypes.float32:
        return ops.cast(ops.bitwise_right_shift(words, 32 - bits), dtype=wide) * 2.0**-bits
    high, low = columns(words, 2)
    high, low = ops.bitwise_right_shift(high, 5), ops.bitwise_right_shift(low, 6)
    return (ops.cast(high, dtype=wide) * 2.0**26 + ops.cast(low, dtype=wide)) * 2.0**-53


def reference_fractions(words: Array, dtype: DType) -> Array:
    """The same numbers in float64, where they are exact too."""
    bits = UNIFORM_BITS[dtype.name]
    if dtype is not dtypes.float64:
        return np.floor(words / 2.0 ** (32 - bits)) / 2.0**bits
    pairs = words.reshape(-1, 2).astype(object)
    return np.array([((int(a) >> 5 << 26) + (int(b) >> 6)) / 2**53 for a, b in pairs], np.float64)
