"""The whole conformance suite on OpenCL, in parts that can run side by side: `make conform`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hal.testing.levels import all_levels

ROOT = Path(__file__).parent.parent.parent
PATHS = os.pathsep.join(map(str, (ROOT, ROOT / "backends")))
LARGE = ("composites", "primitives")  # levels with thousands of cases, most of which compile a kernel of their own
PARTS = {
    "composites": ["composites/[!ab]*"],
    "composites, a and b": ["composites/[ab]*"],
    "primitives": ["primitives/*"],
    "all else": [f"{level.name}/*" for level in all_levels() if level.default and level.name not in LARGE],
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.conformance,
    pytest.mark.device("opencl"),
]


@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_wrong_and_nothing_falls_back(part: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "hal", "conform", "opencl", "--quiet", "--json", str(report)]
    for pattern in PARTS[part]:
        command += ["--case", pattern]
    environment = {**os.environ, "PYTHONPATH": PATHS}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    cases = json.loads(report.read_text())["cases"]
    found = [f"{case['id']}: {case['status']}" for case in cases]
    assert len(found) > 400
    assert not [text for text in found if not text.endswith((": native", ": decomposed", ": declined"))]
