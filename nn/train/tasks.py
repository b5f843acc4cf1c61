"""What can be trained on: for each data set its files, a network that suits it, and settings that work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nn
from hal.errors import DataError
from nn.data import CIFAR10, MNIST, Digits, ImageDataset

Sets = tuple[ImageDataset, ImageDataset]


@dataclass(frozen=True)
class Task:
    """A data set to learn.

    Attributes:
        title: for people.
        classes: names of the classes, in the order of their numbers.
        sets: from a folder, and whether to download what is missing, to the training and the test set.
        network: a new network.
        epochs, batch_size, lr: what `hal train` does if not told otherwise; lr is Adam's in the first epoch.
        decay: what the learning rate is multiplied with after each epoch. A rate that depends on the epoch alone, and
            not on how many are to come, lets a finished run go on as if it had been asked for more at once.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    sets: Callable[[Path | None, bool], Sets]
    network: Callable[[], nn.Module]
    epochs: int
    batch_size: int
    lr: float
    decay: float


def _digits(folder: Path | None, download: bool) -> Sets:
    if folder is not None:
        raise DataError(
            f"the digits ship with HAL and need no --data, got {folder}: leave it out, or name mnist or cifar10"
        )
    return Digits(train=True), Digits(train=False)


def _mnist(folder: Path | None, download: bool) -> Sets:
    root = _folder(folder, "mnist")
    return MNIST(root, train=True, download=download), MNIST(root, train=False, download=download)


def _cifar10(folder: Path | None, download: bool) -> Sets:
    root = _folder(folder, "cifar10")
    return CIFAR10(root, train=True, download=download), CIFAR10(root, train=False, download=download)


def _folder(given: Path | None, name: str) -> Path:
    from hal.config import cache_dir

    return given if given is not None else cache_dir() / "data" / name


def small_network() -> nn.Module:
    """Two convolutions with batch normalisation and a linear layer, for 1 x 8 x 8 images."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.25), nn.Linear(512, 10),
    )  # fmt: skip


def lenet() -> nn.Module:
    """LeNet-5 with ReLU and maximum pooling, for 1 x 28 x 28 images (LeCun et al., 1998)."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def convolutional_network() -> nn.Module:
    """Three pairs of 3 x 3 convolutions with batch normalisation, for 3 x 32 x 32 images."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 128)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2),
        ]  # fmt: skip
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(2048, 10))


# fmt: off
TASKS = {
    task.name: task
    for task in (
        Task("digits", "the UCI handwritten digits", Digits.classes, _digits, small_network,
             epochs=12, batch_size=32, lr=3e-3, decay=0.8),
        Task("mnist", "MNIST", MNIST.classes, _mnist, lenet,
             epochs=5, batch_size=64, lr=2e-3, decay=0.6),
        Task("cifar10", "CIFAR-10", CIFAR10.classes, _cifar10, convolutional_network,
             epochs=10, batch_size=128, lr=2e-3, decay=0.8),
    )
}
# fmt: on
