"""CIFAR-10, read from the official binary version: records of one label byte and 3 x 32 x 32 pixel bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hal.errors import DataError
from nn.data.download import by_hand, fetch, temporary
from nn.data.images import ImageDataset, Transform, check_labels

ARCHIVE, ARCHIVE_MD5 = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
FOLDER = "cifar-10-batches-bin"
TRAIN, TEST = tuple(f"data_batch_{number}.bin" for number in range(1, 6)), ("test_batch.bin",)
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32


class CIFAR10(ImageDataset):
    """32 x 32 colour images of ten classes: 50,000 to train on and 10,000 to test.

    Args:
        root: the folder with the files data_batch_1.bin to data_batch_5.bin and test_batch.bin, or the folder that
            has them in `cifar-10-batches-bin`.
        train: the training part, or the test part.
        transform: called with the tensor of an image, float32 (3, 32, 32) from 0 to 1.
        target_transform: called with the class number.
        download: if files are missing, fetch the official archive, check it, and unpack them.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; torchvision.datasets.CIFAR10.

    Raises:
        DataError: if a file is missing, cannot be fetched, is not made of whole records, or has labels out of range.
    """

    classes: ClassVar[tuple[str, ...]] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip

    def __init__(
        self,
        root: str | os.PathLike[str],
        train: bool = True,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        download: bool = False,
    ) -> None:
        self.root = Path(root)
        self.train = train
        names = TRAIN if train else TEST
        folder = self._find(names, download)
        parts = [read_records(folder / name) for name in names]
        images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        super().__init__(images, labels, transform, target_transform)

    @property
    def data(self) -> NDArray[np.uint8]:
        """The images as a NumPy array of shape (items, 32, 32, 3), as torchvision has them."""
        return self.images.transpose(0, 2, 3, 1)

    def _find(self, names: tuple[str, ...], download: bool) -> Path:
        """The folder with the files; what is missing is fetched first if that is wanted."""
        places = [self.root, self.root / FOLDER]
        folder = next((place for place in places if any((place / name).is_file() for name in names)), places[1])
        missing = [name for name in names if not (folder / name).is_file()]
        if not missing:
            return folder
        cure = by_hand("CIFAR10", missing, places, kind="the binary version", hint=self._hint())
        if not download:
            raise DataError(f"{cure}, or pass download=True")
        try:
            fetch("CIFAR10", ARCHIVE, folder, lambda archive: _unpack(archive, folder))
        except DataError as error:
            raise DataError(f"{error}. {cure}") from error
        return folder

    def _hint(self) -> str:
        """What is there instead, if it is something of CIFAR-10."""
        if (self.root / ARCHIVE).is_file():
            return f" (there is {ARCHIVE}: unpack it)"
        if (self.root / "cifar-10-batches-py").is_dir() or (self.root / "data_batch_1").is_file():
            return " (there is the Python version, whose pickles HAL does not load)"
        return ""


def read_records(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images, uint8 (n, 3, 32, 32), and labels, int64 (n,), of one file.

    Raises:
        DataError: if the file cannot be read, is not made of whole records, or has a label out of range.
    """
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    count, rest = divmod(content.size, RECORD)
    if rest or not count:
        raise DataError(
            f"{path}: needed whole records of {RECORD} bytes (a label and 3 x 32 x 32 pixels), got {content.size} "
            f"bytes, which are {count} records and {rest} bytes: truncated, or not the binary version; get it again"
        )
    records = content.reshape(count, RECORD)
    labels = check_labels(records[:, 0], len(CIFAR10.classes), path)
    return records[:, 1:].reshape(count, *SHAPE), labels


def _unpack(archive: Path, folder: Path) -> None:
    """Write the record files of the official archive that are not in the folder, and nothing else of it."""
    import shutil
    import tarfile

    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != ARCHIVE_MD5:
        raise DataError(f"needed {ARCHIVE} with md5 {ARCHIVE_MD5}, got {digest}")
    with tarfile.open(archive, "r:gz") as tar:
        for name in (*TRAIN, *TEST):
            source = tar.extractfile(f"{FOLDER}/{name}")
            if source is not None and not (folder / name).is_file():
                path = temporary(folder / name)
                try:
                    with path.open("xb") as target:
                        shutil.copyfileobj(source, target)
                    path.replace(folder / name)
                finally:
                    path.unlink(missing_ok=True)
