"""Random programs beside the float64 references, on sound devices and on broken ones, where they must find the fault.

hypothesis draws a program as numbers, one for each step, and leaves out those that it can when the program fails.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import hal
from hal import dtypes, ops
from hal.device import Device
from hal.op import Op
from hal.plugin import Backend
from hal.testing import suite
from hal.testing.fake import Fake
from hal.testing.faults import all_faults
from hal.testing.faults.fault import Miscomputing
from hal.testing.programs import Program, Refused, smallest
from hal.testing.random_programs import LONGEST, grown, random_program

PRIMITIVE = Path(__file__).parents[2] / "plugins/primitive/hal_primitive/__init__.py"
NUMBERS = st.integers(2, 1 + LONGEST).flatmap(lambda n: st.lists(st.integers(0, 2**32 - 1), min_size=n, max_size=n))


def draws(count: int) -> settings:
    """So many programs, the same ones in each run, however slow the machine."""
    return settings(
        max_examples=count, derandomize=True, database=None, deadline=None,
        phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def primitive() -> Backend:
    spec = importlib.util.spec_from_file_location("hal_primitive_here", PRIMITIVE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Backend = module.Primitive()
    return found


DEVICES: dict[str, Callable[[], Device]] = {
    "cpu": lambda: Device("cpu"),
    "fake": lambda: Device(Fake("fake", dtypes=dtypes.ALL, views=True, out=True)),
    "later": lambda: Device(Fake("later", dtypes=dtypes.ALL, views=True, asynchronous=True)),
    "primitive": lambda: Device(primitive()),
}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Device:
    return DEVICES[request.param]()


def agrees(device: Device, numbers: list[int]) -> None:
    program = grown(numbers, device)
    wrong = program.difference(device)
    if wrong:
        least = smallest(program, lambda p: p.difference(device))
        pytest.fail(f"{least.difference(device)}\n{least.code(device)}", pytrace=False)


def test_programs_agree_with_the_references(device: Device) -> None:
    draws(20)(given(NUMBERS)(lambda numbers: agrees(device, numbers)))()


@pytest.mark.slow
def test_many_programs_agree_with_the_references(device: Device) -> None:
    draws(300)(given(NUMBERS)(lambda numbers: agrees(device, numbers)))()


def test_programs_are_of_all_sorts() -> None:
    """Long ones too, on views and in several dtypes, with every op that is not random or a constant."""
    found = [random_program(seed, Device("cpu")) for seed in range(60)]
    assert all(len(p.steps) >= LONGEST - 2 for p in found)
    called = {step.op for p in found for step in p.steps}
    able = {op for op in ops.TABLE.values() if op.kind not in ("random", "creation") and not op.host_only}
    assert called <= able
    assert len(called) > len(able) / 2
    assert {op.name for op in called} >= {"slice", "permute", "broadcast_to", "reshape", "sum", "matmul"}
    assert any(-1 in step.settings.get("step", ()) for p in found for step in p.steps)
    assert {v.spec.dtype for p in found for v in p.values.values()} >= {*dtypes.FLOATS, hal.int64, hal.bool}
    assert any(0 in v.spec.shape for p in found for v in p.values.values())


# That they can fail.

FAULTS = ("exclusive-scan", "off-by-one-stride")
MORE = ("strides-ignored", "input-overwritten", "stream-ignored", "scalars-of-one-axis", "half-accumulation")


@pytest.mark.parametrize("name", [*FAULTS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_a_planted_fault_is_found_and_cut_down(name: str) -> None:
    """By hypothesis, which leaves out numbers, and then by leaving out steps: one to three are left, and they run."""
    device = Device(all_faults()[name].make())
    found: list[Program] = []

    @draws(2000)  # it ends with the first one found
    @given(NUMBERS)
    def no_program_fails(numbers: list[int]) -> None:
        program = grown(numbers, device)
        if program.difference(device):
            found.append(program)
            raise AssertionError(program.difference(device))

    with pytest.raises(AssertionError, match=r"is off by|contents of shape"):
        no_program_fails()
    least = smallest(found[-1], lambda p: p.difference(device))
    assert 1 <= len(least.steps) <= 3
    assert least.difference(device)
    assert not least.difference(Device("cpu"))


def test_a_failing_program_is_printed_as_code_that_shows_it() -> None:
    broken = Miscomputing("broken", "cumsum", lambda y, x, **_: y + 1)
    report = suite.run(Device(broken), cases=["programs/?"], in_process=True)
    failures = [r for r in report.results if r.status == "wrong"]
    assert failures
    (problem, *_), code = failures[0].outcome.detail.splitlines(), failures[0].outcome.detail.split("\n", 1)[1]
    assert "is off by" in problem
    assert code.count("ops.") == 1
    (name, *_), here, there = problem.split(), dict[str, Any](), dict[str, Any]()
    with broken.registered():
        exec(code, there)
    exec(code.replace('device="broken"', 'device="cpu"'), here)
    assert str(there[name].device) == "broken"
    np.testing.assert_allclose(there[name].cpu().double(), here[name].double() + 1, rtol=0.02)


def test_a_crash_is_a_difference() -> None:
    device = Device(Fake("lost", fail_after=20))
    assert any("DeviceError" in random_program(seed, device).difference(device) for seed in range(3))


# What a program may not hang on.


@pytest.mark.parametrize(
    ("op", "arrays", "kept"),
    [
        (ops.floor, [[0.5, 1.7]], True),
        (ops.less, [[1.0], [2.0]], True),
        (ops.div, [[1.0], [3.0]], True),
        (ops.floor, [[2.0 + 1e-7]], False),
        (ops.less, [[1.0], [1.0 + 1e-7]], False),
        (ops.argmax, [[1.0, 1.0 + 1e-7]], False),
        (ops.log, [[-1.0]], False),
        (ops.exp, [[90.0]], False),
    ],
)
def test_rounding_decides_nothing(op: Op, arrays: list[list[float]], kept: bool) -> None:
    """Operands that have been rounded: doubled and halved again by way of a third."""
    program = Program(Device("cpu"))
    names = [program.give(np.array(a, np.float32)) for a in arrays]
    for i, name in enumerate(names):
        program.add(ops.mul, (name, np.array(3, np.float32)), {})
        program.add(ops.div, (program.steps[-1].results[0], np.array(3, np.float32)), {})
        names[i] = program.steps[-1].results[0]
    if kept:
        program.add(op, names, {})
        return
    with pytest.raises(Refused):
        program.add(op, names, {})


def test_errors_grow_as_they_would_on_a_device() -> None:
    """What is left after a cancellation may be off by the rounding of what cancelled."""
    program = Program(Device("cpu"))
    x = program.give(np.array([90.0, 2.0], np.float32))
    program.add(ops.sqrt, (x,), {}, ("x1",))
    program.add(ops.square, ("x1",), {}, ("x2",))
    assert program.values[x].allowed == 0
    assert 1e-5 < program.values["x2"].allowed < 1e-2
    program.add(ops.mul, ("x2", 10.0), {}, ("x3",))
    assert program.values["x3"].allowed == pytest.approx(10 * program.values["x2"].allowed, rel=0.5)
    assert not program.difference(Device("cpu"))
    wrong = program.values["x2"].exact + 2 * program.values["x2"].allowed
    assert "is off by" in program.values["x2"].difference(program.values["x2"].spec, wrong)
