"""`hal train`: what it learns, from which data, and how it shows that."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from training_runs import COMMAND, train, trained, write_cifar, write_mnist

from hal.config import cache_dir
from nn.train.tasks import TASKS

KEYS = {"test_accuracy", "seconds", "images_per_second", "device", "losses"}


def test_the_digits_are_learnt_in_seconds() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*COMMAND, "--json"], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result.keys() >= KEYS
    assert result["test_accuracy"] >= 0.975
    assert result["device"] == "cpu"
    assert len(result["losses"]) == result["epochs"] == 12
    assert result["losses"][-1] < 0.1 < result["losses"][0]
    assert result["images_per_second"] * result["seconds"] == pytest.approx(12 * 1437)
    form = r"epoch +\d+/12  loss \d\.\d{4}  accuracy \d\.\d{4}  [\d,]+ items/s"
    assert [bool(re.fullmatch(form, said)) for said in done.stderr.splitlines()] == [True] * 12
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 20


@pytest.mark.slow
def test_the_digits_are_learnt_from_any_seed() -> None:
    accuracies = [trained("--seed", seed)["test_accuracy"] for seed in range(20)]
    assert min(accuracies) >= 0.97, accuracies
    assert sum(a >= 0.975 for a in accuracies) >= 18, accuracies


def test_the_summary_has_a_line_for_each_class(tmp_path: Path) -> None:
    done = train("--epochs", 2, "--out", tmp_path / "run", "--curve", tmp_path / "my" / "curve.svg")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["class", "right", "of", "accuracy"]
    assert [line.split()[0] for line in lines[1:11]] == list("0123456789")
    assert sum(int(line.split()[2]) for line in lines[1:11]) == 360
    rights = sum(int(line.split()[1]) for line in lines[1:11])
    assert lines[12] == f"test accuracy {rights / 360:.2%} of the UCI handwritten digits"
    assert re.fullmatch(r"2 epochs on cpu in \d+\.\d s, [\d,]+ images/s", lines[13])
    assert max(map(len, done.stderr.splitlines())) <= 80
    files = {p.name for p in (tmp_path / "run").iterdir()}
    assert files == {"checkpoint.safetensors", "curve.svg", "result.json"}
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test_accuracy"] == rights / 360
    for picture in (tmp_path / "run" / "curve.svg", tmp_path / "my" / "curve.svg"):
        assert "loss" in "".join(ElementTree.parse(picture).getroot().itertext())


def test_a_terminal_gets_a_bar_with_figures() -> None:
    pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX's")
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen([*COMMAND, "--epochs", "1"], stdout=subprocess.PIPE, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert b"test accuracy" in out
    assert b"\x1b" not in out
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"epoch 1/1 ━+.* loss \d\.\d{4}  accuracy \d\.\d{4}  [\d,]+ items/s", text)


def test_mnist_is_learnt_from_its_official_files(tmp_path: Path) -> None:
    result = trained("mnist", "--data", write_mnist(tmp_path), "--epochs", 8, "--batch-size", 4, "--lr", 0.005)
    assert result["task"] == "mnist"
    assert result["test_accuracy"] >= 0.9
    assert set(result["class_accuracies"]) == set("0123456789")


def test_cifar10_is_trained_on_from_its_official_files(tmp_path: Path) -> None:
    result = trained("cifar10", "--data", write_cifar(tmp_path), "--epochs", 2, "--batch-size", 10)
    assert result["losses"][1] < result["losses"][0]
    assert list(result["class_accuracies"]) == [
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ]  # fmt: skip


def test_a_class_without_test_images_has_no_accuracy(tmp_path: Path) -> None:
    result = trained("mnist", "--data", write_mnist(tmp_path, items=9), "--epochs", 1)
    assert result["class_accuracies"]["9"] is None


def test_the_command_knows_every_task_and_no_other() -> None:
    from nn.train import command

    assert tuple(TASKS) == command.TASKS


@pytest.mark.slow
def test_mnist_reaches_its_accuracy_in_five_epochs() -> None:
    folder = Path(os.environ.get("MNIST_FOLDER") or cache_dir() / "data" / "mnist")
    if not folder.is_dir():
        pytest.skip(f"needs the real MNIST in {folder}, where `hal train mnist` puts it, or in MNIST_FOLDER")
    assert trained("mnist", "--data", folder, "--no-download")["test_accuracy"] >= 0.975
