"""Random numbers: the published answers of Threefry, no overlap between draws, and the shape of the distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hal
from hal import ops
from hal.errors import DTypeError, SettingError, ShapeError
from hal.ops.random import counters
from hal.random import next_state

# The vectors for threefry2x32 with 20 rounds from the Random123 distribution: key, counter, the two words.
KNOWN = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]
STATE = (0x9E3779B9, 0x7F4A7C15, 12345, 6)
MANY = 400_000


def state(*words: int) -> hal.Tensor:
    """A state as a tensor."""
    return hal.tensor(np.array(words or STATE, np.uint32))


def drawn(op: Any, *inputs: hal.Tensor, **settings: Any) -> np.ndarray:
    """What an op draws, as a NumPy array of float64 or integers."""
    result = op(*inputs, **settings).numpy()
    return result if result.dtype.kind in "iu" else result.astype(np.float64)


# --- the bits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "counter", "words"), KNOWN)
def test_the_words_are_the_published_ones(
    key: tuple[int, int], counter: tuple[int, int], words: tuple[int, int]
) -> None:
    given = state(*key, *counter)
    assert ops.random_bits(given, shape=(2,)).tolist() == list(words)
    assert ops.random_bits.decompose(given, shape=(2,)).tolist() == list(words)
    assert ops.random_bits.reference(given.numpy(), shape=(2,)).tolist() == list(words)


@pytest.mark.parametrize("counter", [(0, 0), (2**32 - 5, 0), (2**32 - 1, 2**32 - 1), (2**32 - 20_000, 3)])
def test_kernel_decomposition_and_reference_give_equal_bits(counter: tuple[int, int]) -> None:
    given = state(1, 2, *counter)
    want = ops.random_bits.reference(given.numpy(), shape=(50_001,))
    np.testing.assert_array_equal(ops.random_bits(given, shape=(50_001,)).numpy(), want)
    np.testing.assert_array_equal(ops.random_bits.decompose(given, shape=(50_001,)).numpy(), want)


def test_a_shorter_call_is_the_beginning_of_a_longer_one() -> None:
    long = drawn(ops.random_bits, state(), shape=(1000,))
    for size in (0, 1, 2, 3, 999):
        np.testing.assert_array_equal(drawn(ops.random_bits, state(), shape=(size,)), long[:size])
    np.testing.assert_array_equal(drawn(ops.random_bits, state(), shape=(10, 1, 100)).reshape(-1), long)


def test_an_op_does_not_change_the_state_it_is_given() -> None:
    given = state()
    ops.random_bits(given, shape=(10,))
    ops.dropout(hal.ones(10), given, p=0.5)
    assert given.tolist() == list(STATE)


def test_each_bit_is_set_half_of_the_time_and_neighbours_do_not_agree() -> None:
    words = drawn(ops.random_bits, state(), shape=(MANY,))
    limit = 5 * 0.5 / MANY**0.5  # five standard deviations
    for bit in range(32):
        assert abs(np.mean(words >> bit & 1) - 0.5) < limit
    for lag in (1, 2, 3, 64):
        changed = np.bitwise_count(words[lag:] ^ words[:-lag])
        assert abs(changed.mean() - 16) < 5 * 8**0.5 / MANY**0.5


def test_one_bit_of_the_key_or_counter_changes_half_of_the_words_bits() -> None:
    base = drawn(ops.random_bits, state(), shape=(2,))
    changed = [
        np.bitwise_count(
            base ^ drawn(ops.random_bits, state(*(w ^ (i == j) << bit for j, w in enumerate(STATE))), shape=(2,))
        )
        for i in range(4)
        for bit in range(32)
    ]
    assert abs(np.mean(changed) - 16) < 5 * 8**0.5 / np.size(changed) ** 0.5


# --- draws one after another ------------------------------------------------------------------------------------------


def all_draws(size: int) -> list[tuple[Any, tuple[Any, ...], dict[str, Any], int]]:
    """(op, inputs before the state, settings, words that the call may use) for calls of `size` elements."""
    x = hal.ones(size)
    return [
        (ops.random_bits, (), {"shape": (size,)}, size),
        (ops.uniform, (), {"shape": (size,), "dtype": hal.float32}, size),
        (ops.uniform, (), {"shape": (size,), "dtype": hal.float64}, 2 * size),
        (ops.normal, (), {"shape": (size,), "dtype": hal.float32}, size + size % 2),
        (ops.normal, (), {"shape": (size,), "dtype": hal.float64}, 2 * (size + size % 2)),
        (ops.randint, (), {"shape": (size,), "low": 0, "high": 10}, 2 * size),
        (ops.randint, (), {"shape": (size,), "low": 0, "high": 2**40}, 4 * size),
        (ops.bernoulli, (x * 0.5,), {}, size),
        (ops.dropout, (x,), {"p": 0.5}, size),
    ]


@pytest.mark.parametrize("size", [0, 1, 2, 7, 1000])
def test_no_call_uses_words_beyond_its_counters(size: int) -> None:
    for op, _, settings, words in all_draws(size):
        assert words <= 2 * counters(size), f"{op.name}{settings}"


def test_consecutive_calls_of_a_generator_share_no_word() -> None:
    generator = hal.Generator().manual_seed(7)
    seen: set[int] = set()
    for size in (1, 5, 0, 4, 3, 1000, 1):
        first = next_state(size, generator=generator).tolist()
        start = first[2] + (first[3] << 32)
        used = range(start, start + max((w + 1) // 2 for _, _, _, w in all_draws(size)))
        assert not seen.intersection(used)
        seen.update(used)


def test_what_is_drawn_next_depends_on_sizes_and_not_on_dtypes() -> None:
    after = []
    for op, inputs, settings, _ in all_draws(5):
        generator = hal.Generator().manual_seed(3)
        op(*inputs, next_state(5, generator=generator), **settings)
        after.append(next_state(1, generator=generator).tolist())
    assert all(a == after[0] for a in after)


def test_draws_with_one_generator_are_not_correlated() -> None:
    hal.manual_seed(11)
    a, b = hal.randn(MANY).numpy().astype(np.float64), hal.randn(MANY).numpy().astype(np.float64)
    assert abs(np.mean(a * b)) < 5 / MANY**0.5
    hal.manual_seed(11)
    np.testing.assert_array_equal(hal.randn(MANY).numpy(), a.astype(np.float32))


# --- the distributions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [hal.float32, hal.float64, hal.float16, hal.bfloat16])
def test_uniform_numbers(dtype: hal.DType) -> None:
    x = drawn(ops.uniform, state(), shape=(MANY,), dtype=dtype, low=0.0, high=1.0)
    bits = {"float32": 24, "float64": 53, "float16": 11, "bfloat16": 8}[dtype.name]
    assert x.min() >= 0
    assert x.max() < 1
    np.testing.assert_array_equal(x * 2.0**bits, np.floor(x * 2.0**bits))  # exactly so many bits
    error = 5 / (12 * MANY) ** 0.5
    assert abs(x.mean() - (0.5 - 0.5 / 2**bits)) < error
    assert abs(x.var() - 1 / 12) < error
    assert abs(np.corrcoef(x[0::2], x[1::2])[0, 1]) < 5 / (MANY / 2) ** 0.5
    counts = np.histogram(x, 16, (0, 1))[0]
    assert np.sum((counts - MANY / 16) ** 2 / (MANY / 16)) < 45  # chi-square, 15 degrees: one in 10,000


@pytest.mark.parametrize("dtype", [hal.float32, hal.float64, hal.float16, hal.bfloat16])
@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (1.0, 1.0 + 2**-7), (1.0, 1.0 + 2**-23), (-0.1, 0.1)])
def test_uniform_numbers_stay_below_the_upper_bound(dtype: hal.DType, low: float, high: float) -> None:
    x = drawn(ops.uniform, state(), shape=(20_000,), dtype=dtype, low=low, high=high)
    bottom, top = (float(np.asarray(b, dtype.numpy)) for b in (low, high))
    assert x.min() >= bottom
    assert x.max() < top or bottom == top
    np.testing.assert_array_equal(
        x, drawn(ops.uniform.decompose, state(), shape=(20_000,), dtype=dtype, low=low, high=high)
    )


@pytest.mark.parametrize("dtype", [hal.float32, hal.float64])
def test_normal_numbers(dtype: hal.DType) -> None:
    x = drawn(ops.normal, state(), shape=(MANY,), dtype=dtype)
    assert abs(x.mean()) < 5 / MANY**0.5
    assert abs(x.var() - 1) < 5 * 2**0.5 / MANY**0.5
    assert abs(np.mean(x**3)) < 5 * 15**0.5 / MANY**0.5
    assert abs(np.mean(x**4) - 3) < 5 * 96**0.5 / MANY**0.5
    assert abs(np.corrcoef(x[0::2], x[1::2])[0, 1]) < 5 / (MANY / 2) ** 0.5
    for limit, share in ((1, 0.317310508), (2, 0.045500264), (3, 0.002699796)):
        assert abs(np.mean(np.abs(x) > limit) - share) < 5 * (share / MANY) ** 0.5
    shifted = drawn(ops.normal, state(), shape=(MANY,), dtype=dtype, mean=3.0, std=0.5)
    np.testing.assert_allclose(shifted, x * 0.5 + 3, atol=1e-6)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 2), (-3, 4), (10, 11), (0, 2**32), (-(2**31), 2**31 + 1), (-(2**63), 2**63)]
)
def test_random_integers(low: int, high: int) -> None:
    x = drawn(ops.randint, state(), shape=(20_000,), low=low, high=high, dtype=hal.int64)
    assert x.dtype == np.int64
    assert x.min() >= low
    assert int(x.max()) < high
    place = (x.astype(np.float64) - low) / (high - low) + 0.5 / (high - low)
    assert abs(place.mean() - 0.5) < 5 / (12 * x.size) ** 0.5
    if high - low < 10:
        counts = np.bincount(x - low, minlength=high - low)
        expected = x.size / (high - low)
        assert np.all(np.abs(counts - expected) <= 5 * expected**0.5)


@pytest.mark.parametrize(
    "dtype", [hal.int8, hal.int16, hal.int32, hal.int64, hal.uint8, hal.uint16, hal.uint32, hal.uint64]
)
def test_random_integers_of_every_dtype_reach_both_ends(dtype: hal.DType) -> None:
    limits = np.iinfo(dtype.numpy)
    for low, high in ((limits.min, limits.min + 3), (int(limits.max) - 2, int(limits.max) + 1)):
        x = drawn(ops.randint, state(), shape=(200,), low=int(low), high=int(high), dtype=dtype)
        assert sorted(set(x.tolist())) == list(range(int(low), int(high)))


def test_bernoulli() -> None:
    p = hal.tensor(np.repeat(np.array([0.0, 0.1, 0.5, 0.9, 1.0], np.float32), MANY // 5))
    x = drawn(ops.bernoulli, p, state()).reshape(5, -1)
    assert set(np.unique(x)) == {0.0, 1.0}
    assert x[0].sum() == 0
    assert x[4].sum() == x[4].size
    for row, chance in ((1, 0.1), (2, 0.5), (3, 0.9)):
        assert abs(x[row].mean() - chance) < 5 * (chance * (1 - chance) / x[row].size) ** 0.5


@pytest.mark.parametrize("p", [0.1, 0.5, 0.75])
def test_dropout_drops_a_share_and_scales_the_rest(p: float) -> None:
    x = hal.full((MANY,), 3.0)
    y = drawn(ops.dropout, x, state(), p=p)
    assert abs(np.mean(y == 0) - p) < 5 * (p * (1 - p) / MANY) ** 0.5
    np.testing.assert_allclose(y[y != 0], 3 / (1 - p), rtol=1e-6)


def test_dropout_of_nothing_and_of_everything() -> None:
    x = hal.tensor([1.0, float("inf"), float("nan")])
    np.testing.assert_array_equal(ops.dropout(x, state(), p=0.0).numpy(), x.numpy())
    np.testing.assert_array_equal(ops.dropout(x, state(), p=1.0).numpy(), np.zeros(3))


def test_the_gradient_of_dropout_drops_the_same_elements() -> None:
    x = hal.full((1000,), 2.0, requires_grad=True)
    y = ops.dropout(x, state(), p=0.3)
    y.backward(hal.ones(1000))
    np.testing.assert_allclose(x.grad.numpy() * 2, y.detach().numpy(), rtol=1e-6)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda s: ops.random_bits(s.long(), shape=(2,)), DTypeError, "uint32"),
        (lambda s: ops.random_bits(ops.reshape(s, shape=(2, 2)), shape=(2,)), ShapeError, "shape \\(4,\\)"),
        (lambda s: ops.random_bits(s, shape=(-1,)), ShapeError, "at least 0"),
        (lambda s: ops.random_bits(s, shape=(2**31, 2)), ShapeError, "in parts"),
        (lambda s: ops.uniform(s, shape=(2,), low=1.0, high=0.0), SettingError, "low <= high"),
        (lambda s: ops.uniform(s, shape=(2,), dtype=hal.int32), DTypeError, "int32"),
        (lambda s: ops.normal(s, shape=(2,), std=-1.0), SettingError, "std=-1.0"),
        (lambda s: ops.randint(s, shape=(2,), low=3, high=3), SettingError, "low < high"),
        (lambda s: ops.randint(s, shape=(2,), low=0, high=257, dtype=hal.uint8), SettingError, "uint8"),
        (lambda s: ops.dropout(hal.ones(2), s, p=1.5), SettingError, "between 0 and 1"),
    ],
)
def test_a_call_that_means_nothing_says_why(call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call(state())
