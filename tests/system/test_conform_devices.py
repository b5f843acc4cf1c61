"""Whole runs of the suite: what each device that is here must show."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from hal import ops
from hal.testing.report import Report, count
from hal.testing.suite import run

REGISTER = {"template": ["hal_template"], "primitive": ["hal_primitive"]}
FLOATS = ("float32", "float64", "float16", "bfloat16")
BROKEN = """from hal.testing.fake import Fake

class Broken(Fake):
    def compute(self, *given):
        return tuple(r[..., :0] for r in super().compute(*given))

def make():
    return Broken("mine")
"""
OPS = ("primitives", "composites", "accuracy", "strides")  # levels that say of an op how it ran


@cache
def report(device: str) -> Report:
    return run(device, register=REGISTER.get(device, []))


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "fake", "primitive", "template"])
def test_nothing_is_wrong_and_nothing_is_left_out(device: str) -> None:
    found = report(device)
    assert [f"{r.id}: {r.outcome.detail}" for r in found.failures] == []
    assert found.not_run == []
    assert len(found.by_level()) >= 20
    assert {r.op for r in found.results} >= set(ops.TABLE)


@pytest.mark.slow
def test_the_cpu_runs_every_op_itself_in_every_floating_dtype() -> None:
    found = report("cpu")
    assert {r.status for r in found.results if r.op} <= {"native", "decomposed", "declined"}
    told = {(r.op, r.dtype) for r in found.results if r.status in ("native", "decomposed")}
    drawn = {(r.op, r.dtype) for r in found.results if r.op and r.dtype in FLOATS}
    assert drawn <= told


@pytest.mark.slow
def test_a_device_with_the_primitives_falls_back_in_nothing() -> None:
    assert report("primitive").counts["fallback"] == 0
    native = {r.op for r in report("primitive").by_level()["primitives"] if r.status == "native"}
    assert native == {op.name for op in ops.TABLE.values() if op.is_primitive}


@pytest.mark.slow
def test_a_device_with_one_kernel_falls_back_in_all_else_and_trains() -> None:
    found = report("template")
    native = {r.op for r in found.results if r.level in OPS and r.status == "native"}
    assert native == {"matmul"}
    assert count(found.by_level()["training"])["fallback"] == len(found.by_level()["training"])
    assert sum(r.outcome.bytes for r in found.results) > 0


def test_the_pytest_plugin_imports_hal_for_no_one_else(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("import sys\n\ndef test_mine():\n    assert 'hal' not in sys.modules\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    shown = subprocess.run([*command, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120).stdout
    assert "--hal-device" in shown


@pytest.mark.slow
def test_a_device_is_tested_through_pytest_with_its_own_package(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "hal.testing"]
    command += ["--hal-device", "mine", "--hal-register", f"{tmp_path}/mine.py:make", "--hal-op", "max"]
    source = "from hal.testing.fake import Fake\n\ndef make():\n    return Fake('mine', missing={missing})\n"
    for missing in ([], ["max"]):
        (tmp_path / "mine.py").write_text(source.format(missing=missing))
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout
        assert " passed" in done.stdout
    (tmp_path / "mine.py").write_text(BROKEN)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout
    assert "FAILED" in done.stdout
    assert "primitives/max/float32/0" in done.stdout
