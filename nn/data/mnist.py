"""MNIST and Fashion-MNIST, read from their official IDX files."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hal.errors import DataError
from nn.data.collate import as_tensor
from nn.data.download import by_hand, fetch
from nn.data.idx import read_idx
from nn.data.images import ImageDataset, Transform, check_labels

CHECKSUMS = {  # md5 of the uncompressed files: the same bytes may be compressed in many ways
    "MNIST": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
SIDE = 28


class MNIST(ImageDataset):
    """28 x 28 handwritten digits: 60,000 to train on and 10,000 to test.

    Args:
        root: the folder with the IDX files, plain or compressed (.gz), or the folder that has them in `MNIST/raw`, as
            torchvision does.
        train: the training part, or the test part.
        transform: called with the tensor of an image, float32 (1, 28, 28) from 0 to 1.
        target_transform: called with the class number.
        download: fetch files that are missing, into `root/MNIST/raw`. Each is checked before it is kept.
        verify: compare the md5 of the files that are there with the official one.

    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits"; torchvision.datasets.MNIST.

    Raises:
        DataError: if a file is missing, cannot be fetched, or is damaged, not IDX, of another shape or element type,
            or another data set's.
    """

    source: ClassVar[str] = "MNIST"
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")

    def __init__(
        self,
        root: str | os.PathLike[str],
        train: bool = True,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        download: bool = False,
        *,
        verify: bool = False,
    ) -> None:
        self.root = Path(root)
        self.train = train
        names = [f"{'train' if train else 't10k'}-{part}-ubyte" for part in ("images-idx3", "labels-idx1")]
        paths = self._find(names, download)
        images = self._read(names[0], paths[0], (SIDE, SIDE), verify)
        labels = self._read(names[1], paths[1], (), verify)
        if len(images) != len(labels):
            raise DataError(
                f"{self.source} needs a label for each image, got {len(images)} images in {paths[0]} and "
                f"{len(labels)} labels in {paths[1]}: get both files again"
            )
        checked = check_labels(labels, len(self.classes), paths[1])
        super().__init__(images[:, np.newaxis], checked, transform, target_transform)

    @property
    def data(self) -> Any:
        """The images as a uint8 tensor of shape (items, 28, 28), by torchvision's name."""
        return as_tensor(self.images[:, 0])

    def _find(self, names: list[str], download: bool) -> list[Path]:
        """The path of each file; what is missing is fetched first if that is wanted."""
        places = [self.root, self.root / self.source / "raw"]
        # torchvision's folder goes first: there, MNIST and Fashion-MNIST with one root are not taken for each other.
        folder = next((place for place in reversed(places) if any(_in(place, name) for name in names)), places[1])
        missing = [name for name in names if _in(folder, name) is None]
        cure = by_hand(self.source, missing, places, kind="plain or .gz") if missing else ""
        if missing and not download:
            raise DataError(f"{cure}, or pass download=True")
        for name in missing:
            try:
                fetch(self.source, f"{name}.gz", folder, partial(self._accept, name, folder / f"{name}.gz"))
            except DataError as error:
                raise DataError(f"{error}. {cure}") from error
        return [found for name in names if (found := _in(folder, name)) is not None]

    def _accept(self, name: str, target: Path, fetched: Path) -> None:
        """Keep a fetched file under its name if it is the official one."""
        self._compare(name, fetched, read_idx(fetched)[1])
        fetched.replace(target)

    def _compare(self, name: str, path: Path, digest: str) -> None:
        official = CHECKSUMS[self.source][name]
        if digest != official:
            raise DataError(
                f"{path}: needed {self.source}'s {name} with md5 {official} when uncompressed, got {digest}: "
                f"get the file again"
            )

    def _read(self, name: str, path: Path, shape: tuple[int, ...], verify: bool) -> NDArray[np.uint8]:
        """One file, which must hold uint8 elements of this shape."""
        array, digest = read_idx(path)
        for source, files in CHECKSUMS.items():
            for file, known in files.items():
                if digest == known and (source, file) != (self.source, name):
                    raise DataError(f"{path}: needed {self.source}'s {name}, got {source}'s {file}: exchange the file")
        if verify:
            self._compare(name, path, digest)
        if array.dtype != np.uint8 or array.ndim != 1 + len(shape) or array.shape[1:] != shape or not len(array):
            needed = ", ".join(["n", *map(str, shape)])
            raise DataError(
                f"{path}: needed uint8 elements of shape ({needed}) with n > 0, got {array.dtype} of shape "
                f"{array.shape}: get the file again"
            )
        return array


class FashionMNIST(MNIST):
    """28 x 28 images of clothes, in MNIST's files and sizes: 60,000 to train on and 10,000 to test.

    Arguments and errors as for `MNIST`; with `download=True` the files go to `root/FashionMNIST/raw`.

    Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
    2017, arXiv:1708.07747; torchvision.datasets.FashionMNIST.
    """

    source: ClassVar[str] = "FashionMNIST"
    classes: ClassVar[tuple[str, ...]] = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip


def _in(folder: Path, name: str) -> Path | None:
    """The file in the folder, plain or compressed."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
