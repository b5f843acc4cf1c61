"""OpenCL as a whole: it conforms, a network learns the digits as on the CPU, and Oclgrind finds nothing to report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATHS = os.pathsep.join(map(str, (ROOT, ROOT / "backends")))
HAL = [sys.executable, "-m", "hal"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("not __import__('hal').device_count('opencl')", reason="there is no OpenCL device"),
]


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": PATHS, "HAL_FALLBACK": "allow", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)


def test_it_conforms(tmp_path: Path) -> None:
    """What no other test here runs: the levels that are not about single ops, and one composite of each kind."""
    report = tmp_path / "report.json"
    levels = [
        "basics",
        "memory",
        "copies",
        "views",
        "random",
        "errors",
        "nn",
        "training",
        "threads",
        "limits",
        "faults",
    ]
    command = [*HAL, "conform", "opencl", "--quiet", "--json", str(report)]
    for level in levels:
        command += ["--level", level]
    done = run(command)
    assert done.returncode == 0, done.stdout
    outcomes = {case["status"] for case in json.loads(report.read_text())["cases"]}
    assert outcomes <= {"native", "decomposed", "declined"}, done.stdout


def test_digits_are_learned_as_on_the_cpu() -> None:
    curves = {}
    for device in ("cpu", "opencl"):
        done = run([*HAL, "train", "digits", "--epochs", "3", "--quiet", "--json", "--backend", device])
        assert done.returncode == 0, done.stderr
        curves[device] = json.loads(done.stdout.splitlines()[-1])
    assert curves["opencl"]["device"].startswith("opencl")
    np.testing.assert_allclose(curves["opencl"]["losses"], curves["cpu"]["losses"], rtol=1e-3)
    assert abs(curves["opencl"]["test_accuracy"] - curves["cpu"]["test_accuracy"]) < 0.01


def test_a_second_start_compiles_nothing(tmp_path: Path) -> None:
    code = (
        "import hal, nn; device = hal.device('opencl'); device.__enter__(); "
        "net = nn.Sequential(nn.Linear(8, 4), nn.ReLU()); net(hal.randn(3, 8)).sum().backward(); "
        "device.backend.synchronize(device); programs = device.backend.runtime.programs; "
        "print(programs.built, programs.loaded)"
    )
    counted = []
    for _ in range(2):
        built, loaded = map(int, run([sys.executable, "-c", code], HAL_CACHE_DIR=str(tmp_path)).stdout.split())
        kept = [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".so")]
        counted.append((built + loaded, loaded, {p: p.stat().st_mtime_ns for p in kept}))
    first, second = counted
    assert first[0] == second[0] > 0
    assert first[2] == second[2]
    assert len(first[2]) >= first[0]


def test_oclgrind_reports_nothing_of_any_op(tmp_path: Path) -> None:
    log = tmp_path / "oclgrind.log"
    done = run(
        [sys.executable, str(HERE / "opencl_cases.py")],
        HAL_OPENCL_DEVICES="oclgrind", OCLGRIND_DATA_RACES="1", OCLGRIND_UNINITIALIZED="1", OCLGRIND_LOG=str(log),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Oclgrind" in done.stdout
    assert not log.exists() or not log.read_text().strip(), log.read_text()[:2000]
