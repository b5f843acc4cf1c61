"""One training run: what it consists of, an epoch of it, and how well it does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import hal
import nn
from nn import functional as F
from nn import optim
from nn.data import DataLoader, ImageDataset
from nn.train.tasks import Task

Show = Callable[[int, float, float, float], None]  # images done, mean loss, accuracy, images per second
SHOW_EVERY = 0.2  # seconds between looks at the loss: each waits for the device


@dataclass(frozen=True)
class Settings:
    """What decides the result of a run, bit for bit on one device."""

    task: str
    seed: int
    batch_size: int
    lr: float


@dataclass
class Run:
    """A network on its way through a task.

    Attributes:
        epoch: how many are done.
        losses: the mean training loss of each.
        seconds: spent in training.
        images: trained on.
    """

    task: Task
    settings: Settings
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

    @classmethod
    def begin(cls, task: Task, settings: Settings, sets: tuple[ImageDataset, ImageDataset], workers: int) -> Run:
        """A new run on the default device."""
        hal.manual_seed(settings.seed)
        model = task.network()
        optimizer = optim.Adam(model.parameters(), lr=settings.lr)
        loader = DataLoader(
            sets[0], batch_size=settings.batch_size, shuffle=True, generator=settings.seed, num_workers=workers
        )
        return cls(task, settings, *sets, model, optimizer, loader)

    def train_epoch(self, show: Show) -> None:
        """One pass over the training set."""
        self.model.train()
        start = shown = time.perf_counter()
        total: Any = 0.0
        right: Any = 0
        done = 0
        for images, labels in self.loader:
            self.optimizer.zero_grad()
            scores = self.model(images)
            loss = F.cross_entropy(scores, labels)
            loss.backward()
            self.optimizer.step()
            count = len(labels)
            with hal.no_grad():
                total = loss.detach() * float(count) + total
                right = (scores.argmax(dim=1) == labels).sum() + right
            done += count
            now = time.perf_counter()
            if now - shown >= SHOW_EVERY:
                shown = now
                show(done, float(total) / done, int(right) / done, done / (now - start))
        mean, accuracy = float(total) / done, int(right) / done
        took = time.perf_counter() - start
        self.seconds += took
        self.images += done
        self.epoch += 1
        self.losses.append(mean)
        self.accuracies.append(accuracy)
        show(done, mean, accuracy, done / took)

    def evaluate(self) -> Score:
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

    def of_class(self, i: int) -> float:
        """Of class number `i`; NaN if there is none of it."""
        return self.right[i] / self.count[i] if self.count[i] else float("nan")
