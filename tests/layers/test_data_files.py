"""The readers of MNIST, Fashion-MNIST, CIFAR-10 and the shipped digits: what they give, what they refuse."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hal
from hal.errors import DataError
from nn.data import CIFAR10, MNIST, DataLoader, Digits, FashionMNIST, mnist
from nn.data.cifar import read_records
from nn.data.digits import read_digits
from nn.data.idx import ELEMENTS, read_idx

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray[Any, Any], code: int = 0x08) -> bytes:
    """An array as the bytes of an IDX file."""
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(ELEMENTS[code]).tobytes()


def pictures(count: int, side: int = 28) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).integers(0, 256, (count, side, side), np.uint8)


def write_mnist(folder: Path, names: tuple[str, str] = TRAIN, count: int = 7, compressed: bool = False) -> Path:
    """The two files of one part, with labels 0, 1, 2, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(names, (pictures(count), np.arange(count) % 10), strict=True):
        content = idx(array)
        path = folder / (f"{name}.gz" if compressed else name)
        path.write_bytes(gzip.compress(content) if compressed else content)
    return folder


def write_cifar(folder: Path, count: int = 3) -> Path:
    """The six files, with `count` records each; the labels of file n are n, n + 1, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate([*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]):
        pixels = np.random.default_rng(number).integers(0, 256, (count, 3072), np.uint8)
        labels = (number + np.arange(count, dtype=np.uint8)) % 10
        (folder / name).write_bytes(np.concatenate([labels[:, None], pixels], axis=1).tobytes())
    return folder


# --- IDX --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("code", ELEMENTS)
def test_idx_files_of_every_element_type_are_read(tmp_path: Path, code: int, compressed: bool) -> None:
    array = np.array([[0, 1, 100], [7, 2, 5]]).astype(ELEMENTS[code])
    content = idx(array, code)
    (tmp_path / "file").write_bytes(gzip.compress(content) if compressed else content)

    got, _ = read_idx(tmp_path / "file")

    np.testing.assert_array_equal(got, array)
    assert got.dtype == np.dtype(ELEMENTS[code]).newbyteorder("=")
    got[0, 0] = 1  # the array is the reader's own


# --- MNIST ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_mnist_is_read(tmp_path: Path, compressed: bool, below: str) -> None:
    write_mnist(tmp_path / below, TRAIN, 7, compressed)
    write_mnist(tmp_path / below, TEST, 3, compressed)

    train, test = MNIST(tmp_path), MNIST(str(tmp_path), train=False)

    image, label = train[3]
    assert (len(train), len(test)) == (7, 3)
    assert (image.shape, image.dtype, label, type(label)) == ((1, 28, 28), hal.float32, 3, int)
    np.testing.assert_array_equal(image.cpu().numpy()[0], pictures(7)[3] / np.float32(255))
    np.testing.assert_array_equal(train.data.cpu().numpy(), pictures(7))
    assert (train.targets.dtype, train.targets.tolist()) == (hal.int64, [0, 1, 2, 3, 4, 5, 6])
    assert train.class_to_idx["7"] == 7
    assert repr(test) == "MNIST(3 images of 1x28x28, 10 classes)"
    with pytest.raises(IndexError, match="MNIST has 3 items, got index 3"):
        test[3]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_mnist_comes_in_batches(tmp_path: Path, num_workers: int) -> None:
    dataset = MNIST(write_mnist(tmp_path))
    images, labels = next(iter(DataLoader(dataset, 4, num_workers=num_workers)))
    assert (images.shape, images.dtype, labels.dtype) == ((4, 1, 28, 28), hal.float32, hal.int64)
    assert labels.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(images.cpu().numpy(), np.stack([dataset[i][0].cpu().numpy() for i in range(4)]))


def test_transforms_are_applied_to_items_and_so_to_batches(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    floats, parities = pictures(7)[:, None] / np.float32(255), [0, 1, 0, 1, 0, 1, 0]
    for transform, target_transform in [(lambda image: image - 1, None), (None, lambda label: label % 2)]:
        dataset = MNIST(tmp_path, transform=transform, target_transform=target_transform)
        want = (floats - 1, [*range(7)]) if transform else (floats, parities)

        image, label = dataset[3]
        images, labels = next(iter(DataLoader(dataset, 7, num_workers=2)))

        np.testing.assert_array_equal(image.cpu().numpy(), want[0][3])
        np.testing.assert_array_equal(images.cpu().numpy(), want[0])
        assert (label, labels.tolist()) == (want[1][3], want[1])


def test_mnist_and_fashion_mnist_may_share_a_root(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST/raw", count=2)
    write_mnist(tmp_path / "FashionMNIST/raw", count=5)
    assert (len(MNIST(tmp_path)), len(FashionMNIST(tmp_path))) == (2, 5)
    assert FashionMNIST(tmp_path).classes[9] == "Ankle boot"
    # A file in the root itself could be either's: the folder with the name goes first.
    write_mnist(tmp_path, count=1)
    assert (len(MNIST(tmp_path)), len(FashionMNIST(tmp_path))) == (2, 5)


def swap(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def change(path: Path, function: Callable[[bytes], bytes]) -> None:
    path.write_bytes(function(path.read_bytes()))


IMAGES, LABELS = TRAIN
BAD_MNIST: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "no file",
        lambda f: (f / IMAGES).unlink(),
        rf"MNIST needs the files {IMAGES} \(plain or .gz\), not found in (\S+) or \1/MNIST/raw: put them into \1, "
        r"or pass download=True",
    ),
    (
        "truncated",
        lambda f: change(f / IMAGES, lambda b: b[:-1]),
        "needed 5488 bytes after the header .* got only 5487: trunc",
    ),
    (
        "trailing bytes",
        lambda f: change(f / IMAGES, lambda b: b + b"!"),
        "needed 5488 bytes .* got more: trailing bytes",
    ),
    ("no content", lambda f: swap(f / LABELS, b""), "needed an IDX file, .* got an empty file: get the file again"),
    ("short header", lambda f: swap(f / LABELS, idx(np.zeros(3))[:6]), "truncated in its header of 8 bytes"),
    ("web page", lambda f: swap(f / LABELS, b"<!DOCTYPE html>"), r"got 3c 21 44 4f \(a web page, saved in place of"),
    ("zip", lambda f: swap(f / LABELS, b"PK\3\4..."), r"got 50 4b 03 04 \(a zip archive: unpack it\)"),
    ("magic", lambda f: change(f / LABELS, lambda b: b"\1" + b[1:]), "got 01 00 08 01: get the file again"),
    (
        "element type",
        lambda f: change(f / LABELS, lambda b: b"\0\0\x10" + b[3:]),
        "got 00 00 10 01: get the file again",
    ),
    (
        "truncated gz",
        lambda f: swap(f / LABELS, gzip.compress(idx(np.arange(7)))[:-9]),
        "whole gzip file, got a truncated",
    ),
    (
        "garbled gz",
        lambda f: swap(f / LABELS, b"\x1f\x8b\x08" + b"\0" * 6 + b"\xff" * 30),
        "got a truncated or damaged one",
    ),
    ("damaged gz", lambda f: swap(f / LABELS, gzip.compress(idx(np.arange(7)))[:-8] + b"\0" * 8), "CRC check failed"),
    (
        "side",
        lambda f: swap(f / IMAGES, idx(pictures(7, 14))),
        r"uint8 elements of shape \(n, 28, 28\) with n > 0, got uint8",
    ),
    ("ndim", lambda f: swap(f / LABELS, idx(np.zeros((7, 1)))), r"shape \(n\) with n > 0, got uint8 of shape \(7, 1\)"),
    (
        "dtype",
        lambda f: swap(f / LABELS, idx(np.zeros(7), 0x0C)),
        r"needed uint8 elements .* got int32 of shape \(7,\)",
    ),
    ("nothing in it", lambda f: swap(f / LABELS, idx(np.zeros(0))), r"with n > 0, got uint8 of shape \(0,\)"),
    ("counts", lambda f: swap(f / LABELS, idx(np.zeros(6))), "got 7 images in .*images.* and 6 labels in .*labels"),
    (
        "labels",
        lambda f: swap(f / LABELS, idx(np.array([0, 9, 10, 11, 0, 0, 0]))),
        "labels from 0 to 9, got 10 at item 2",
    ),
    (
        "huge header",
        lambda f: swap(f / IMAGES, struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31)),
        "got only 0: truncated",
    ),
]


@pytest.mark.parametrize(("spoil", "text"), [row[1:] for row in BAD_MNIST], ids=[row[0] for row in BAD_MNIST])
def test_bad_mnist_files_are_refused(tmp_path: Path, spoil: Callable[[Path], Any], text: str) -> None:
    spoil(write_mnist(tmp_path))

    with pytest.raises(DataError, match=text) as caught:
        MNIST(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for read in (read_idx, read_records):
        with pytest.raises(DataError, match=rf"{tmp_path}/gone: cannot be read \(No such file or directory\)"):
            read(tmp_path / "gone")


def test_verify_compares_with_the_official_checksums(tmp_path: Path) -> None:
    text = (
        rf"{IMAGES}: needed MNIST's {IMAGES} with md5 6bbc9ace898e44ae57da46a324031adb when uncompressed, got \w{{32}}"
    )
    with pytest.raises(DataError, match=text):
        MNIST(write_mnist(tmp_path), verify=True)


@pytest.mark.parametrize("compressed", [False, True])
def test_verify_takes_what_has_the_official_content(
    tmp_path: Path, compressed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path, compressed=compressed)
    suffix = ".gz" if compressed else ""
    official = {name: read_idx(tmp_path / f"{name}{suffix}")[1] for name in TRAIN}
    monkeypatch.setitem(mnist.CHECKSUMS, "MNIST", official)

    assert len(MNIST(tmp_path, verify=True)) == 7
    with pytest.raises(DataError, match=rf"needed FashionMNIST's {IMAGES}, got MNIST's {IMAGES}: exchange the file"):
        FashionMNIST(tmp_path)


# --- CIFAR-10 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_cifar10_is_read(tmp_path: Path, below: str) -> None:
    write_cifar(tmp_path / below)

    train, test = CIFAR10(tmp_path), CIFAR10(str(tmp_path), train=False)

    record = (tmp_path / below / "data_batch_2.bin").read_bytes()[3073 : 2 * 3073]
    image, label = train[4]
    assert (len(train), len(test)) == (15, 3)
    assert (image.shape, image.dtype, label) == ((3, 32, 32), hal.float32, record[0])
    pixels = np.frombuffer(record[1:], np.uint8).reshape(3, 32, 32)
    np.testing.assert_array_equal(image.cpu().numpy(), pixels / np.float32(255))
    np.testing.assert_array_equal(train.data[4], pixels.transpose(1, 2, 0))
    assert train.targets.tolist() == [0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 5, 4, 5, 6]
    assert train.classes[label] == "bird"
    images, labels = next(iter(DataLoader(train, 15, num_workers=1)))
    np.testing.assert_array_equal(images.cpu().numpy()[4], image.cpu().numpy())
    assert (labels.dtype, labels.tolist()) == (hal.int64, train.targets.tolist())


BAD_CIFAR: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "no file",
        lambda f: (f / "data_batch_3.bin").unlink(),
        r"CIFAR10 needs the files data_batch_3.bin \(the binary version\), not found in (\S+) or "
        r"\1/cifar-10-batches-bin: put them into \1, or pass download=True",
    ),
    (
        "truncated",
        lambda f: change(f / "data_batch_1.bin", lambda b: b[:-1]),
        "got 9218 bytes, which are 2 records and 3072 bytes",
    ),
    (
        "trailing",
        lambda f: change(f / "data_batch_5.bin", lambda b: b + b"!"),
        "data_batch_5.bin: needed whole records of 3073",
    ),
    ("empty", lambda f: swap(f / "data_batch_1.bin", b""), "got 0 bytes, which are 0 records and 0 bytes: truncated"),
    (
        "label",
        lambda f: change(f / "data_batch_4.bin", lambda b: b"\x0a" + b[1:]),
        "labels from 0 to 9, got 10 at item 0",
    ),
]


@pytest.mark.parametrize(("spoil", "text"), [row[1:] for row in BAD_CIFAR], ids=[row[0] for row in BAD_CIFAR])
def test_bad_cifar_files_are_refused(tmp_path: Path, spoil: Callable[[Path], Any], text: str) -> None:
    spoil(write_cifar(tmp_path))

    with pytest.raises(DataError, match=text) as caught:
        CIFAR10(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("there", "hint"),
    [
        ("cifar-10-binary.tar.gz", r"\(there is cifar-10-binary.tar.gz: unpack it\)"),
        ("cifar-10-batches-py/data_batch_1", r"\(there is the Python version, whose pickles HAL does not load\)"),
        ("data_batch_1", r"\(there is the Python version, whose pickles HAL does not load\)"),
    ],
)
def test_cifar10_says_what_is_there_instead(tmp_path: Path, there: str, hint: str) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    with pytest.raises(DataError, match=hint):
        CIFAR10(tmp_path)


# --- the digits that ship with HAL ------------------------------------------------------------------------------------


def test_the_digits_are_all_there() -> None:
    train, test = Digits(), Digits(train=False)

    image, label = train[0]
    assert (len(train), len(test)) == (1437, 360)
    assert (image.shape, image.dtype, type(label)) == ((1, 8, 8), hal.float32, int)
    whole = np.concatenate([train.images, test.images])
    assert (whole.min(), whole.max()) == (0, 16)
    assert next(iter(DataLoader(train, 1437)))[0].cpu().numpy().max() == 1.0
    counts = np.bincount(np.concatenate([train.labels, test.labels]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_digits_are_split_by_class_and_always_alike() -> None:
    test = Digits(train=False)
    assert np.bincount(test.labels).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    assert test.labels[:12].tolist() == [0, 2, 9, 1, 0, 1, 8, 7, 2, 3, 6, 9]
    np.testing.assert_array_equal(test.images, Digits(train=False).images)
    # Each of the 1,797 is in one part: together the parts have the pixels of the file.
    total = read_digits(Path(mnist.__file__).with_name("digits.csv.gz"))[0].sum(dtype=np.int64)
    assert Digits().images.sum(dtype=np.int64) + test.images.sum(dtype=np.int64) == total


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "needed the digits that ship with the package, got .*No such file.*: install hal-runtime again"),
        (b"", "needed the digits that ship"),
        (b"no gzip", "needed the digits that ship"),
        (gzip.compress(b"1,2,x\n"), "needed the digits that ship"),
        (gzip.compress(b"1,2,3\n"), "needed 1797 lines of 65 numbers, got 3 numbers: install"),
        (gzip.compress(b",".join([b"17"] * 1797 * 65)), "needed pixels from 0 to 16, got 17 to 17"),
        (gzip.compress(b",".join([b"16"] * 1797 * 65)), "needed labels from 0 to 9, got 16 at item 0"),
        (gzip.compress(b"\n".join([b"0," * 64 + b"-1"] * 1797)), "needed labels from 0 to 9, got -1 at item 0"),
    ],
    ids=["missing", "empty", "not gzip", "no numbers", "too few", "pixels", "large label", "negative label"],
)
def test_a_damaged_digits_file_is_refused(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "digits.csv.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=text):
        read_digits(path)
