"""Compiled = eager, bit for bit, on random programs: all results, the last ones alone, and in blocks of the cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

import hal
import hal_cpu.fusion
from hal.errors import HalError
from hal.testing.calls import fetch
from hal.testing.programs import Program
from hal.testing.random_programs import random_program


def check(seeds: Iterator[int], monkeypatch: pytest.MonkeyPatch) -> int:
    """Compare; gives how many steps there were."""
    device = hal.device("cpu")
    steps = 0
    for seed in seeds:
        program = random_program(seed, device)
        if not program.steps:
            continue
        steps += len(program.steps)
        inputs = {name: hal.tensor(x, device=device) for name, x in program.inputs.items()}
        last = program.steps[-1].results
        with hal.no_grad():
            want = {name: fetch(x) for name, x in program.run(inputs).items()}
            for worth in (1 << 17, 1) if seed % 4 == 0 else (1,):
                monkeypatch.setattr(hal_cpu.fusion, "WORTH", worth)
                whole = hal.compile(program.run, exact=True)
                end = hal.compile(lambda x, run=program.run, last=last: {k: run(x)[k] for k in last}, exact=True)
                for _ in range(2):
                    for got in (whole(inputs), end(inputs)):
                        for name, x in got.items():
                            assert x.dtype.numpy == want[name].dtype
                            assert fetch(x).tobytes() == want[name].tobytes(), (
                                f"program {seed}, {name}: {fetch(x)} is not {want[name]}\n{end.plans[0].graph}"
                            )
                rounding = hal.compile(program.run)(inputs)
            for name, value in program.values.items():
                if not value.difference(rounding[name].spec, want[name]):  # as accurate as eager
                    assert not value.difference(rounding[name].spec, fetch(rounding[name]))
            assert all(np.array_equal(fetch(x), program.inputs[name]) for name, x in inputs.items())
    return steps


def test_random_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(iter(range(15)), monkeypatch) > 100


@pytest.mark.slow
def test_a_thousand_random_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    check(iter(range(100, 1100)), monkeypatch)


def check_split(seeds: Iterator[int]) -> int:
    """Compare programs that look at their results; gives how many ways there were besides the first ones."""
    device = hal.device("cpu")
    ways = 0
    for seed in seeds:
        program = random_program(seed, device)

        def looking(inputs: dict[str, hal.Tensor], program: Program = program) -> tuple[dict[str, hal.Tensor], float]:
            found: dict[str, hal.Tensor] = {}
            numbers = 0.0
            for name, x in program.run(inputs).items():
                if not x.dtype.is_floating or x.spec.size == 0:
                    found[name] = x
                elif x.float().sum() > 0:
                    found[name] = x * 2
                else:
                    n = x.float().mean().item()
                    numbers = numbers + n * 0.5
                    found[name] = x - n
            return found, numbers

        plain = {name: hal.tensor(x, device=device) for name, x in program.inputs.items()}
        turned = {name: -x if x.dtype.is_floating else x for name, x in plain.items()}
        with hal.no_grad():
            compiled = hal.compile(looking, split=True, exact=True)
            wanted = [(plain, looking(plain))]
            with suppress(HalError):  # some ops do not take all numbers
                wanted.append((turned, looking(turned)))
            for inputs, (want, others) in (*wanted, *wanted):
                got, numbers = compiled(inputs)
                assert repr(numbers) == repr(others)
                for name, x in got.items():
                    assert x.dtype is want[name].dtype
                    assert fetch(x).tobytes() == fetch(want[name]).tobytes(), f"program {seed}, {name}"
        assert compiled.counters.eager == 0
        ways += compiled.counters.ways
    return ways


def test_random_programs_that_are_split() -> None:
    assert check_split(iter(range(6))) > 2


@pytest.mark.slow
def test_many_random_programs_that_are_split() -> None:
    check_split(iter(range(100, 180)))
