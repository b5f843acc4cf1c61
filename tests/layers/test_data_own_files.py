"""Datasets over files of one's own, and samplers that weigh: what they read, and what they refuse."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hal.errors import DataError
from nn.data import (
    ArrayDataset,
    DataLoader,
    ImageFolder,
    SubsetRandomSampler,
    TextLines,
    WeightedRandomSampler,
    transforms,
)

ROWS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def test_arrays_on_the_disk_are_mapped_and_read_in_batches(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    data = ArrayDataset(tmp_path / "x.npy", np.arange(7))
    assert isinstance(data.arrays[0], np.memmap)
    x, y = next(iter(DataLoader(data, batch_size=4, num_workers=1)))
    np.testing.assert_array_equal(x.numpy(), ROWS[:4])
    assert y.tolist() == [0, 1, 2, 3]
    assert data[-1][1] == 6
    doubled = ArrayDataset(ROWS, transform=lambda row: row * 2)
    np.testing.assert_array_equal(next(iter(DataLoader(doubled, 2)))[0].numpy(), ROWS[:2] * 2)


def test_a_folder_of_images_for_each_class(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="needs Pillow: pip install 'hal-runtime[images]'")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 3)).astype(np.uint8)
    for i, name in enumerate(["dog/1.png", "cat/deep/b.PNG", "cat/a.bmp", "dog/grey.png"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pillow.fromarray(pixels[i] if i < 3 else pixels[i, :, :, 0]).save(tmp_path / name)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    data = ImageFolder(tmp_path, transforms.CenterCrop(6))
    assert data.classes == ("cat", "dog")
    assert data.class_to_idx == {"cat": 0, "dog": 1}
    assert [(path.name, number) for path, number in data.samples] == [
        ("a.bmp", 0), ("b.PNG", 0), ("1.png", 1), ("grey.png", 1),
    ]  # fmt: skip
    image, number = data[2]
    assert number == 1
    np.testing.assert_allclose(image, pixels[0, :, 1:7].transpose(2, 0, 1) / 255, rtol=1e-6)
    assert data[3][0].shape == (3, 6, 6)
    x, y = next(iter(DataLoader(data, batch_size=4)))
    assert x.shape == (4, 3, 6, 6)
    assert y.tolist() == [0, 0, 1, 1]
    (tmp_path / "dog" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.png cannot be read as an image") as raised:
        list(DataLoader(data, batch_size=2))
    assert "DataLoader was reading item 2 of ImageFolder" in raised.value.__notes__


def test_lines_of_text(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("first\nzweite Zeile mit ä\r\n\nlast".encode())
    data = TextLines(path)
    assert list(data) == ["first", "zweite Zeile mit ä", "", "last"]
    assert data[-1] == "last"
    assert next(iter(DataLoader(TextLines(path, len), batch_size=4))).tolist() == [5, 18, 0, 4]
    path.write_bytes(b"good\n\xff\xfe\n")
    with pytest.raises(DataError, match="line 2: not UTF-8 at byte 0"):
        TextLines(path)[1]


def test_weights_decide_how_often_an_item_comes() -> None:
    weights = [1.0, 0.0, 3.0, 6.0]
    drawn = np.bincount(list(WeightedRandomSampler(weights, 5000, generator=0)), minlength=4)
    np.testing.assert_allclose(drawn / 5000, np.array(weights) / 10, atol=0.03)
    once = WeightedRandomSampler(weights, 3, replacement=False, generator=0)
    firsts = np.bincount([next(iter(once)) for _ in range(2000)], minlength=4)
    np.testing.assert_allclose(firsts / 2000, np.array(weights) / 10, atol=0.04)
    assert sorted(once) == [0, 2, 3]
    some = SubsetRandomSampler([5, 7, 9], generator=1)
    passes = [list(some) for _ in range(20)]
    assert {tuple(sorted(p)) for p in passes} == {(5, 7, 9)}
    assert len({tuple(p) for p in passes}) > 3
    assert len(some) == 3
    some.load_state_dict({"seed": 1, "epoch": 0})
    assert list(some) == passes[0]


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda t: ArrayDataset(), DataError, "one array or more"),
    (lambda t: ArrayDataset(ROWS, np.arange(3)), DataError, r"arrays of one length, got \[7, 3\]"),
    (lambda t: ArrayDataset(t / "none.npy"), DataError, r"does not exist: numpy.save"),
    (lambda t: ArrayDataset(__file__), DataError, "is no array file"),
    (lambda t: ImageFolder(t / "none"), DataError, "is none"),
    (lambda t: ImageFolder(t), DataError, "found no image in the folders"),
    (lambda t: TextLines(t / "none"), DataError, "cannot be read: No such file"),
    (lambda t: WeightedRandomSampler([0, 0], 1), ValueError, "at least one above"),
    (lambda t: WeightedRandomSampler([1, 0], 2, replacement=False), ValueError, "cannot draw 2 of the 1 items"),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2][:24] for e in ERRORS])
def test_error(call: Any, error: type[Exception], text: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=text):
        call(tmp_path)
