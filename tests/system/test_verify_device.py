"""The report on a device: parts that fail lose nothing of the others, and runs are joined."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "verify_device.sh"
sys.path.insert(0, str(ROOT / "tests" / "bench"))


def verify(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run([str(SCRIPT), *words], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_part_is_measured_and_told(tmp_path: Path) -> None:
    done = verify("cpu", "--quick", "--part", "memory", "--threads", "1", "--commit", "abc123", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (data,), (shown,) = tmp_path.glob("cpu-*-quick.json"), tmp_path.glob("cpu-*-quick.html")
    report = json.loads(data.read_text())
    (row,) = report["parts"]["memory"]["rows"]
    assert row["times"]["hal"] > 0
    assert report["commit"] == "abc123"
    assert "abc123" in shown.read_text()
    assert verify("--join", str(data), str(data), "--out", str(tmp_path / "both")).returncode == 0


@pytest.mark.slow
def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = verify("cpuu", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "there is no device cpuu" in done.stderr
    assert not list(tmp_path.iterdir())


class Sum:
    """A contender that adds up an array, or fails in one of the ways that libraries have."""

    def __init__(self, name: str, fault: Callable[[Any], Any] = lambda x: x) -> None:
        self.name, self.fault = name, fault

    def wait(self) -> None:
        """Nothing is queued."""

    def array(self, result: Any) -> Any:
        return np.asarray(result)


def test_who_fails_or_differs_is_told_of_and_the_others_are_timed() -> None:
    from verify_measure import Row, measured

    def broken(x: Any) -> Any:
        raise MemoryError("no room")

    peers: Any = [Sum("hal"), Sum("wrong", lambda x: x + 1), Sum("broken", broken), Sum("gone"), Sum("good")]
    row = Row("sum", lambda peer: lambda: peer.fault(np.arange(9.0).sum()))
    found = measured(row, peers, 0.01, 100, lambda row, name: name != "gone")
    assert list(found.times) == ["hal", "good"]
    assert found.errors.keys() == {"wrong", "broken", "gone"}
    assert "differs from that of hal by 0.028" in found.errors["wrong"]
    assert found.rounds >= 3


def test_goals_are_met_by_the_plan_where_there_is_one_and_names_are_escaped() -> None:
    from verify_page import page

    times = {"hal": 2.0, "hal.compile": 1.0, "torch": 0.96}
    row = {"name": "a <b>", "times": times, "errors": {}, "work": 1e12, "rate": "TFLOP/s", "goal": ["torch", 0.95]}
    part = {"status": "passed", "seconds": 1.0, "rows": [row, row | {"goal": ["torch", 0.97]}]}
    report = dict.fromkeys(("gpu", "host", "date", "commit", "command"), "") | {
        "device": "cuda", "description": {}, "versions": {}, "changed": False, "quick": False,
        "parts": {"matmul": part},
    }  # fmt: skip
    text = page(report)
    assert "2 rows, 1 of 2 goals met" in text
    assert "a &lt;b&gt;" in text
    assert "<b>" not in text
    assert "1 TFLOP/s" in text
