"""The case studies in docs/examples run in small, as a user would start them, and do what they say."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
pytestmark = pytest.mark.slow


def run(folder: Path, name: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", *arguments],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def numbers(text: str, pattern: str) -> list[float]:
    return [float(n) for n in re.findall(pattern, text)]


def test_every_example_is_tested_and_named_in_the_docs() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    page = (EXAMPLES.parent / "tutorials" / "case-studies.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.stem}"' in here
        assert path.name in page


def test_digits_in_both_styles(tmp_path: Path) -> None:
    accuracies = numbers(run(tmp_path, "mnist"), r"by (?:hand|fit): test accuracy (\d+\.\d+)%")
    assert len(accuracies) == 2
    assert min(accuracies) > 90


def test_what_was_learned_helps_with_few_pictures(tmp_path: Path) -> None:
    teacher, kept, fresh = numbers(run(tmp_path, "transfer"), r": +(\d+\.\d+)%")
    assert teacher > 97
    assert kept > 80
    assert kept > fresh - 2


@pytest.mark.parametrize("more", [(), ("--compile",)])
def test_a_gpt_learns_letters(tmp_path: Path, more: tuple[str, ...]) -> None:
    losses = numbers(run(tmp_path, "char_gpt", "--small", *more), r"loss (\d+\.\d+)")
    assert losses[0] > 4
    assert losses[-1] < 3


def test_copies_on_several_devices_learn_what_one_learns(tmp_path: Path) -> None:
    found = []
    for devices in ("cpu", "cpu,fake", "cpu,opencl"):
        out = run(tmp_path, "cifar10", "--small", "--epochs", "4", "--devices", devices, "--out", devices)
        found.append(json.loads(out.splitlines()[-1]))
        assert (tmp_path / devices / "best.safetensors").exists()
        assert "<svg" in (tmp_path / devices / "curves.svg").read_text(encoding="utf-8")
    assert found[1]["devices"] == ["cpu", "fake"]
    assert min(f["test_accuracy"] for f in found) > 0.5
    losses = [history(tmp_path / f)["loss"] for f in ("cpu", "cpu,fake", "cpu,opencl")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-2)  # rounding grows with each step
    assert losses[0] == pytest.approx(losses[2], abs=1e-2)


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="pip install 'hal-runtime[tensorboard]'")
    command = [sys.executable, EXAMPLES / "cifar10.py", "--small", "--epochs", "4", "--tensorboard"]
    run(tmp_path, "cifar10", *map(str, command[2:]), "--out", "whole")
    parts = subprocess.Popen([*command, "--out", "parts"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert parts.stderr is not None
    assert "epoch 1/4" in parts.stderr.readline()
    parts.send_signal(signal.SIGKILL)
    parts.communicate()
    run(tmp_path, "cifar10", *map(str, command[2:]), "--out", "parts", "--resume")
    assert history(tmp_path / "parts")["loss"] == history(tmp_path / "whole")["loss"]
    assert list((tmp_path / "parts" / "events").glob("events.*"))


def history(folder: Path) -> dict[str, list[float]]:
    rows = json.loads((folder / "history.json").read_text(encoding="utf-8"))["rows"]
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_one_curve_and_a_report_everywhere(tmp_path: Path) -> None:
    out = run(tmp_path, "everywhere", "cpu", "opencl", "systolic", "fake")
    assert out.count("no fallbacks") == 4
    assert len(re.findall(r"where +what +how +calls +measured", out)) == 3
    assert re.search(r"cycles +[\d,]+", out)  # simulated
    apart = numbers(out, r"at most (\d\.\de[-+]\d+) from")
    assert max(apart[:2] + apart[3:]) < 1e-5
    assert apart[2] < 0.02  # products in bfloat16
