"""Transfer learning: a network that knows the digits 0 to 4 learns 5 to 9 from fifteen pictures of each.

What it has learned of strokes is kept and frozen; only a new last layer is trained. Beside it the same network begins
with nothing.

    python transfer.py
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import hal
import nn
from nn import functional as F
from nn import metrics, optim
from nn.data import DataLoader, Digits, Subset

SHOTS = 15


def network() -> nn.Sequential:
    """A convolutional network for 8 x 8 digits: features, and a last layer for five classes."""
    features = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    )  # fmt: skip
    return nn.Sequential(features, nn.Linear(512, 5))


def some(train: bool, first: int, each: int | None = None) -> Subset[Any]:
    """The digits `first` to `first` + 4, renumbered from 0; of each the first `each` only."""
    data = Digits(train=train, target_transform=lambda label: label - first)
    chosen = []
    for digit in range(first, first + 5):
        chosen += np.flatnonzero(data.labels == digit)[:each].tolist()
    return Subset(data, chosen)


def learn(net: nn.Module, train: Subset[Any], test: Subset[Any], epochs: int) -> float:
    """Train what requires gradients, and measure."""
    hal.manual_seed(0)
    optimizer = optim.Adam([p for p in net.parameters() if p.requires_grad], lr=3e-3)
    loader = DataLoader(train, batch_size=16, shuffle=True, generator=0)
    nn.fit(net, optimizer, F.cross_entropy, loader, epochs=epochs, quiet=True)
    found = nn.fitting.evaluate(
        net, F.cross_entropy, DataLoader(test, batch_size=500), metrics={"accuracy": metrics.Accuracy()}
    )
    accuracy: float = found["accuracy"]
    return accuracy


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    hal.manual_seed(0)
    teacher = network()
    print(f"digits 0 to 4, all pictures: {learn(teacher, some(True, 0), some(False, 0), 8):.2%}")

    student = network()
    student[0].load_state_dict(teacher[0].state_dict())
    student[0].requires_grad_(False)
    few, test = some(True, 5, SHOTS), some(False, 5)
    print(f"digits 5 to 9, {SHOTS} pictures each, features kept: {learn(student, few, test, 20):.2%}")
    print(f"digits 5 to 9, {SHOTS} pictures each, from nothing:  {learn(network(), few, test, 20):.2%}")


if __name__ == "__main__":
    main()
