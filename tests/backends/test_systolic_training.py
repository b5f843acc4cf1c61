"""Training on the simulated machine: as good as in float32, wholly on it, and the same bits every time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal.op import Array
from nn.data import Digits
from nn.models import MLP, LeNet5

HALF_A_POINT = 0.5
SEEDS = 2


@cache
def digits(train: bool) -> tuple[Array, Array]:
    """The digits that ship with nn, float32 (n, 1, 8, 8), and their labels."""
    data = Digits(train=train)
    return np.asarray(data.images, np.float32).reshape(-1, 1, 8, 8) / 16, np.asarray(data.labels)


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 10)
    )


def prepared(images: Array, size: int) -> Array:
    """Images of 8 x 8 enlarged to `size`."""
    return images.repeat(size // 8, 2).repeat(size // 8, 3) if size > 8 else images


def trained(make: Callable[[], nn.Module], device: str, epochs: int, seed: int, size: int = 8) -> nn.Module:
    """A network after so many epochs of Adam, from the seed's weights, on the seed's batches."""
    images, labels = digits(True)
    images = prepared(images, size)
    hal.manual_seed(seed)
    with hal.device("cpu"):
        net = make()
    net.to(device=device)
    optimizer = nn.optim.Adam(net.parameters(), lr=0.0)
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - epoch / epochs)  # small steps at the end: less is left to chance
        order = rng.permutation(len(images))
        for i in range(0, len(order) - 63, 64):
            rows = order[i : i + 64]
            x, y = hal.tensor(images[rows], device=device), hal.tensor(labels[rows], device=device)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    return net.eval()


def accuracy(net: nn.Module, device: str, size: int = 8) -> float:
    """Percent of the test digits that are told right."""
    images, labels = digits(False)
    with hal.no_grad():
        scores = net(hal.tensor(prepared(images, size), device=device)).cpu().numpy()
    return 100 * float((scores.argmax(1) == labels).mean())


def test_a_network_learns_on_the_machine_and_nothing_falls_back() -> None:
    with hal.fallback("error"), hal.copies("error"):
        net = trained(small, "systolic", 3, 0)
        assert accuracy(net, "systolic") > 80


def test_a_trained_network_infers_in_integers_on_a_chip_that_has_no_others() -> None:
    net = trained(small, "cpu", 3, 0)
    images, _ = digits(True)
    quantized = nn.quantize(net, [hal.tensor(images[:256])]).to(device="systolic:tpu-v1")
    with hal.fallback("error"):
        assert abs(accuracy(quantized, "systolic:tpu-v1") - accuracy(net, "cpu")) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("make", "size", "epochs"), [
    (lambda: MLP([64, 64, 32, 10]), 8, 15), (lambda: LeNet5(padding=0), 32, 6),
], ids=["MLP", "LeNet-5"])  # fmt: skip
def test_bfloat16_products_learn_as_well_as_float32(make: Any, size: int, epochs: int) -> None:
    results = {
        device: [accuracy(trained(make, device, epochs, seed, size), device, size) for seed in range(SEEDS)]
        for device in ("cpu", "systolic")
    }
    assert np.mean(results["cpu"]) > 90
    assert np.mean(results["systolic"]) >= np.mean(results["cpu"]) - HALF_A_POINT, results


ONE = """
import hashlib, sys
sys.path.insert(0, {folder!r})
from test_systolic_training import small, trained
net = trained(small, "systolic", 1, 0)
print(hashlib.sha256(b"".join(p.detach().cpu().numpy().tobytes() for p in net.parameters())).hexdigest())
"""


@pytest.mark.slow
def test_bits_are_the_same_for_any_number_of_threads() -> None:
    found = set()
    for threads in ("1", "2", "4"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        code = ONE.format(folder=os.path.dirname(__file__))
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        found.add(run.stdout.strip())
    assert len(found) == 1
