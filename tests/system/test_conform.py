"""`hal conform` and the pytest plugin: both doors to the suite, from any folder, with what each device should show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"


def run(*args: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(PLUGINS / p) for p in ("template", "primitive"))
    env = {**os.environ, "PYTHONPATH": path, **variables}
    return subprocess.run(
        [sys.executable, "-m", *args], cwd=folder, env=env, capture_output=True, text=True, timeout=900
    )


def test_some_ops_of_the_cpu(tmp_path: Path) -> None:
    done = run("hal", "conform", "cpu", "--op", "exp", "--op", "softmax", "--json", "r.json", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cpu conforms:" in done.stdout
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["counts"]["wrong"] == report["counts"]["crash"] == report["counts"]["fallback"] == 0
    assert {case["op"] for case in report["cases"] if "op" in case} == {"exp", "softmax"}
    exp = next(e for e in report["certificate"] if (e["op"], e["dtype"]) == ("exp", "float32"))
    assert 0 < exp["error"] <= exp["allowed"] == 3
    assert exp["source"].startswith("OpenCL")
    assert exp["bits"]


@pytest.mark.slow
def test_a_single_case_runs_again_by_its_id(tmp_path: Path) -> None:
    listed = run("hal", "conform", "cpu", "--list", folder=tmp_path).stdout.splitlines()
    assert len(listed) > 10_000
    case = next(line for line in listed if line.startswith("composites/softmax/float32"))
    done = run("hal", "conform", "cpu", "--case", case, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 native" in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nochip"], "there is no backend 'nochip'"),
        (["cpu", "--level", "primitves"], "there is no level 'primitves'"),
        ([], "conform needs a device, such as `hal conform cpu`"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, args: list[str], message: str) -> None:
    done = run("hal", "conform", *args, folder=tmp_path)
    assert done.returncode in (1, 2)
    assert message.split(".*")[0] in done.stderr
    assert "Traceback" not in done.stderr


def test_the_pytest_plugin_works_from_any_folder_and_leaves_others_alone(tmp_path: Path) -> None:
    args = ["pytest", "-q", "--pyargs", "hal.testing", "-p", "no:cacheprovider"]
    done = run(*args, "--hal-device", "fake", "--hal-op", "add", "--hal-op", "matmul", folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    done = run(*args, folder=tmp_path)
    assert "no tests ran" in done.stdout
