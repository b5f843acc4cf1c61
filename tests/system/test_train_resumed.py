"""`hal train` goes on after it was ended, killed or interrupted: with the same bits."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from training_runs import start, train, trained, wait_for, write_mnist

import hal
import nn
from nn.train import checkpoint
from nn.train.tasks import TASKS


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two runs had the same losses and ended with the same network, bit for bit."""
    return all(a[key] == b[key] for key in ("losses", "train_accuracies", "class_accuracies", "epochs", "parameters"))


def weights(folder: Path) -> dict[str, Any]:
    state = checkpoint.read(folder)
    return {name: value.numpy().tobytes() for name, value in state["model"].items()}


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    assert any(isinstance(m, nn.Dropout) for m in TASKS["digits"].network().modules())  # random numbers in each step
    whole = trained("--epochs", 4, "--out", tmp_path / "whole", "--seed", 7)
    trained("--epochs", 1, "--out", tmp_path / "parts", "--seed", 7)
    hal.manual_seed(12345)  # what happens in between has no influence
    trained("--epochs", 3, "--out", tmp_path / "parts", "--resume", "--workers", 0)
    parts = trained("--epochs", 4, "--out", tmp_path / "parts", "--resume", "--workers", 3)
    assert same(whole, parts)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")
    assert not same(whole, trained("--epochs", 4, "--seed", 8))


def test_a_run_without_checkpoints_has_the_same_losses(tmp_path: Path) -> None:
    assert same(trained("--epochs", 2, "--out", tmp_path), trained("--epochs", 2))


def test_resume_remembers_everything_that_was_asked_for(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path)
    asked = ("mnist", "--data", folder, "--batch-size", 8, "--lr", 0.01, "--seed", 3, "--out", tmp_path / "run")
    whole = trained(*asked, "--epochs", 2)
    state = checkpoint.read(tmp_path / "run")
    assert (state["done"], state["goal"]) == (2, 2)
    again = trained("--out", tmp_path / "run", "--resume")  # nothing is left to do
    assert same(whole, again)
    assert trained("--out", tmp_path / "run", "--resume", "--epochs", 3)["epochs"] == 3


def test_a_finished_run_says_that_nothing_is_left(tmp_path: Path) -> None:
    trained("--epochs", 1, "--out", tmp_path)
    done = train("--out", tmp_path, "--resume")
    assert done.exit_code == 0
    assert done.stderr == "hal train: nothing is left to train, 1 epochs are done; --epochs N asks for more\n"


def test_a_new_run_keeps_the_earlier_checkpoint_apart(tmp_path: Path) -> None:
    trained("--epochs", 1, "--out", tmp_path, "--seed", 1)
    old = weights(tmp_path)
    done = train("--epochs", 1, "--out", tmp_path, "--seed", 2)
    assert "is kept there as earlier-checkpoint.safetensors (--resume would have gone on from it)" in done.stderr
    assert weights(tmp_path) != old
    (tmp_path / "earlier-checkpoint.safetensors").replace(tmp_path / "checkpoint.safetensors")
    assert weights(tmp_path) == old


def test_a_checkpoint_moves_to_another_device(tmp_path: Path) -> None:
    trained("--epochs", 1, "--out", tmp_path)
    moved = trained("--out", tmp_path, "--resume", "--backend", "fake", "--epochs", 1)
    assert moved["device"] == "fake"
    assert moved["test_accuracy"] == json.loads((tmp_path / "result.json").read_text())["test_accuracy"]


# Being killed, and being interrupted.

# A hal train that kills itself at one moment of its third checkpoint.
KILLER = """
import os, signal, sys
import safetensors.numpy

save_file, replace, saves = safetensors.numpy.save_file, os.replace, 0
where = sys.argv.pop(1)

def die(): os.kill(os.getpid(), signal.SIGKILL)

def half(arrays, path, metadata):
    global saves
    saves += 1
    if saves == 3 and where == "before the write": die()
    save_file(arrays, path, metadata)
    if saves == 3 and where == "in the write":
        os.truncate(path, os.path.getsize(path) // 2)
        die()

def renamed(source, target):
    if saves == 3 and where == "before the rename": die()
    replace(source, target)
    if saves == 3 and where == "after the rename": die()

safetensors.numpy.save_file, os.replace = half, renamed
from hal.cli import main
main()
"""


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """A run of four epochs that nothing interrupts."""
    return trained("--epochs", 4)


@pytest.mark.parametrize(
    ("moment", "epoch"),
    [
        pytest.param("before the write", 1, marks=pytest.mark.slow),
        ("in the write", 1),
        pytest.param("before the rename", 1, marks=pytest.mark.slow),
        ("after the rename", 2),
    ],
)
def test_a_run_that_is_killed_while_it_writes_goes_on(
    tmp_path: Path, moment: str, epoch: int, whole: dict[str, Any]
) -> None:
    command = [sys.executable, "-c", KILLER, moment, "train", "--epochs", "4", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert checkpoint.read(tmp_path)["done"] == epoch
    assert same(trained("--out", tmp_path, "--resume"), whole)
    assert not list(tmp_path.glob(".*"))  # what was half written is gone


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_comes_to_the_same_end(tmp_path: Path) -> None:
    whole = trained("--epochs", 12)
    chance, kills = random.Random(0), 0
    process = start("--epochs", 12, "--out", tmp_path)
    wait_for(tmp_path / checkpoint.FILE, process)
    while kills < 8:
        time.sleep(chance.uniform(0.0, 0.3))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
        epoch = checkpoint.read(tmp_path)["done"]
        process = start("--resume", "--out", tmp_path)
        began = time.monotonic()
        # As long as it takes to come to an epoch, and then for a random moment more, so that the run gets on.
        while time.monotonic() - began < 30 and process.poll() is None and _epoch(tmp_path) == epoch:
            time.sleep(0.02)
    process.communicate()
    assert kills == 8
    assert same(trained("--out", tmp_path, "--resume"), whole)


def _epoch(folder: Path) -> int:
    return int(checkpoint.read(folder)["done"])


def test_a_run_that_is_killed_in_its_first_epoch_can_be_resumed(tmp_path: Path, whole: dict[str, Any]) -> None:
    process = start("--epochs", 4, "--out", tmp_path)
    wait_for(tmp_path / checkpoint.FILE, process)
    process.kill()
    process.communicate()
    assert same(trained("--out", tmp_path, "--resume"), whole)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("out", [True, False])
def test_ctrl_c_ends_with_a_message(tmp_path: Path, out: bool) -> None:
    process = start("--epochs", 1000, *(["--out", tmp_path] if out else []))
    assert process.stderr is not None
    assert process.stderr.readline().startswith("epoch    1/1000")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert not stdout
    assert "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    cure = (
        f"to go on: hal train --out {tmp_path} --resume"
        if out
        else "nothing was kept (--out FOLDER keeps a checkpoint)"
    )
    assert re.fullmatch(rf"Error: interrupted after \d+ of 1000 epochs; {re.escape(cure)}", last)
