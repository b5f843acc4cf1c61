"""One training run: what it consists of, an epoch of it, and how well it does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import hal
import nn
from hal import Tensor
from nn import functional as F
from nn import optim
from nn.data import DataLoader, ImageDataset
from nn.fitting.loop import DivergedError
from nn.train.tasks import Task

Show = Callable[[int, str], None]  # images done, and figures to show beside
SHOW_EVERY = 0.2  # seconds between looks at the loss: each waits for the device


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
        epoch: how many are done.
        losses: the mean training loss of each.
        accuracies: the part of the training images that was named rightly in each.
        seconds: spent in training.
        images: trained on.
        compiled: whether steps are traced once and replayed.
    """

    task: Task
    settings: Settings
    data: Path | None
    goal: int
    train_set: ImageDataset
    test_set: ImageDataset
    model: nn.Module
    optimizer: optim.Optimizer
    loader: DataLoader
    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0
    compiled: bool = False

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
        model = task.network()
        optimizer = optim.Adam(model.parameters(), lr=settings.lr)
        loader = DataLoader(
            train_set, batch_size=settings.batch_size, shuffle=True, generator=settings.seed, num_workers=workers
        )
        return cls(task, settings, data, goal, train_set, test_set, model, optimizer, loader)

    @property
    def device(self) -> hal.Device:
        """Where the network is."""
        found: hal.Device = next(self.model.parameters()).device
        return found

    def train_epoch(self, show: Show) -> None:
        """One pass over the training set.

        Raises:
            DivergedError: its loss is not finite.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * self.settings.decay**self.epoch
        self.model.train()
        start = shown = time.perf_counter()
        total: Any = 0.0  # both sums stay on the device, which is waited for only where they are shown
        right: Any = 0
        done = 0
        for images, labels in self.loader:
            loss, named = self._step(images, labels)
            total, right = loss + total, named + right
            done += len(labels)
            now = time.perf_counter()
            if now - shown >= SHOW_EVERY:
                shown = now
                show(done, figures(float(total) / done, int(right) / done, done / (now - start)))
        mean, accuracy = float(total) / done, int(right) / done
        took = time.perf_counter() - start
        if not math.isfinite(mean):
            raise DivergedError(
                f"the training loss became {mean} in epoch {self.epoch + 1}, so the network learns no more: "
                f"try a smaller --lr, got {self.settings.lr:g}"
            )
        self.seconds += took
        self.images += done
        self.epoch += 1
        self.losses.append(mean)
        self.accuracies.append(accuracy)
        show(done, figures(mean, accuracy, done / took))

    @cached_property
    def _step(self) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """One step of training: gives the sum of the losses of its images, and how many were named rightly."""

        def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            self.optimizer.zero_grad()
            scores = self.model(images)
            loss = F.cross_entropy(scores, labels)
            loss.backward()
            self.optimizer.step()
            return loss.detach() * float(len(labels)), (scores.detach().argmax(dim=1) == labels).sum()

        return hal.compile(step) if self.compiled else step

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


def figures(loss: float, accuracy: float, speed: float) -> str:
    """How an epoch goes, in one line."""
    return f"loss {loss:.4f}  accuracy {accuracy:7.2%}  {speed:,.0f} images/s"


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
