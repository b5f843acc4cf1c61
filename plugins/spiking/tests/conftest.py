"""The device, whether the plugin is installed or only on the path, and two networks trained on the digits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import hal
import nn
import numpy as np
import pytest
from hal.plugin import Array
from hal.registry import registry
from nn import functional as F
from nn import optim
from nn.data import DataLoader, Digits

import hal_spiking

if "spiking" not in registry().backends:
    hal.register(hal_spiking)


@dataclass(frozen=True)
class Trained:
    """A network that was trained on the CPU, and its answers there."""

    network: nn.Module
    answers: Array
    accuracy: float


@dataclass(frozen=True)
class Images:
    """The test digits, and some of those that networks were trained on."""

    test: hal.Tensor
    labels: Array
    calibration: hal.Tensor


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests."""
    for name in ("HAL_BACKEND", "HAL_FALLBACK", "HAL_COPIES", "HAL_SPIKING_STEPS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def spiking() -> Iterator[hal.Device]:
    """The device, on which nothing falls back unseen."""
    with hal.fallback("error"):
        yield hal.device("spiking")


@pytest.fixture(scope="session")
def images() -> Images:
    test, labels = next(iter(DataLoader(Digits(train=False), batch_size=360)))
    calibration, _ = next(iter(DataLoader(Digits(train=True), batch_size=512)))
    return Images(test, labels.numpy(), calibration)


def trained(network: nn.Module, images: Images, epochs: int) -> Trained:
    optimizer = optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(epochs):
        for x, y in DataLoader(Digits(train=True), batch_size=32, shuffle=True, generator=0):
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()
    network.eval()
    with hal.no_grad():
        answers = np.argmax(network(images.test).numpy(), axis=1)
    return Trained(network, answers, float((answers == images.labels).mean()))


@pytest.fixture(scope="session")
def mlp(images: Images) -> Trained:
    """Two hidden layers."""
    hal.manual_seed(0)
    layers = (
        nn.Flatten(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    return trained(nn.Sequential(*layers), images, 12)


@pytest.fixture(scope="session")
def cnn(images: Images) -> Trained:
    """Two convolutions with batch norm, one kind of pooling after each."""
    hal.manual_seed(0)
    layers = (
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Dropout(0.25), nn.Linear(64, 10),
    )  # fmt: skip
    return trained(nn.Sequential(*layers), images, 8)
