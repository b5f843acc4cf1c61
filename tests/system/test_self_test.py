"""The conformance suite is itself tested: planted faults are caught and named, and sound devices are left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from hal import dtypes
from hal.errors import ConfigError
from hal.testing import self_test as module
from hal.testing.fake import Fake
from hal.testing.faults import TWINS, Fault, all_faults
from hal.testing.faults.fault import Miscomputing
from hal.testing.self_test import find, self_test

QUICK = (  # one of each kind of fault; the slow test has all of them
    "nan-dropping-maximum", "padding-on-one-side", "result-used-again", "writes-beyond", "off-by-one-stride",
    "undeclared-dtype", "stream-ignored", "gradient-doubled", "leak", "dies-in-tanh",
)  # fmt: skip


def planted(name: str) -> Fault:
    return all_faults()[name]


def test_faults_of_each_kind_are_caught_and_named() -> None:
    result = self_test(QUICK)
    assert [f.fault.name for f in result.found if not f.caught] == []
    assert result.alarms == []
    assert result.passed
    assert result.rate == 1


@pytest.mark.slow
def test_every_planted_fault_is_caught_and_named() -> None:
    result = self_test()
    assert len(result.found) >= 30
    assert [f.fault.name for f in result.found if not f.caught] == []
    assert result.alarms == []
    assert result.passed


def test_a_fault_that_no_case_sees_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four: a device that is right, and one that is wrong where the expected case does not look."""
    unseen = Fault("right", "Nothing.", lambda: Fake("right", dtypes=dtypes.ALL), "primitives/exp/*")
    elsewhere = Fault(
        "elsewhere", "log is wrong.", lambda: Miscomputing("elsewhere", "log", lambda y, x: y + y), "primitives/exp/*"
    )
    chosen = [unseen, elsewhere, planted("infinity-lost"), replace(planted("nan-dropping-maximum"), says="")]
    monkeypatch.setattr(module, "all_faults", lambda: {f.name: f for f in chosen})
    result = self_test()
    assert [f.fault.name for f in result.found if f.caught] == ["infinity-lost", "nan-dropping-maximum"]
    assert result.rate == 0.5
    assert not result.passed


def test_a_failure_that_says_something_else_does_not_name_the_fault() -> None:
    fault = planted("input-overwritten")
    assert find(fault).caught
    assert not find(replace(fault, says="the result has a wrong dtype")).caught


def test_a_complaint_about_a_sound_device_fails_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TWINS, "plain", lambda: Miscomputing("plain", "maximum", lambda y, a, b: np.fmax(a, b)))
    result = self_test(["nan-dropping-maximum"])
    assert result.rate == 1
    assert {device for device, *_ in result.alarms} == {"plain"}
    assert all("/maximum/" in case for _, case, _ in result.alarms)
    assert not result.passed


def test_a_pattern_that_fits_no_case_is_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = replace(planted("infinity-lost"), caught="primitives/no-such-op/*")
    monkeypatch.setattr(module, "all_faults", lambda: {lost.name: lost})
    result = self_test()
    assert not result.passed
    assert "no case of a sound device" in result.alarms[0][2]


def test_planted_ops_are_gone_afterwards() -> None:
    from hal import ops

    before = dict(ops.TABLE)
    self_test(["gradients-exchanged"])
    assert before == ops.TABLE
    assert not hasattr(ops, "planted_sum")


def test_an_unknown_fault_is_named_with_its_neighbours() -> None:
    with pytest.raises(ConfigError, match="no planted fault 'leek'; did you mean leak"):
        self_test(["leek"])


def test_each_fault_says_what_is_wrong_and_shares_no_name() -> None:
    faults = all_faults()
    assert len(faults) >= 30
    for fault in faults.values():
        assert fault.doc.endswith("."), fault.name
        assert fault.twin in TWINS, fault.name
        assert fault.make is not None
        assert fault.own_process or fault.make().name == fault.name
        assert {op.name for op in fault.added} == {op.name for op in fault.sound}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hal", "conform", "--self-test", *arguments],
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_the_kill_rate() -> None:
    done = command("--fault", "nan-equals-nan", "--fault", "live-download")
    assert done.returncode == 0, done.stderr
    assert "kill rate: 100 % (2 of 2 planted faults caught and named)" in done.stdout
    assert "no false alarms" in done.stdout


def test_the_command_writes_json(tmp_path: os.PathLike[str]) -> None:
    target = os.path.join(tmp_path, "self-test.json")
    done = command("--fault", "nan-equals-nan", "--json", target)
    assert done.returncode == 0, done.stderr
    with open(target, encoding="utf-8") as file:
        whole = json.load(file)
    assert whole["passed"] is True
    assert (whole["kill rate"], whole["planted"], whole["caught"]) == (1.0, 1, 1)
    assert whole["faults"][0]["name"] == "nan-equals-nan"
    assert whole["faults"][0]["by"]
