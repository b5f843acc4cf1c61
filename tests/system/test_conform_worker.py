"""Workers: a device that ends, hangs, or talks costs the case at hand, and the run goes on."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

import pytest

from hal.errors import ConfigError, DeviceError, PluginError
from hal.testing import suite
from hal.testing.report import Report

DEVICE = """
    import os, signal, sys, time
    from hal.testing.fake import Fake

    class Rough(Fake):
        def __init__(self):
            super().__init__("rough")

        def compute(self, op, inputs, settings, specs):
            {body}
            return super().compute(op, inputs, settings, specs)
"""


def rough(folder: Path, body: str) -> str:
    """A file with a device that does something of its own in every kernel, and what registers it."""
    path = folder / "rough.py"
    path.write_text(textwrap.dedent(DEVICE).replace("{body}", body))
    return f"{path}:Rough"


def run(folder: Path, body: str, *cases: str, timeout: float = 60) -> Report:
    return suite.run("rough", cases=cases, register=[rough(folder, body)], timeout=timeout)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("op.name == 'exp' and inputs[0].shape == (5,) and os.abort()", "died of SIGABRT"),
        ("op.name == 'exp' and inputs[0].shape == (5,) and os.kill(os.getpid(), signal.SIGSEGV)", "died of SIGSEGV"),
        ("op.name == 'exp' and inputs[0].shape == (5,) and os._exit(3)", "exited with status 3"),
    ],
)
def test_a_device_that_ends_its_process_is_a_crash_with_its_op(tmp_path: Path, body: str, told: str) -> None:
    report = run(tmp_path, body, "primitives/exp/float32/*", "primitives/floor/float32/*", "errors/*")
    (crash,) = report.failures
    assert (crash.status, crash.op, crash.dtype) == ("crash", "exp", "float32")
    assert told in crash.outcome.detail
    assert report.counts["native"] > 20
    assert {r.level for r in report.results} == {"primitives", "errors"}
    assert f"--register {tmp_path}/rough.py:Rough --case '{crash.id}'" in report.rerun(crash)


def test_what_a_dying_device_said_is_kept(tmp_path: Path) -> None:
    body = "op.name == 'exp' and (print('the fan stopped'), sys.stdout.flush(), os.abort())"
    report = run(tmp_path, body, "primitives/exp/float32/0")
    assert "the fan stopped" in report.failures[0].outcome.detail


def test_a_device_that_hangs_is_ended(tmp_path: Path) -> None:
    start = time.monotonic()
    body = "op.name == 'exp' and inputs[0].shape == () and time.sleep(600)"
    report = run(tmp_path, body, "primitives/exp/float32/*", timeout=2)
    assert time.monotonic() - start < 60
    (crash,) = report.failures
    assert crash.outcome.detail == "gave no answer for 2 seconds, and was ended"
    assert report.counts["native"] > 3


def test_a_device_that_prints_disturbs_nothing(tmp_path: Path) -> None:
    report = run(tmp_path, "print('working on', op.name)", "primitives/exp/float32/*")
    assert report.passed


def test_a_device_that_always_dies_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "DEATHS", 2)
    report = run(tmp_path, "os._exit(1)", "primitives/exp/float32/*")
    assert report.counts["crash"] == 2
    (left_out,) = report.not_run
    assert left_out.reason == "2 workers died in this level"
    assert left_out.count + 2 == 8


@pytest.mark.slow
def test_both_ways_of_running_agree() -> None:
    reports = [suite.run("fake", ops=["exp", "max"], in_process=here) for here in (True, False)]
    assert reports[0].counts == reports[1].counts
    assert [r.id for r in reports[0].results] == [r.id for r in reports[1].results]
    assert [r.outcome.error for r in reports[0].results] == [r.outcome.error for r in reports[1].results]


@pytest.mark.parametrize(
    ("device", "register", "error", "message"),
    [
        ("nochip", [], DeviceError, "there is no backend 'nochip'"),
        ("nochip", ["nomodule:Thing"], PluginError, "cannot register 'nomodule:Thing'.*module:attribute"),
        ("nochip", ["hal.testing.fake:Nothing"], PluginError, "cannot register 'hal.testing.fake:Nothing'"),
    ],
)
def test_a_device_that_is_not_there(device: str, register: list[str], error: type[Exception], message: str) -> None:
    for in_process in (True, False):
        with pytest.raises(error, match=message):
            suite.run(device, register=register, in_process=in_process)


def test_a_device_that_dies_while_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "rough.py"
    path.write_text("import os\nos._exit(7)\n")
    with pytest.raises(ConfigError, match="device rough cannot be opened: the process exited with status 7"):
        suite.run("rough", register=[str(path)])
