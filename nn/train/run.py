"""One training run: what it consists of, how it is trained, and how well it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import hal
import nn
from nn import functional as F
from nn import metrics, optim
from nn.data import DataLoader, ImageDataset
from nn.fitting import Callback, History, fit
from nn.fitting.progress import Show
from nn.optim.lr_scheduler import ExponentialLR
from nn.train.tasks import Task


@dataclass(frozen=True)
class Settings:
    """What decides the result of a run, bit for bit on one device with one number of threads."""

    task: str
    seed: int
    batch_size: int
    lr: float
    decay: float


@dataclass
class Run:
    """A network on its way through a task.

    Attributes:
        data: the folder of the data set, if one was given.
        goal: how many epochs are wanted in all.
        history: the figures of the epochs that are done.
    """

    task: Task
    settings: Settings
    data: Path | None
    goal: int
    train_set: ImageDataset
    test_set: ImageDataset
    model: nn.Module
    loader: DataLoader
    history: History = field(default_factory=History)

    @classmethod
    def begin(
        cls, task: Task, settings: Settings, data: Path | None, goal: int, *, download: bool, workers: int
    ) -> Run:
        """A new run on the default device.

        Raises:
            DataError: a file of the data set is missing or damaged.
        """
        train_set, test_set = task.sets(data, download)
        hal.manual_seed(settings.seed)
        loader = DataLoader(
            train_set, batch_size=settings.batch_size, shuffle=True, generator=settings.seed, num_workers=workers
        )
        return cls(task, settings, data, goal, train_set, test_set, task.network(), loader)

    def train(self, callbacks: Sequence[Callback] = (), *, compile: bool = False, quiet: bool = True) -> None:
        """Train until the goal, or Ctrl-C.

        Raises:
            DivergedError: the loss of an epoch is not finite.
        """
        optimizer = optim.Adam(self.model.parameters(), lr=self.settings.lr)
        self.history = fit(
            self.model, optimizer, F.cross_entropy, self.loader, epochs=self.goal,
            metrics={"accuracy": metrics.Accuracy()}, schedule=ExponentialLR(optimizer, self.settings.decay),
            compile=compile, callbacks=callbacks, quiet=quiet,
        )  # fmt: skip

    @property
    def device(self) -> hal.Device:
        """Where the network is."""
        found: hal.Device = next(self.model.parameters()).device
        return found

    @property
    def seconds(self) -> float:
        """Spent in training."""
        return sum(row["seconds"] for row in self.history)

    def evaluate(self, show: Show) -> Score:
        """How many test images of each class the network names rightly."""
        self.model.eval()
        classes = len(self.task.classes)
        right, count = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
        with hal.no_grad():
            for images, labels in DataLoader(self.test_set, batch_size=max(256, self.settings.batch_size)):
                named = self.model(images).argmax(dim=1).cpu().numpy()
                wanted = labels.cpu().numpy()
                count += np.bincount(wanted, minlength=classes)
                right += np.bincount(wanted[named == wanted], minlength=classes)
                show(int(count.sum()), f"accuracy {right.sum() / count.sum():7.2%}")
        return Score([int(n) for n in right], [int(n) for n in count])


@dataclass(frozen=True)
class Score:
    """Test images named rightly, and all of them, by class."""

    right: list[int]
    count: list[int]

    @property
    def accuracy(self) -> float:
        """Over all classes."""
        return sum(self.right) / sum(self.count)

    def of_class(self, i: int) -> float | None:
        """Of class number `i`; None if there is no image of it."""
        return self.right[i] / self.count[i] if self.count[i] else None
