"""What `hal train` says of mistakes: each in a line, with its cure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from training_runs import train, trained, write_cifar, write_mnist

import hal
from hal.testing.fake import Fake
from nn.train import checkpoint


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
