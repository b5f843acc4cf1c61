"""Oclgrind watches every memory access of small cases: none lies outside, races, or reads what was never written.

Each case runs in a process of its own: Oclgrind is told what to look for by its environment, and leaves its findings
in a file while the process ends well.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_opencl_cases import CASES

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WITH_SHAPES = [(case, shape) for case in CASES for shape in ("tiles", "panels") if not case.startswith("group")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "shape"), [*WITH_SHAPES, *((c, "as they are") for c in CASES if c.startswith("group"))]
)
def test_no_access_is_reported(case: str, shape: str, tmp_path: Path) -> None:
    log = tmp_path / "oclgrind.log"
    environment = {
        **os.environ,
        "HAL_OPENCL_DEVICES": "oclgrind",
        "OCLGRIND_DATA_RACES": "1",
        "OCLGRIND_UNINITIALIZED": "1",
        "OCLGRIND_LOG": str(log),
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends"))),
    }
    command = [sys.executable, str(HERE / "small_opencl_cases.py"), case, shape]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Oclgrind" in done.stdout
    assert not log.exists() or log.read_text() == ""
