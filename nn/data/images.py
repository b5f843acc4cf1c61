"""What the image data sets have in common: bytes in memory, float32 in 0 to 1 and class numbers outside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from hal.errors import DataError
from nn.data import transforms
from nn.data.collate import as_tensor
from nn.data.dataset import Dataset, Indices, check_index, check_indices

Transform = Callable[[Any], Any]


class ImageDataset(Dataset[tuple[Any, Any]]):
    """Labelled images. An item is a float32 tensor of shape (channels, height, width) from 0 to 1, and an int.

    A batch is a float32 tensor of shape (batch, channels, height, width) and an int64 tensor of shape (batch,).

    Attributes:
        images: uint8, (items, channels, height, width): a quarter of the memory of the floats they become.
        labels: int64, (items,).
        classes: the name of each class.
        transform: called with the tensor of an image, or if it is of `nn.data.transforms` with its array; what it
            returns is the item's first part.
        target_transform: called with the class number; what it returns is the item's second part.
    """

    classes: ClassVar[tuple[str, ...]] = ()
    white: ClassVar[int] = 255  # the value in `images` that becomes 1.0

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        transform: Transform | None = None,
        target_transform: Transform | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.transform = transform
        self.target_transform = target_transform

    @property
    def targets(self) -> Any:
        """The class numbers as an int64 tensor of shape (items,), by torchvision's name."""
        return as_tensor(self.labels)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each class."""
        return {name: number for number, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: SupportsIndex) -> tuple[Any, Any]:
        place = check_index(index, len(self), self)
        image: Any = self._floats(self.images[place])
        label = int(self.labels[place])
        if isinstance(self.transform, transforms.Transform):
            image = self.transform(image)  # on the array: the loader makes one tensor of the whole batch
        elif self.transform is not None:
            image = self.transform(as_tensor(image))
        else:
            image = as_tensor(image)
        return image, label if self.target_transform is None else self.target_transform(label)

    def read_batch(self, indices: Indices) -> list[Any] | None:
        """Images and labels of these items; None if a transform wants to see them one by one."""
        if self.transform is not None or self.target_transform is not None:
            return None
        rows = check_indices(indices, len(self), self)
        return [self._floats(self.images[rows]), self.labels[rows]]

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        return f"{type(self).__name__}({len(self)} images of {shape}, {len(self.classes)} classes)"

    def _floats(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.divide(pixels, np.float32(self.white), dtype=np.float32)


def check_labels(labels: NDArray[Any], classes: int, path: Path) -> NDArray[np.int64]:
    """The labels as int64, or a DataError that names the first one out of range."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise DataError(
            f"{path}: needed labels from 0 to {classes - 1}, got {labels[wrong[0]]} at item {wrong[0]}: "
            f"the file is damaged or another data set's, get it again"
        )
    return labels.astype(np.int64)
