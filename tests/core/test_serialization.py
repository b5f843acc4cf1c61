"""save and load: what goes in comes out, broken files are named, and a crash leaves a whole file."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import hal
from hal.errors import DataError, DTypeError


def through(obj: Any, folder: Path, **options: Any) -> Any:
    hal.save(obj, folder / "file.safetensors")
    return hal.load(folder / "file.safetensors", **options)


@pytest.mark.parametrize("dtype", [d.name for d in hal.dtypes.ALL])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 1)])
def test_tensors_of_every_dtype(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    x = (hal.arange(math.prod(shape)) % 2).reshape(shape).type(dtype)
    y = through(x, tmp_path)
    assert (y.shape, y.dtype, y.tolist()) == (x.shape, x.dtype, x.tolist())
    y += y  # it is the reader's to change


OBJECTS: list[Any] = [
    None, True, 1, -(2**80), 1.5, "text \u00e9\n", [], (), {}, 1 + 2j, [1, [2, (3, None)]], {"a": 1, 2: "b"},
    {"a": {"b": {}}}, {1: 1, "1": 2}, OrderedDict(b=1, a=2), float("inf"), float("-inf"), [True, 1, 1.0],
    {"list": [1], "dict": {"tensor": 1}}, {"float": "nan"}, hal.bfloat16, [np.float32(1.5), np.int64(2)],
]  # fmt: skip


@pytest.mark.parametrize("obj", OBJECTS, ids=repr)
def test_objects_without_tensors(obj: Any, tmp_path: Path) -> None:
    back = through(obj, tmp_path)
    assert back == obj
    assert type(back) is type(obj)
    if isinstance(obj, dict):
        assert list(back) == list(obj)


def test_not_a_number_comes_back(tmp_path: Path) -> None:
    assert math.isnan(through([float("nan")], tmp_path)[0])


def test_a_nest_of_everything(tmp_path: Path) -> None:
    obj = {
        "model": OrderedDict([("layer.weight", hal.arange(6.0).reshape(2, 3)), ("layer.bias", hal.zeros(2))]),
        "optimizer": {"state": {0: {"step": 3, "average": hal.ones(2)}}, "groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
        "rng": hal.get_rng_state(), "array": np.arange(3), "complex": np.array([1j]), "done": False,
    }  # fmt: skip
    back = through(obj, tmp_path)
    assert list(back["model"]) == ["layer.weight", "layer.bias"]
    assert back["model"]["layer.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert back["optimizer"]["state"][0]["average"].tolist() == [1, 1]
    assert back["optimizer"]["groups"][0]["betas"] == (0.9, 0.99)
    assert back["rng"].dtype is hal.uint32
    assert back["array"].tolist() == [0, 1, 2]
    assert back["complex"].tolist() == [1j]
    assert back["done"] is False


def test_leaves_stay_leaves_and_histories_are_left_out(tmp_path: Path) -> None:
    x = hal.ones(2, requires_grad=True)
    back = through([x, x * 2.0, x.detach()], tmp_path)
    assert [(y.requires_grad, y.is_leaf) for y in back] == [(True, True), (False, True), (False, True)]
    assert back[1].tolist() == [2, 2]


def test_shared_memory_is_stored_once_and_comes_back_shared(tmp_path: Path) -> None:
    x = hal.arange(1000.0)
    path = tmp_path / "tied"
    hal.save({"a": x, "again": x, "alias": x.detach(), "view": x[:2], "other": hal.arange(1000.0)}, path)
    assert path.stat().st_size < 2 * 4000 + 2000
    back = hal.load(path)
    assert back["a"] is back["again"]
    assert back["alias"] is not back["a"]
    back["a"] += 1.0
    assert back["alias"][0].item() == 1
    assert back["view"].tolist() == [0, 1]
    assert back["other"][0].item() == 0


@pytest.mark.parametrize("device", ["cpu", "fake"])
def test_tensors_go_to_the_device_asked_for(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = hal.ones(2, device="fake")
    assert str(through([x], tmp_path, device=device)[0].device) == device
    monkeypatch.setenv("HAL_BACKEND", device)
    assert str(hal.load(tmp_path / "file.safetensors")[0].device) == device


def test_other_readers_of_safetensors_find_each_tensor_under_its_path(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    hal.save(
        {
            "layer.weight": hal.ones(2),
            "more": [hal.zeros(1), {"x": hal.ones(1)}],
            "a.b": hal.ones(1),
            "a": {"b": hal.zeros(1)},
        },
        path,
    )
    with safe_open(path, "np") as file:
        assert set(file.keys()) == {"layer.weight", "more.0", "more.1.x", "a.b", "a.b#2"}
        assert file.get_tensor("layer.weight").tolist() == [1, 1]
    back = hal.load(path)
    assert (back["a.b"].item(), back["a"]["b"].item()) == (1, 0)


def test_files_of_others_are_dictionaries_of_tensors(torch: ModuleType, tmp_path: Path) -> None:
    from safetensors.torch import save_file as save_torch

    path = tmp_path / "theirs.safetensors"
    save_torch({"w": torch.ones(2, dtype=torch.bfloat16), "n": torch.arange(3)}, path, {"format": "pt"})
    back = hal.load(path)
    assert back["w"].dtype is hal.bfloat16
    assert {name: x.tolist() for name, x in back.items()} == {"w": [1, 1], "n": [0, 1, 2]}


@pytest.mark.parametrize(
    ("obj", "where"),
    [
        ({"a": [1, {2, 3}]}, "got set in a.1"),
        ({"a": {1.5: 2}}, "got 1.5 in a"),
        ({True: 1}, "got True in the object"),
        (object(), "got object in the object"),
        ({"f": len}, "got builtin_function_or_method in f"),
        ([np.array(["a"])], "no dtype like"),
    ],
)
def test_what_cannot_be_saved_is_named_and_nothing_is_written(obj: Any, where: str, tmp_path: Path) -> None:
    hal.save("old", tmp_path / "file")
    with pytest.raises(DTypeError, match=where):
        hal.save(obj, tmp_path / "file")
    assert hal.load(tmp_path / "file") == "old"
    assert os.listdir(tmp_path) == ["file"]


# Files that are not what they should be.


def whole_file(folder: Path) -> bytes:
    hal.save({"x": hal.ones(100), "n": 1}, folder / "whole")
    return (folder / "whole").read_bytes()


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 50, 200, -400, -100, -1])
def test_a_truncated_file_is_a_data_error(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(whole_file(tmp_path)[:kept])
    with pytest.raises(
        DataError, match=r"cut should be a whole safetensors file, but its [\d,]+ bytes .* copy or save it"
    ):
        hal.load(path)


def test_flipped_bytes_are_a_data_error_or_another_value(tmp_path: Path) -> None:
    """In the description every flip must be seen or harmless; the numbers themselves have no checksum."""
    whole = whole_file(tmp_path)
    path = tmp_path / "flipped"
    header = 8 + int.from_bytes(whole[:8], "little")
    messages = []
    for place in range(0, header, 3):
        for flip in (0x01, 0x80):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            try:
                hal.load(path)
            except DataError as error:  # anything else that load raises fails this test
                messages.append(str(error))
    assert len(messages) > header / 3
    assert all(str(path) in message for message in messages)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello world, this is text", "should be a whole safetensors file"),
        (pickle.dumps({"a": 1}), "begins like a pickle"),
        (b"PK\x03\x04" + bytes(100), "torch.save"),
        (b"\xff" * 64, "should be a whole safetensors file"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00[]", "should be a whole safetensors file"),
    ],
)
def test_a_foreign_file_is_a_data_error_that_names_the_cure(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "foreign").write_bytes(content)
    with pytest.raises(DataError, match=message):
        hal.load(tmp_path / "foreign")


def test_a_length_that_looks_like_a_pickle_is_none(tmp_path: Path) -> None:
    """The first bytes are the length of the description, which may be any number: 0x280 begins like a pickle."""
    path = tmp_path / "long"
    for n in range(0x100, 0x280):
        save_file({}, path, {"hal": json.dumps({"format": 1, "value": "x" * n})})
        if path.read_bytes()[:2] == b"\x80\x02":
            break
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert hal.load(path) == "x" * n


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    (tmp_path / "bomb").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError):
        hal.load(tmp_path / "bomb")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "skeleton",
    [
        "not json", "[]", "{}", '{"format": 1}', '{"format": 1, "value": {"tensor": "y", "number": 0}}',
        '{"format": 1, "value": {"what": 3}}', '{"format": 1, "value": {"dict": 3}}', '{"format": "1", "value": 2}',
        '{"format": 1, "value": {"tensor": "x", "number": 0, "complex": "complex64"}}',
    ],
)  # fmt: skip
def test_a_description_that_makes_no_sense_is_a_data_error(skeleton: str, tmp_path: Path) -> None:
    save_file({"x": np.ones(3, np.float32)}, tmp_path / "odd", {"hal": skeleton})
    with pytest.raises(DataError, match=r"odd should hold what hal.save wrote"):
        hal.load(tmp_path / "odd")


def test_a_newer_format_asks_for_a_newer_version(tmp_path: Path) -> None:
    save_file({}, tmp_path / "new", {"hal": json.dumps({"format": 99, "value": None})})
    with pytest.raises(DataError, match=r"format 99.*newer hal"):
        hal.load(tmp_path / "new")


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothere cannot be read: No such file"):
        hal.load(tmp_path / "nothere")
    with pytest.raises(DataError, match="cannot be read"):
        hal.load(tmp_path)
    with pytest.raises(DataError, match="check that the folder exists"):
        hal.save(1, tmp_path / "no" / "folder" / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder cannot be written"):
        hal.save(1, tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


WRITER = """
import sys, hal
hal.save({"n": 0, "x": hal.zeros(300_000)}, sys.argv[1])
print("ready", flush=True)
n = 0
while True:
    n += 1
    hal.save({"n": n, "x": hal.full((300_000,), float(n))}, sys.argv[1])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a process that can be killed at any moment")
def test_a_process_killed_while_it_saves_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(0.02 + 0.05 * rng.random())
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        saved = hal.load(path)
        assert bool((saved["x"] == saved["n"]).all())
        counts.append(saved["n"])
    assert max(counts) > 0  # else nothing was interrupted


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_file_is_as_readable_as_any_new_one_and_alone(tmp_path: Path) -> None:
    hal.save(hal.ones(2), tmp_path / "saved")
    (tmp_path / "plain").touch()
    assert (tmp_path / "saved").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "saved"]
