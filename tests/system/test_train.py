"""`hal train`: it learns, shows how it goes, keeps what it learned, survives being killed, and says what is wrong."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import hal
import nn
from hal.cli import cli
from hal.config import cache_dir
from hal.testing.fake import Fake
from nn.train import checkpoint
from nn.train.tasks import TASKS

COMMAND = [sys.executable, "-m", "hal", "train"]
KEYS = {"test_accuracy", "seconds", "images_per_second", "device", "losses"}


def train(*args: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["train", *map(str, args)])


def trained(*args: object) -> dict[str, Any]:
    """What a run without progress says in the end."""
    done = train("--json", "--quiet", *args)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def start(*args: object, **kwargs: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


# What it learns, and what it says.


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


# Other data sets, from files in the official layout.


def write_mnist(folder: Path, items: int = 40) -> Path:
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        labels = (np.arange(items) % 10).astype(np.uint8)
        images = rng.integers(0, 30, (items, 28, 28), np.uint8)
        images[np.arange(items), labels * 2 + 2] = 255  # a line whose height tells the class
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, items, 28, 28) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, items) + labels.tobytes())
    return folder


def write_cifar(folder: Path, items: int = 10) -> Path:
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        labels = (np.arange(items) % 10).astype(np.uint8)
        pixels = rng.integers(0, 256, (items, 3072), np.uint8)
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], pixels], axis=1).tobytes())
    return folder


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


# Going on.


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


# What is wrong, and what to do.


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with things that are wrong, and a checkpoint that is right."""
    folder = tmp_path_factory.mktemp("kept")
    trained("--epochs", 1, "--out", folder / "run")
    right = (folder / "run" / checkpoint.FILE).read_bytes()
    for name, content in {"cut": right[:-100], "garbage": b"\0" * 100, "empty": b"", "text": b"epoch 3"}.items():
        (folder / name).mkdir()
        (folder / name / checkpoint.FILE).write_bytes(content)
    state = hal.load(folder / "run" / checkpoint.FILE)
    changes: dict[str, dict[str, Any]] = {
        "newer": {"format": 99},
        "losing": {"rows": 3},
        "unknown": {"settings": {"task": "imagenet"}},
        "other": {"images": 5},
        "foreign": {"model": {"weight": hal.ones(2)}},
    }
    for name, change in changes.items():
        (folder / name).mkdir()
        hal.save({**state, **change}, folder / name / checkpoint.FILE)
    for name, content in {"tensors": {"a": hal.ones(2)}, "list": [1, 2]}.items():
        (folder / name).mkdir()
        hal.save(content, folder / name / checkpoint.FILE)
    (folder / "file").write_text("")
    for name in ("mnist", "truncated", "labels", "page"):
        (folder / name).mkdir()
        write_mnist(folder / name)
    images = folder / "truncated" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    labels = folder / "labels" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x0b")
    (folder / "page" / "train-labels-idx1-ubyte").write_text("<html>not found</html>")
    (folder / "cifar").mkdir()
    write_cifar(folder / "cifar")
    (folder / "cifar" / "data_batch_4.bin").write_bytes(b"\0" * 3072)
    return folder


# Arguments, the exit code, and what is said; {0} stands for the folder, ... for what does not matter.
MISTAKES = [
    ("--data {0}", 1,
     "the digits ship with HAL and need no --data, got {0}: leave it out, or name mnist or cifar10"),
    ("mnist --no-download --data {0}/nowhere", 1,
     "MNIST needs the files train-images-idx3-ubyte, train-labels-idx1-ubyte (plain or .gz), not found in {0}/nowhere"),
    ("mnist --no-download --data {0}/nowhere", 1, ": put them into {0}/nowhere"),
    ("mnist --no-download --data {0}/file", 2, "Invalid value for '--data': Directory '{0}/file' is a file."),
    ("mnist --no-download --data {0}/truncated", 1,
     "{0}/truncated/train-images-idx3-ubyte: needed 31360 bytes ... got only 31359: truncated: get the file again"),
    ("mnist --no-download --data {0}/labels", 1,
     "{0}/labels/t10k-labels-idx1-ubyte: needed labels from 0 to 9, got 11 at item 39"),
    ("mnist --no-download --data {0}/page", 1, "{0}/page/train-labels-idx1-ubyte: ... web page"),
    ("cifar10 --no-download --data {0}/run", 1,
     "CIFAR10 needs the files data_batch_1.bin, ... not found in {0}/run or ...: put them into {0}/run"),
    ("cifar10 --no-download --data {0}/cifar", 1,
     "{0}/cifar/data_batch_4.bin: needed whole records of 3073 bytes ... got 3072 bytes"),
    ("--resume", 2, "--resume needs --out, the folder with the checkpoint"),
    ("--resume --out {0}/nowhere", 1,
     "there is no checkpoint to resume from: {0}/nowhere/checkpoint.safetensors does not exist; leave out --resume"),
    ("--resume --out {0}/cut", 1,
     "{0}/cut/checkpoint.safetensors should be a whole safetensors file, but its ... bytes are not ... it was cut off"),
    ("--resume --out {0}/garbage", 1,
     "{0}/garbage/checkpoint.safetensors should be a whole safetensors file, but its 100 bytes are not"),
    ("--resume --out {0}/empty", 1, "should be a whole safetensors file, but its 0 bytes are not"),
    ("--resume --out {0}/text", 1, "should be a whole safetensors file, but its 7 bytes are not"),
    ("--resume --out {0}/tensors", 1,
     "{0}/tensors/checkpoint.safetensors is not a checkpoint that this hal train wrote: it has no format; begin anew"),
    ("--resume --out {0}/list", 1, "is not a checkpoint that this hal train wrote: it has no format"),
    ("--resume --out {0}/newer", 1, "is not a checkpoint that this hal train wrote: its format is 99, not 1"),
    ("--resume --out {0}/losing", 1, "is not a checkpoint that this hal train wrote: its 'rows' is of type int"),
    ("--resume --out {0}/unknown", 1, "that this hal train wrote: its settings are {{'task': 'imagenet'}}"),
    ("--resume --out {0}/foreign", 1, "the state does not fit Sequential, and nothing was loaded: ... \"0.weight\""),
    ("--resume --out {0}/other", 1,
     "{0}/other is of a run on 5 training images, got 1,437: name the folder that has them with --data"),
    ("--resume --out {0}/run --seed 4", 1,
     "the checkpoint in {0}/run is of a run with seed 0, got 4: a resumed run keeps its settings; leave that out, or"),
    ("--resume --out {0}/run --lr 0.5", 1, "is of a run with lr 0.003, got 0.5"),
    ("--resume --out {0}/run --batch-size 3", 1, "is of a run with batch_size 32, got 3"),
    ("mnist --resume --out {0}/run", 1, "is of a run with task digits, got mnist"),
    ("--out {0}/file", 2, "Invalid value for '--out': Directory '{0}/file' is a file."),
    ("--out {0}/file/below", 1, "--out {0}/file/below cannot be written to: Not a directory; name another folder"),
    ("--curve {0}/curve.png", 2,
     "the curve is an SVG picture, so its name must end in .svg, got '{0}/curve.png'"),
    ("--curve {0}/file/curve.svg", 1, "{0}/file: ...; check the path and the room on its disk"),
    ("--backend cpuu", 1, "there is no backend 'cpuu'; there are cpu, ... did you mean cpu"),
    ("--backend cpu:7", 1, "there is no device 'cpu:7'; backend 'cpu' has cpu"),
    ("--epochs 0", 2, "Invalid value for '--epochs': 0 is not in the range x>=1"),
    ("--epochs many", 2, "Invalid value for '--epochs': 'many' is not a valid integer"),
    ("--batch-size 0", 2, "Invalid value for '--batch-size': 0 is not in the range x>=1"),
    ("--workers -1", 2, "Invalid value for '--workers': -1 is not in the range x>=0"),
    ("--lr 0", 2, "Invalid value for '--lr': 0.0 is not in the range x>0"),
    ("--lr nan", 2, "Invalid value for '--lr': nan is not a finite number"),
    ("--lr 1e30 --epochs 1 --quiet", 1,
     "the training loss became ... in epoch 1, so the model learns no more: try a smaller learning rate"),
    ("--seed -1", 2, "Invalid value for '--seed': -1 is not in the range x>=0"),
    ("--seed 18446744073709551616", 1, "a seed is an integer of 64 bits, got 18446744073709551616"),
    ("mnits", 2, "'mnits' is not one of 'digits', 'mnist', 'cifar10'"),
    ("--sed 3", 2, "No such option ... Did you mean ...--seed"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "said"), MISTAKES, ids=lambda v: v if isinstance(v, str) else None)
def test_a_mistake_is_told_in_one_line(kept: Path, arguments: str, code: int, said: str) -> None:
    before = {p: p.read_bytes() for p in kept.rglob("*") if p.is_file()}
    done = train(*(part.format(kept) for part in arguments.split()))
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code
    assert not done.stdout
    error = done.stderr[done.stderr.index("Error: ") :]
    form = ".*".join(re.escape(part.strip()) for part in said.format(kept).split("..."))
    assert re.search(form, error, re.DOTALL), error
    assert error.count("\n") == 1 or "the state does not fit" in said, error
    assert {p: p.read_bytes() for p in kept.rglob("*") if p.is_file()} == before  # and nothing was changed


def test_a_device_that_cannot_be_had_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpuu")
    done = train()
    assert done.exit_code == 1
    assert re.fullmatch(r"Error: HAL_BACKEND=cpuu: there is no backend 'cpuu'; .*did you mean cpu\?.*\n", done.stderr)


def test_a_policy_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_FALLBACK", "wran")
    done = train("--backend", "template", "--quiet")
    assert done.exit_code == 1
    assert done.stderr == "Error: HAL_FALLBACK must be one of warn, allow, error, got 'wran'; did you mean warn?\n"


@pytest.mark.parametrize(
    ("fake", "said"),
    [
        (Fake("chip", training=False), r"chip devices only infer"),
        (Fake("chip", memory=300_000), r"chip has 300,000 bytes of memory, .*: free tensors, or use smaller batches"),
        (Fake("chip", fail_after=100), r"chip failed at \w+: it was declared to fail after 100 calls"),
        (Fake("chip", dtypes=[hal.int32]), r"chip"),
    ],
    ids=["inference only", "small", "failing", "no floats"],
)
def test_a_device_that_cannot_train_says_why(fake: Fake, said: str) -> None:
    with fake.registered():
        done = train("--backend", "chip", "--quiet")
    assert isinstance(done.exception, SystemExit), done.exception
    assert re.fullmatch(rf"Error: .*{said}.*\n", done.stderr), done.stderr
    assert done.exit_code == 1
