"""Generators and what is drawn with them: seeds, states, equal bits on every device, distributions."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hal
from hal.errors import DTypeError, SettingError, ShapeError
from hal.ops.random import counters
from hal.random import next_state

DRAWS: list[Callable[..., hal.Tensor]] = [
    lambda **o: hal.rand(5, 3, **o),
    lambda **o: hal.randint(0, 10, (4,), **o),
    lambda **o: hal.randint(-3, 2**40, (4,), **o),
    lambda **o: hal.randperm(9, **o),
    lambda **o: hal.uniform((3, 2), -1, 1, **o),
]
IDS = ["rand", "randint", "wide randint", "randperm", "uniform"]


@pytest.mark.parametrize("draw", DRAWS, ids=IDS)
def test_the_same_seed_gives_the_same_numbers_on_every_device(draw: Callable[..., hal.Tensor]) -> None:
    drawn = []
    for device in ("cpu", "fake"):
        hal.manual_seed(7)
        drawn.append([draw(device=device).cpu().numpy().tobytes() for _ in range(3)])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3


def test_normal_numbers_differ_between_devices_by_roundings_only() -> None:
    drawn = []
    for device in ("cpu", "fake"):
        hal.manual_seed(7)
        drawn.append(hal.randn(100, device=device).cpu().numpy())
    np.testing.assert_allclose(*drawn, atol=3e-6)


@pytest.mark.parametrize("draw", [*DRAWS, lambda **o: hal.randn(3, **o)], ids=[*IDS, "randn"])
def test_a_generator_is_independent_of_the_global_one(draw: Callable[..., hal.Tensor]) -> None:
    first, second = hal.Generator().manual_seed(3), hal.Generator().manual_seed(3)
    hal.manual_seed(0)
    state = hal.get_rng_state()
    a = draw(generator=first)
    hal.rand(7)
    assert a.tolist() == draw(generator=second).tolist()
    assert a.tolist() != draw(generator=second).tolist()
    hal.set_rng_state(state)
    b = draw()
    hal.manual_seed(0)
    assert b.tolist() == draw().tolist()


def test_a_state_can_be_kept_and_restored() -> None:
    hal.manual_seed(2**63 + 5)
    hal.rand(11)
    state = hal.get_rng_state()
    assert (state.shape, state.dtype) == ((4,), hal.uint32)
    a = hal.rand(3)
    hal.set_rng_state(state)
    assert hal.rand(3).tolist() == a.tolist()
    assert hal.initial_seed() == 2**63 + 5
    generator = hal.Generator().set_state(state.to("fake"))
    assert hal.rand(3, generator=generator).tolist() == a.tolist()
    with pytest.raises(DTypeError, match="uint32"):
        generator.set_state(hal.zeros(4))
    with pytest.raises(ShapeError, match="shape"):
        generator.set_state(state[:2])


@pytest.mark.parametrize("size", [0, 1, 2, 7, 1000])
def test_the_counter_moves_by_what_the_elements_need(size: int) -> None:
    hal.manual_seed(1)
    before, after = next_state(size).tolist(), next_state(0).tolist()
    assert before[:2] == after[:2] == [1, 0]
    assert after[2] - before[2] == counters(size)
    assert hal.get_rng_state().tolist() == after


def test_the_counter_goes_beyond_32_bits() -> None:
    generator = hal.Generator().set_state(hal.tensor([5, 6, 2**32 - 1, 8], dtype=hal.uint32))
    assert next_state(1, generator=generator).tolist() == [5, 6, 2**32 - 1, 8]
    assert generator.get_state().tolist() == [5, 6, counters(1) - 1, 9]
    assert generator.initial_seed() == 5 + (6 << 32)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**64 - 1, -(2**63)])
def test_any_integer_of_64_bits_is_a_seed(seed: int) -> None:
    assert hal.manual_seed(seed).initial_seed() == seed % 2**64
    assert hal.rand(2).tolist() != hal.rand(2, generator=hal.Generator().manual_seed(seed ^ 1)).tolist()
    with pytest.raises(SettingError, match="64 bits"):
        hal.manual_seed(2**64)


def test_without_a_seed_every_process_draws_something_else() -> None:
    program = "import hal; print(hal.rand(2).tolist(), hal.initial_seed())"
    outputs = {subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(outputs) == 2
    assert hal.Generator().initial_seed() != hal.Generator().initial_seed()
    generator = hal.Generator()
    assert generator.seed() == generator.initial_seed()


def test_threads_draw_pieces_of_one_stream() -> None:
    hal.manual_seed(0)
    expected = {hal.rand(8).numpy().tobytes() for _ in range(80)}
    hal.manual_seed(0)
    drawn: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: drawn.extend(hal.rand(8).numpy().tobytes() for _ in range(20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(drawn) == expected


def test_where_numbers_are_drawn_and_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hal.rand(2, 3).shape == hal.rand((2, 3)).shape == hal.randn([2, 3]).shape == (2, 3)
    assert hal.rand(()).shape == ()
    assert str(hal.rand(2, device="fake").device) == "fake"
    assert str(hal.rand(2, generator=hal.Generator("fake")).device) == "fake"
    assert hal.randn(2, dtype=hal.float64).dtype is hal.float64
    assert hal.rand(2, requires_grad=True).is_leaf
    assert hal.randint(5, (3,)).dtype is hal.randperm(3).dtype is hal.int64
    assert hal.randint(5, (3,), dtype=hal.float32).dtype is hal.float32
    like = hal.zeros(2, 2, dtype=hal.float16, device="fake")
    for drawn in (hal.rand_like(like), hal.randn_like(like)):
        assert (drawn.shape, drawn.dtype, drawn.device) == (like.shape, like.dtype, like.device)
    assert hal.randint_like(hal.zeros(3, dtype=hal.int8), 5, 7).dtype is hal.int8
    drawn = hal.rand(3)
    drawn += 1.0  # what is drawn is the caller's to change
    monkeypatch.setenv("HAL_BACKEND", "fake")
    assert str(hal.rand(2).device) == "fake"


@pytest.mark.parametrize(
    ("draw", "mean", "std", "low", "high"),
    [
        (lambda n: hal.rand(n), 0.5, 12**-0.5, 0, 1),
        (lambda n: hal.uniform((n,), -1, 3), 1.0, 4 * 12**-0.5, -1, 3),
        (lambda n: hal.randn(n), 0.0, 1.0, -6, 6),
        (lambda n: hal.normal(2.0, 3.0, (n,)), 2.0, 3.0, -20, 20),
        (lambda n: hal.normal(hal.full((n,), 2.0), 3.0), 2.0, 3.0, -20, 20),
        (lambda n: hal.normal(hal.zeros(n), hal.full((n,), 3.0)), 0.0, 3.0, -20, 20),
        (lambda n: hal.randint(0, 4, (n,)).float(), 1.5, 1.25**0.5, 0, 4),
        (lambda n: hal.bernoulli(hal.full((n,), 0.25)), 0.25, 0.1875**0.5, 0, 1.1),
        (lambda n: hal.empty(n).uniform_(1, 2), 1.5, 12**-0.5, 1, 2),
        (lambda n: hal.empty(n).normal_(1, 2), 1.0, 2.0, -12, 12),
        (lambda n: hal.empty(n).bernoulli_(0.75), 0.75, 0.1875**0.5, 0, 1.1),
        (lambda n: hal.zeros(n, dtype=hal.int32).bernoulli_(0.5).float(), 0.5, 0.5, 0, 1.1),
        (lambda n: hal.empty(n).exponential_(2.0), 0.5, 0.5, 0, 20),
        (lambda n: hal.empty(n).random_(1, 5), 2.5, 1.25**0.5, 1, 5),
        (lambda n: hal.zeros(n, dtype=hal.uint8).random_(10).float(), 4.5, 8.25**0.5, 0, 10),
        (lambda n: hal.zeros(n, dtype=hal.int8).random_().float(), 63, 127 * 12**-0.5, 0, 127),
        (lambda n: hal.empty(n).random_() / 2**24, 0.5, 12**-0.5, 0, 1.1),
    ],
)
def test_mean_spread_and_bounds(
    draw: Callable[[int], hal.Tensor], mean: float, std: float, low: float, high: float
) -> None:
    hal.manual_seed(0)
    x = draw(20_000).numpy()
    error = 5 * std / 20_000**0.5
    assert abs(x.mean() - mean) < error
    assert abs(x.std() - std) < 3 * error
    assert low <= x.min()
    assert x.max() < high


def test_randperm_is_a_permutation_and_each_is_equally_likely() -> None:
    hal.manual_seed(0)
    assert sorted(hal.randperm(1000).tolist()) == list(range(1000))
    assert hal.randperm(0).tolist() == []
    assert hal.randperm(3, dtype=hal.int32).dtype is hal.int32
    counts = Counter(tuple(hal.randperm(3).tolist()) for _ in range(1200))
    assert len(counts) == 6
    assert max(abs(n - 200) for n in counts.values()) < 70  # five standard deviations


@pytest.mark.parametrize("replacement", [False, True])
def test_multinomial_draws_by_weight(replacement: bool) -> None:
    hal.manual_seed(0)
    weights = hal.tensor([0.0, 1.0, 3.0, 0.0])
    first = [hal.multinomial(weights, 1, replacement).item() for _ in range(400)]
    assert set(first) == {1, 2}
    assert abs(first.count(2) - 300) < 45
    rows = hal.multinomial(hal.tensor([[1, 1, 1, 1], [0, 0, 5, 0]]).expand(2, 4), 3, replacement=True)
    assert (rows.shape, rows.dtype) == ((2, 3), hal.int64)
    assert rows[1].tolist() == [2, 2, 2]
    every = hal.multinomial(hal.rand(50, 6), 6)
    assert all(sorted(row) == list(range(6)) for row in every.tolist())


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: hal.rand(-1), ShapeError, "0 or more"),
    (lambda: hal.rand(1.5), ShapeError, "whole numbers"),
    (lambda: hal.rand(2, dtype=hal.int32), DTypeError, "uniform"),
    (lambda: hal.randint(5), SettingError, "size"),
    (lambda: hal.randint(5, 5, (2,)), SettingError, "low < high"),
    (lambda: hal.normal(0.0, 1.0), SettingError, "size="),
    (lambda: hal.normal(0.0, -1.0, (2,)), SettingError, "std"),
    (lambda: hal.uniform((2,), 1, 0), SettingError, "low <= high"),
    (lambda: hal.multinomial(hal.ones(2), 3), ShapeError, "without replacement"),
    (lambda: hal.multinomial(hal.ones(1, 1, 2), 1), ShapeError, "a vector or a matrix"),
    (lambda: hal.zeros(2, dtype=hal.bool).random_(), SettingError, "bool"),
    (lambda: hal.zeros(2, dtype=hal.int64).normal_(), DTypeError, "normal"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_what_makes_no_sense_is_said(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
