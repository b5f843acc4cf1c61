"""The suite itself: what it runs, what it leaves out after a failure, what it excuses, and what it catches."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

import hal
from hal import dtypes, ops
from hal.device import Device
from hal.errors import ConfigError
from hal.op import Array, Op
from hal.plugin import Backend, Kernels, Spec
from hal.testing import suite
from hal.testing.calls import Call, check_call
from hal.testing.case import Case, Level, Outcome
from hal.testing.fake import Fake
from hal.testing.fake_memory import FakeBuffer
from hal.testing.inputs import looked_at
from hal.testing.report import Report


def run(backend: Backend, *levels: str, **chosen: Any) -> Report:
    """The suite on a backend that no plugin brings."""
    return suite.run(Device(backend), levels or None, in_process=True, **chosen)


def statuses(report: Report) -> set[str]:
    return {s for s, n in report.counts.items() if n}


# What is run.


def test_every_op_has_cases_in_every_dtype_that_its_samples_can_have() -> None:
    listed = suite.listed("cpu")
    covered = {(case.op, case.dtype) for name in ("primitives", "composites") for case in listed[name]}
    assert {op for op, _ in covered} == set(ops.TABLE)
    assert {("softmax", d.name) for d in dtypes.FLOATS} <= covered
    ids = [case.id for cases in listed.values() for case in cases]
    assert len(ids) == len(set(ids))


def test_functions_are_tried_on_every_float16_there_is() -> None:
    found = looked_at(dtypes.float16)
    numbers = found[~np.isnan(found)]
    assert found.size == 65_536
    assert np.unique(numbers.view(np.uint16)).size == 65_536 - 2 * 1023
    exponents = np.frexp(looked_at(dtypes.float32).astype(np.float64))[1]
    assert set(range(-148, 129)) <= set(exponents.tolist())


def test_two_lists_of_the_same_device_are_the_same() -> None:
    assert suite.listed("fake") == suite.listed("fake")


@pytest.mark.parametrize("chosen", [{"ops": ["exp"]}, {"cases": ["accuracy/exp/*"]}, {"cases": ["faults/many"]}])
def test_a_run_is_narrowed(chosen: dict[str, list[str]]) -> None:
    report = run(Fake(), **chosen)
    assert report.passed
    assert {r.op for r in report.results} == {"exp" if "faults" not in str(chosen) else ""}
    assert report.chosen == chosen


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"levels": ["primitves"]}, "there is no level 'primitves'.*did you mean primitives"),
        ({"ops": ["expp"]}, "no case of device fake fits .*expp"),
        ({"cases": ["primitives/exp/float32/999"]}, "no case of device fake fits"),
    ],
)
def test_a_run_of_nothing_is_a_mistake(chosen: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        suite.run("fake", chosen.pop("levels", None), in_process=True, **chosen)


def test_a_report_survives_json() -> None:
    report = run(Fake(), "basics", "primitives", "errors", ops=["add", "max", "sum", "sin"])
    text = report.to_json()
    again = Report.from_json(text)
    assert again.to_json() == text
    assert again.counts == report.counts
    whole = json.loads(text)
    assert whole["versions"]["hal"] == hal.__version__
    assert whole["certificate"][0]["source"]
    with pytest.raises(ValueError, match="no report of `hal conform --json`"):
        Report.from_json("{}")


# What is left out after a failure.


class NoDownload(Fake):
    """A device whose download gives zeros."""

    def download(self, buffer: FakeBuffer, spec: Spec) -> Array:
        return np.zeros_like(super().download(buffer, spec))


class NoHalves(Fake):
    """A device that loses what it is given in float16."""

    def download(self, buffer: FakeBuffer, spec: Spec) -> Array:
        array = super().download(buffer, spec)
        return array * 0 if spec.dtype is hal.float16 else array


def test_a_broken_download_is_one_failure() -> None:
    report = run(NoDownload())
    assert [r.id for r in report.failures] == ["basics/roundtrip"]
    left_out = {n.level: n.count for n in report.not_run}
    assert left_out["composites"] > 5000
    assert all("basics/roundtrip failed" in n.reason for n in report.not_run)
    assert report.counts["not run"] == sum(left_out.values())


def test_a_dtype_that_is_lost_on_the_way_is_not_tried_further() -> None:
    report = run(NoHalves(), "memory", "primitives", ops=[], cases=["memory/roundtrip/*", "primitives/add/*"])
    assert [r.id for r in report.failures] == ["memory/roundtrip/float16"]
    (left_out,) = report.not_run
    assert left_out.reason == "memory/roundtrip/float16 failed"
    assert {r.dtype for r in report.results if r.op == "add"} >= {"float32", "bfloat16", "int32"}
    assert not any(r.op == "add" and r.dtype == "float16" for r in report.results)


def test_a_level_that_cannot_list_its_cases_is_a_crash_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: Device) -> Iterable[Case]:
        raise RuntimeError("no cases today")

    def fine(device: Device) -> Iterable[Case]:
        yield Case("fine/one", lambda device: Outcome("native"))
        yield Case("fine/two", lambda device: 1 / 0)

    levels = [Level("broken", "fails", 1, broken), Level("fine", "passes", 2, fine)]
    monkeypatch.setattr("hal.testing.running.all_levels", lambda: levels)
    report = run(Fake())
    assert {r.id: r.status for r in report.results} == {
        "broken/list": "crash",
        "fine/one": "native",
        "fine/two": "crash",
    }
    assert "no cases today" in report.failures[0].outcome.detail
    assert "ZeroDivisionError" in report.failures[1].outcome.detail


# What is excused.


class WrongTanh(Fake):
    """A device whose tanh is a straight line."""

    def compute(self, op: Op, inputs: list[Array], settings: dict[str, Any], specs: tuple[Spec, ...]) -> Any:
        return (inputs[0],) if op.name == "tanh" else super().compute(op, inputs, settings, specs)


def test_a_known_failure_is_declined_with_its_reason() -> None:
    backend = WrongTanh()
    assert "wrong" in statuses(run(backend, "primitives", ops=["tanh"]))
    backend.known_failures = {"primitives/tanh/*": "the chip's table has two entries"}
    report = run(backend, "primitives", ops=["tanh"])
    assert report.passed
    excused = [r for r in report.results if r.known]
    assert excused
    assert all(r.status == "declined" and "two entries" in r.outcome.detail for r in excused)


def test_an_excuse_that_no_longer_holds_is_a_failure() -> None:
    backend = Fake()
    backend.known_failures = {"errors/backward-twice": "not written yet", "primitives/nothing/*": "a slip of the pen"}
    report = run(backend, "errors")
    (failure,) = report.failures
    assert failure.id == "known/errors/backward-twice"
    assert "passes" in failure.outcome.detail
    backend.known_failures = {"errors/backward-*": "not written yet"}
    assert run(backend, cases=["errors/inference-only"]).failures == []  # nothing is said of what was not run


# What it catches: the rest is in the planted faults.


def caught(backend: Backend, *cases: str) -> str:
    """The details of what fails."""
    return "\n".join(r.outcome.detail for r in run(backend, cases=list(cases)).failures)


class Undeclared(Fake):
    """A device that could do float64, and does not say so."""

    def upload(self, array: Array, device: Device) -> FakeBuffer:
        declared, self.dtypes = self.dtypes, frozenset(dtypes.ALL)
        try:
            return super().upload(array, device)
        finally:
            self.dtypes = declared


class Shy(Fake):
    """A device whose movement ops share memory, which it does not say."""

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], *rest: Any, **more: Any) -> Any:
        self.views = True
        try:
            return super().run(op, buffers, settings, *rest, **more)
        finally:
            self.views = False


def test_lies_are_failures_both_ways() -> None:
    assert "add it to `dtypes`" in caught(Undeclared(), "dtypes/undeclared/float64")
    assert "declares no views, yet its reshape shares memory" in caught(Shy(), "views/declared/reshape")
    for honest in (Fake(), Fake("honest", views=True)):
        assert not run(honest, cases=["dtypes/undeclared/*", "views/*"]).failures


class ChangesInputs(Fake):
    """A device whose negation is done in place."""

    def compute(self, op: Op, inputs: list[Array], settings: dict[str, Any], specs: tuple[Spec, ...]) -> Any:
        results = super().compute(op, inputs, settings, specs)
        if op.name == "neg" and inputs[0].size:
            inputs[0][...] = results[0]
        return results


def test_a_kernel_that_changes_its_input_is_caught() -> None:
    assert "input 0 was changed by the call" in caught(ChangesInputs(), "composites/neg/float32/*")


def test_a_fallback_is_no_native_case() -> None:
    backend = Fake("less", missing=["exp"])
    report = run(backend, "primitives", "buffers", "gradients", ops=["exp"])
    assert statuses(report) == {"fallback", "declined"}
    measured = [r for r in report.results if r.level == "primitives" and r.status == "fallback" and r.outcome.ulps]
    assert all(r.outcome.bytes > 0 and r.outcome.reason == "less has no kernel for exp" for r in measured)
    on_the_way = [r for r in report.results if r.level in ("buffers", "gradients")]
    assert on_the_way
    assert all(r.outcome.bytes > 0 and r.outcome.reason == "exp fell back" for r in on_the_way)


def test_what_a_device_declines_is_no_fallback() -> None:
    """Some samples of cast and normal have results in floating types that this device does not have."""
    few = {*dtypes.REAL} - {dtypes.float16, dtypes.bfloat16, dtypes.float64}
    report = run(Fake("mine", dtypes=few), "strides", "repeats", ops=["cast", "normal"])
    assert statuses(report) == {"native", "declined"}


def test_a_composition_may_be_off_by_what_its_parts_are() -> None:
    """log at its limit of 3 ulp gives a log10 that is beyond its own 3, and rightly so."""

    class RoughLog(Fake):
        def compute(self, op: Op, inputs: list[Array], settings: dict[str, Any], specs: tuple[Spec, ...]) -> Any:
            (result, *others) = super().compute(op, inputs, settings, specs)
            if op.name == "log" and result.dtype == np.float32:
                for _ in range(2):
                    result = np.nextafter(result, np.float32(np.inf))
            return (result, *others)

    x = np.random.default_rng(0).uniform(1.5, 9, 5000).astype(np.float32)
    primitives = [op.name for op in ops.TABLE.values() if op.is_primitive]
    rough = Device(RoughLog("rough", only=primitives))
    worst = check_call(rough, Call(ops.log10, (x,), {}))
    assert worst.status == "decomposed"
    assert worst.error > ops.log10.tolerance.float32
    assert worst.allowed > worst.error
    assert worst.source.endswith("and what its parts are allowed")
    native = Device(RoughLog("native"))
    assert check_call(native, Call(ops.log10, (x,), {})).allowed == ops.log10.tolerance.float32


def test_kernels_for_ops_that_do_not_exist_are_named() -> None:
    backend = Fake("stranger")
    table = Kernels()
    table.register(Op("conv7d", lambda x: x, lambda x: x, lambda rng: iter(())))(lambda x: x)
    backend.kernels = table
    assert "kernels for conv7d, which are no ops" in caught(backend, "basics/*")
