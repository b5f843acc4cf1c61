"""The benchmark runs and prints what it should; what it measures is for people to judge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "bench" / "run.py"


def bench(tmp_path: Path, *options: str) -> tuple[list[str], dict[str, Any]]:
    """The lines that a quick run prints, and what it writes."""
    command = [sys.executable, str(SCRIPT), "--quick", "--no-torch", "--json", str(tmp_path / "rows.json"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    found: dict[str, Any] = json.loads((tmp_path / "rows.json").read_text())
    return done.stdout.splitlines(), found


def check(lines: list[str], found: dict[str, Any]) -> None:
    title, *rest = lines
    assert title.split() == ["hal", "numpy", "torch"]
    end = title.index("hal") + 3
    assert len(rest) == len(found["rows"])
    for line, row in zip(rest, found["rows"], strict=True):
        assert row["medians"]["hal"] > 0
        assert line.startswith(row["name"])
        assert line[end - 1].isdigit(), line  # right under the title
        assert line[end : end + 1] in ("", " "), line
        assert "torch" not in row["medians"]
    assert {"versions", "platform", "cpus", "date"} <= found["machine"].keys()


def test_overhead_is_measured_beside_numpy(tmp_path: Path) -> None:
    lines, found = bench(tmp_path, "--only", "overhead")
    check(lines, found)
    assert {"hal", "numpy"} <= found["rows"][0]["medians"].keys()
    assert found["rows"][0]["ratios"]["numpy"] > 0


@pytest.mark.slow
def test_everything_is_measured(tmp_path: Path) -> None:
    lines, found = bench(tmp_path)
    check(lines, found)
    names = {row["name"] for row in found["rows"]}
    assert {"import", "import hal, 20 plugins installed", "hal train digits", "LeNet-5, Adam, batch 64"} <= names
    units = {row["unit"] for row in found["rows"]}
    assert units == {"µs", "ms", "images/s", "MiB"}


def test_a_group_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--only", "foo"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'foo'" in done.stderr
