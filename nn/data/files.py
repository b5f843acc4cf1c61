"""Datasets over files of one's own: arrays that stay on the disk, folders of images, and lines of text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from hal.errors import DataError
from nn.data.dataset import Dataset, Indices, check_index, check_indices
from nn.data.images import Transform

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


class ArrayDataset(Dataset[tuple[Any, ...]]):
    """Rows of several arrays of one length: NumPy arrays, or paths of `.npy` files, which are mapped and not loaded.

    Args:
        arrays: arrays or paths.
        transform: called with the first array's part of an item.

    Raises:
        DataError: a file that is missing or no array, or arrays of different lengths.

    >>> ArrayDataset(np.arange(6.0).reshape(3, 2), np.array([0, 1, 0]))[1]
    (array([2., 3.]), 1)
    """

    def __init__(self, *arrays: NDArray[Any] | str | Path, transform: Transform | None = None) -> None:
        if not arrays:
            raise DataError("ArrayDataset needs one array or more, got none")
        self.arrays = [_mapped(a) if isinstance(a, str | Path) else a for a in arrays]
        lengths = [len(a) for a in self.arrays]
        if len(set(lengths)) > 1:
            raise DataError(f"ArrayDataset needs arrays of one length, got {lengths}")
        self.transform = transform

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: SupportsIndex) -> tuple[Any, ...]:
        place = check_index(index, len(self), self)
        first, *others = (a[place] if a.ndim > 1 else a[place].item() for a in self.arrays)
        return (first if self.transform is None else self.transform(first), *others)

    def read_batch(self, indices: Indices) -> list[Any] | None:
        """Whole rows at once; None if a transform wants to see them one by one."""
        if self.transform is not None:
            return None
        rows = check_indices(indices, len(self), self)
        return [np.asarray(a[rows]) for a in self.arrays]


def _mapped(path: str | Path) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: numpy.save(path, array) writes such a file") from None
    except ValueError as error:
        raise DataError(f"{path} is no array file: {error}; numpy.save(path, array) writes one") from error
    return found


class ImageFolder(Dataset[tuple[Any, int]]):
    """Images in a folder for each class: `root/dog/1.png`, `root/cat/2.jpg`. Needs Pillow to read them.

    An item is a float32 array (3, height, width) from 0 to 1, or what the transform makes of it, and a class number.

    Args:
        root: the folder with the folders.
        transform: called with the array.

    Attributes:
        classes: the names of the folders, sorted; a class's number is its place here.
        samples: (path, class number) of each item, sorted.

    Raises:
        DataError: there is no such folder, or no image in it; when an item is read, a file that is no image.

    Source: torchvision.datasets.ImageFolder.
    """

    def __init__(self, root: str | Path, transform: Transform | None = None) -> None:
        folder = Path(root)
        if not folder.is_dir():
            raise DataError(f"ImageFolder needs a folder with a folder of images for each class, {root} is none")
        self.classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        self.samples = [
            (path, number)
            for number, name in enumerate(self.classes)
            for path in sorted((folder / name).rglob("*"))
            if path.suffix.lower() in IMAGES
        ]
        if not self.samples:
            raise DataError(
                f"ImageFolder found no image in the folders of {root}: it needs files such as {root}/cat/1.png"
            )
        self.transform = transform

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each class."""
        return {name: number for number, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: SupportsIndex) -> tuple[Any, int]:
        path, number = self.samples[check_index(index, len(self), self)]
        image = read_image(path)
        return image if self.transform is None else self.transform(image), number

    def __repr__(self) -> str:
        return f"ImageFolder({len(self)} images, {len(self.classes)} classes)"


def read_image(path: str | Path) -> NDArray[np.float32]:
    """The image in a file: float32 (3, height, width), from 0 to 1.

    Raises:
        DataError: Pillow is not installed, or the file is damaged.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise DataError(f"reading {path} needs Pillow: pip install 'hal-runtime[images]'") from error
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    return np.divide(pixels.transpose(2, 0, 1), np.float32(255), dtype=np.float32)


class TextLines(Dataset[Any]):
    """The lines of a text file, without their ends, read when they are asked for; only their places are in memory.

    Args:
        path: a file in UTF-8.
        transform: called with a line, such as a function that makes numbers of it.

    Raises:
        DataError: there is no such file; when a line is read, text that is not UTF-8.
    """

    def __init__(self, path: str | Path, transform: Callable[[str], Any] | None = None) -> None:
        self.path, self.transform = Path(path), transform
        try:
            with self.path.open("rb") as file:
                sizes = np.fromiter((len(line) for line in file), np.int64)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        self._ends = np.cumsum(sizes)
        self._sizes = sizes

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: SupportsIndex) -> Any:
        place = check_index(index, len(self), self)
        with self.path.open("rb") as file:
            file.seek(int(self._ends[place] - self._sizes[place]))
            line = file.read(int(self._sizes[place]))
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}, line {place % len(self) + 1}: not UTF-8 at byte {error.start}") from error
        return text if self.transform is None else self.transform(text)
