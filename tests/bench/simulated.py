"""Measures what training on the simulated TPU costs in accuracy: MLP and LeNet-5 on MNIST, float32, bfloat16 and int8.

    python tests/bench/simulated.py FOLDER [--epochs 2] [--seeds 2] [--json results.json]

FOLDER has MNIST's IDX files. The same weights and batches for both devices: float32 on the CPU, and bfloat16 products
with float32 sums and weights on `systolic`. The network that the CPU trained is quantized, and infers on tpu-v1. Beside
each accuracy stands how long a step took, the two devices in turn.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import hal
import hal_systolic
import nn
from nn.data import MNIST
from nn.models import MLP, LeNet5

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "MLP 784-256-128-10": lambda: MLP([784, 256, 128, 10]),
    "LeNet-5": LeNet5,
}
DEVICES = ("cpu", "systolic")
CALIBRATION = 512  # images


def arrays(folder: str, train: bool) -> tuple[Any, Any]:
    """Images, float32 (n, 1, 28, 28) from 0 to 1, and labels."""
    data = MNIST(folder, train=train)
    images = np.asarray(data.images, np.float32) / 255
    return images.reshape(-1, 1, 28, 28), np.asarray(data.labels)


def accuracy(net: nn.Module, device: str, images: Any, labels: Any) -> float:
    """Percent of the images that are told right."""
    right = 0
    with hal.no_grad():
        for i in range(0, len(images), 1000):
            scores = net.eval()(hal.tensor(images[i : i + 1000], device=device))
            right += int((scores.cpu().numpy().argmax(1) == labels[i : i + 1000]).sum())
    return 100 * right / len(images)


def trained(make: Callable[[], nn.Module], seed: int, epochs: int, images: Any, labels: Any) -> tuple[Any, Any]:
    """One network for each device after the same training, and seconds of each step."""
    nets, optimizers, seconds = {}, {}, {d: [] for d in DEVICES}
    for device in DEVICES:
        hal.manual_seed(seed)
        with hal.device("cpu"):
            nets[device] = make()
        nets[device].to(device=device)
        optimizers[device] = nn.optim.Adam(nets[device].parameters(), lr=1e-3)
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for i in range(0, len(order) - 127, 128):
            rows = order[i : i + 128]
            for device in DEVICES:
                start = time.perf_counter()
                x, y = hal.tensor(images[rows], device=device), hal.tensor(labels[rows], device=device)
                optimizers[device].zero_grad()
                nn.functional.cross_entropy(nets[device](x), y).backward()
                optimizers[device].step()
                seconds[device].append(time.perf_counter() - start)
    return nets, seconds


def simulated_step(net: nn.Module, images: Any, labels: Any) -> dict[str, float]:
    """Cycles, time and energy of one step of training on the machine."""
    optimizer = nn.optim.Adam(net.parameters(), lr=1e-3)
    x, y = hal.tensor(images[:128], device="systolic"), hal.tensor(labels[:128], device="systolic")
    with hal_systolic.report() as r:
        nn.functional.cross_entropy(net.train()(x), y).backward()
        optimizer.step()
    return {"cycles": r.cycles, "seconds": r.seconds, "joules": r.joules}


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json")
    asked = parser.parse_args()
    images, labels = arrays(asked.folder, True)
    test_images, test_labels = arrays(asked.folder, False)
    found: list[dict[str, Any]] = []
    for name, make in NETWORKS.items():
        for seed in range(asked.seeds):
            nets, seconds = trained(make, seed, asked.epochs, images, labels)
            quantized = nn.quantize(nets["cpu"], [hal.tensor(images[:CALIBRATION])]).to(device="systolic:tpu-v1")
            row = {
                "network": name, "seed": seed, "epochs": asked.epochs,
                "float32": accuracy(nets["cpu"], "cpu", test_images, test_labels),
                "bfloat16": accuracy(nets["systolic"], "systolic", test_images, test_labels),
                "int8 on tpu-v1": accuracy(quantized, "systolic:tpu-v1", test_images, test_labels),
                "ms a step": {d: 1e3 * statistics.median(s) for d, s in seconds.items()},
                "simulated step": simulated_step(nets["systolic"], images, labels),
            }  # fmt: skip
            found.append(row)
            print(json.dumps(row), flush=True)
    if asked.json:
        result = {"python": platform.python_version(), "numpy": np.__version__, "rows": found}
        Path(asked.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
