"""Random numbers: the same seed gives the same numbers on this device as on an exact one, draw after draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

import hal
from hal import dtypes, ops
from hal.device import Device
from hal.dtypes import DType
from hal.op import Array
from hal.policy import fallback
from hal.random import Generator, next_state
from hal.tensor import Tensor
from hal.testing.accuracy import unit_roundoff
from hal.testing.calls import FLOATS, fetch, roundtrip_of
from hal.testing.case import Case, Level
from hal.testing.checks import Declined, case, exact_device, same_bits, some_float

Draw = Callable[[Device, Generator, DType], Tensor]
SEEDS = (0, 1, -1, 2**63 - 1, 123456789012345)
NORMAL = 64  # roundings that normal numbers, which pass through log, sqrt and cos, may be off by

DRAWS: dict[str, Draw] = {
    "rand": lambda device, g, dtype: hal.rand((3, 33), dtype=dtype, device=device, generator=g),
    "uniform": lambda device, g, dtype: hal.uniform((71,), -3.0, 5.0, dtype=dtype, device=device, generator=g),
    "randn": lambda device, g, dtype: hal.randn((4, 50), dtype=dtype, device=device, generator=g),
    "randint": lambda device, g, dtype: hal.randint(-5, 1000, (100,), dtype=dtype, device=device, generator=g),
    "randperm": lambda device, g, dtype: hal.randperm(97, device=device, generator=g),
    "bernoulli": lambda device, g, dtype: hal.bernoulli(
        hal.full((200,), 0.3, dtype=dtype, device=device), generator=g
    ),
    "dropout": lambda device, g, dtype: ops.dropout(
        hal.ones((20, 20), dtype=dtype, device=device), next_state(400, device, g), p=0.25
    ),
}  # fmt: skip
INTEGERS = {"randint": dtypes.int32, "randperm": dtypes.int64}


def _same(name: str, draw: Draw, dtype: DType) -> Case:
    def check(device: Device) -> str:
        _has_words(device)
        for seed in SEEDS:
            here, there = Generator().manual_seed(seed), Generator().manual_seed(seed)
            for turn in range(3):
                with fallback("allow"):
                    got, want = fetch(draw(device, here, dtype)), fetch(draw(exact_device(), there, dtype))
                what = f"draw {turn} of seed {seed}"
                problem = _near(what, got, want, dtype) if name == "randn" else same_bits(what, got, want)
                if problem:
                    return problem
        return ""

    op = {"rand": "uniform", "randn": "normal", "randperm": ""}.get(name, name)
    return case(f"random/{name}/{dtype.name}", check, op=op, dtype=dtype.name, needs=(roundtrip_of(dtype),))


def _has_words(device: Device) -> None:
    if dtypes.uint32 not in device.backend.dtypes:
        raise Declined(f"{device.type} declares no uint32, of which the state of a generator is made")


def _near(what: str, got: Array, want: Array, dtype: DType) -> str:
    if got.dtype != want.dtype or got.shape != want.shape:
        return same_bits(what, got, want)
    error = np.abs(got.astype(np.float64) - want.astype(np.float64))
    far = error > NORMAL * unit_roundoff(dtype) * np.maximum(1, np.abs(want.astype(np.float64)))
    return f"{what}: {same_bits('too far from the reference', got, want)}" if far.any() else ""


def _bits(device: Device) -> str:
    """Words in one piece are the words in parts, the counter's overflow included."""
    _has_words(device)
    for counter in ((0, 0), (2**32 - 3, 7), (2**32 - 1, 2**32 - 1)):
        state = hal.tensor(np.array([1, 2, *counter], np.uint32), device=device)
        with fallback("allow"):
            whole = fetch(ops.random_bits(state, shape=(65,)))
            for n in (0, 1, 2, 7, 64):
                part = fetch(ops.random_bits(state, shape=(n,)))
                if part.tobytes() != whole[:n].tobytes():
                    return f"the first {n} words at counter {counter} are not the first of 65"
    return ""


def _seeded(device: Device) -> str:
    _has_words(device)
    dtype = some_float(device)
    with fallback("allow"):
        hal.manual_seed(5)
        first, second = (fetch(hal.rand(40, dtype=dtype, device=device)) for _ in range(2))
        hal.manual_seed(5)
        again = fetch(hal.rand(40, dtype=dtype, device=device))
    if (first == second).all():
        return "two draws in a row gave the same numbers"
    problem = same_bits("the same seed gave other numbers", again, first)
    if not problem and not ((first >= 0) & (first < 1)).all():
        return f"hal.rand gave {first.min()} and {first.max()}, which are not all in [0, 1)"
    return problem


def _in_place(device: Device) -> str:
    _has_words(device)
    dtype = some_float(device)
    with fallback("allow"):
        x, y = hal.zeros(50, dtype=dtype, device=device), hal.zeros(50, dtype=dtype, device=exact_device())
        hal.manual_seed(3)
        x.uniform_(-1, 1)
        hal.manual_seed(3)
        y.uniform_(-1, 1)
        return same_bits("x.uniform_() of the same seed", fetch(x), fetch(y))


def cases(device: Device) -> Iterator[Case]:
    """Every way to draw, in each dtype of the device, then streams and seeds."""
    for name, draw in DRAWS.items():
        for dtype in [INTEGERS[name]] if name in INTEGERS else FLOATS:
            if dtype in device.backend.dtypes:
                yield _same(name, draw, dtype)
    yield case("random/bits", _bits, op="random_bits", dtype="uint32")
    yield case("random/seeded", _seeded)
    yield case("random/in-place", _in_place)


LEVEL = Level("random", "the same seed gives the same numbers as everywhere, draw after draw", 80, cases)
