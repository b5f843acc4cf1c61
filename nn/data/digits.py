"""The 1,797 handwritten digits that ship with HAL, so that a first network trains with no download.

Optical Recognition of Handwritten Digits by E. Alpaydin and C. Kaynak, UCI Machine Learning Repository (1998),
doi 10.24432/C50P49, CC BY 4.0; DIGITS.md beside this file has the details.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hal.errors import DataError
from nn.data.images import ImageDataset, Transform, check_labels
from nn.data.sampler import permutation

FILE = Path(__file__).with_name("digits.csv.gz")
ITEMS, PIXELS, TEST_ITEMS = 1797, 64, 360


class Digits(ImageDataset):
    """8 x 8 handwritten digits: 1,437 to train on and 360 to test, each class in both in the same proportion.

    The split is the same on every machine.

    Args:
        train: the training part, or the test part.
        transform: called with the tensor of an image, float32 (1, 8, 8) from 0 to 1.
        target_transform: called with the class number.

    >>> image, label = Digits(train=False)[0]
    >>> image.shape
    (1, 8, 8)

    Raises:
        DataError: if the file that ships with the package is missing or damaged.
    """

    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    white: ClassVar[int] = 16

    def __init__(
        self, train: bool = True, transform: Transform | None = None, target_transform: Transform | None = None
    ) -> None:
        images, labels = read_digits(FILE)
        test = in_test(labels)
        part = ~test if train else test
        super().__init__(images[part], labels[part], transform, target_transform)
        self.train = train


def read_digits(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images, uint8 (1797, 1, 8, 8) from 0 to 16, and labels, int64 (1797,).

    Raises:
        DataError: if the file is missing, damaged, or holds something else.
    """
    cure = "install hal-runtime again"
    try:
        values = np.array(gzip.decompress(path.read_bytes()).replace(b"\n", b",").strip(b",").split(b","), np.int64)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path}: needed the digits that ship with the package, got {error}: {cure}") from error
    if values.size != ITEMS * (PIXELS + 1):
        raise DataError(f"{path}: needed {ITEMS} lines of {PIXELS + 1} numbers, got {values.size} numbers: {cure}")
    rows = values.reshape(ITEMS, PIXELS + 1)
    pixels, labels = rows[:, :PIXELS], rows[:, PIXELS]
    if pixels.min() < 0 or pixels.max() > Digits.white:
        raise DataError(f"{path}: needed pixels from 0 to {Digits.white}, got {pixels.min()} to {pixels.max()}: {cure}")
    return pixels.astype(np.uint8).reshape(-1, 1, 8, 8), check_labels(labels, len(Digits.classes), path)


def in_test(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which items are in the test part: `TEST_ITEMS` of them, from each class its share, at random but fixed."""
    counts = np.bincount(labels)
    exact = counts * TEST_ITEMS / len(labels)
    shares = np.floor(exact).astype(np.int64)
    most_short = np.argsort(shares - exact, kind="stable")[: TEST_ITEMS - shares.sum()]
    shares[most_short] += 1
    order = permutation(len(labels), seed=0, stream=0)
    test = np.zeros(len(labels), np.bool_)
    for label, share in enumerate(shares):
        test[order[labels[order] == label][:share]] = True
    return test
