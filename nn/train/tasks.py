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
        epochs, batch_size, lr: what `hal train` does if not told otherwise; lr is Adam's.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    sets: Callable[[Path | None, bool], Sets]
    network: Callable[[], nn.Module]
    epochs: int
    batch_size: int
    lr: float


def _digits(folder: Path | None, download: bool) -> Sets:
    if folder is not None:
        raise DataError(f"the digits ship with HAL and need no --data, got {folder}: leave it out, or say mnist or cifar10")
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
    """Two normalised convolutions and two linear layers for 1 x 8 x 8 images: 98 to 99 % of the test digits, by seed."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.25), nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.25), nn.Linear(64, 10),
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


TEN = tuple("0123456789")
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TASKS = {
    task.name: task
    for task in (
        Task("digits", "the UCI handwritten digits", TEN, _digits, small_network, 15, 32, 2e-3),
        Task("mnist", "MNIST", TEN, _mnist, lenet, 5, 64, 1e-3),
        Task("cifar10", "CIFAR-10", THINGS, _cifar10, convolutional_network, 10, 128, 1e-3),
    )
}
