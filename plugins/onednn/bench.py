"""Times hal with oneDNN, hal without it, and torch, on the same work and in turns: `python bench.py [NAME...]`.

Other programs on the machine change every time, so only the ratios of one run mean something. All three use as many
threads as OMP_NUM_THREADS says.
"""

from __future__ import annotations

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # torch brings the OpenMP: let it wait as hal_onednn asks for

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import hal_onednn
import numpy as np
import torch

import hal
import nn

ROUNDS = int(os.environ.get("ROUNDS", "9"))
AT_LEAST = 0.05  # seconds that a contender is timed for in each round
Step = Callable[[], Any]
WHO = ("with oneDNN", "without", "torch")


def clock() -> float:
    """Seconds: of this thread's own computing where there is one, so that neighbours do not count; else of the wall."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def race(name: str, ours: Step, theirs: Step) -> None:
    """Time the three in turns, and print the medians in milliseconds and what they are to ours."""
    modes = {WHO[0]: (nullcontext, ours), WHO[1]: (hal_onednn.off, ours), WHO[2]: (nullcontext, theirs)}
    times: dict[str, list[float]] = {who: [] for who in WHO}
    counts = dict.fromkeys(WHO, 1)
    for round_ in range(ROUNDS + 1):
        for who, (mode, step) in modes.items():
            with mode():
                step()  # the decisions and primitives, and warm caches
                start = clock()
                for _ in range(counts[who]):
                    step()
                taken = (clock() - start) / counts[who]
            if round_ == 0:
                counts[who] = max(1, min(200, int(AT_LEAST / taken)))
            else:
                times[who].append(taken)
    medians = {who: statistics.median(t) for who, t in times.items()}
    ratios = {who: statistics.median([t / o for t, o in zip(times[who], times[WHO[0]], strict=True)]) for who in WHO}
    columns = [f"{who} {medians[who] * 1e3:9.3f} ms {ratios[who]:6.2f}" for who in WHO]
    print(f"{name:34}", *columns, sep="   ", flush=True)


def images(*shape: int, gradient: bool = False) -> tuple[hal.Tensor, torch.Tensor]:
    """The same random numbers for both."""
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    return hal.tensor(values, requires_grad=gradient), torch.tensor(values, requires_grad=gradient)


def layers(name: str, make: Callable[[Any], Any], *shape: int, first: bool = False) -> None:
    """Race a network forward, and forward and backward (by the input too, unless it is a network's first)."""
    models = make(nn), make(torch.nn)
    x, y = images(*shape)

    def forward(model: Any, given: Any, no_grad: Any) -> Step:
        def step() -> None:
            with no_grad():
                model(given)

        return step

    race(f"{name}, forward", forward(models[0], x, hal.no_grad), forward(models[1], y, torch.no_grad))
    x, y = images(*shape, gradient=not first)

    def both(model: Any, given: Any) -> Step:
        back: list[Any] = []

        def step() -> None:
            model.zero_grad()
            given.grad = None
            out = model(given)
            if not back:
                back.append(out.detach() * 1)
            out.backward(back[0])

        return step

    race(f"{name}, and backward", both(models[0], x), both(models[1], y))


def lenet(kit: Any) -> Any:
    """LeNet-5 with maxima and ReLU."""
    return kit.Sequential(
        kit.Conv2d(1, 6, 5, padding=2), kit.ReLU(), kit.MaxPool2d(2), kit.Conv2d(6, 16, 5), kit.ReLU(),
        kit.MaxPool2d(2), kit.Flatten(), kit.Linear(400, 120), kit.ReLU(), kit.Linear(120, 84), kit.ReLU(),
        kit.Linear(84, 10),
    )  # fmt: skip


def training(name: str, make: Callable[[Any], Any], *shape: int, classes: int = 10) -> None:
    """Race a training step: forward, backward, and an update."""
    x, y = images(*shape)
    labels = np.random.default_rng(1).integers(0, classes, shape[0])

    def step_of(kit: Any, given: Any, target: Any, sgd: Any) -> Step:
        model = make(kit)
        loss, optimizer = kit.CrossEntropyLoss(), sgd(model.parameters(), lr=0.01, momentum=0.9)

        def step() -> None:
            optimizer.zero_grad()
            loss(model(given), target).backward()
            optimizer.step()

        return step

    ours = step_of(nn, x, hal.tensor(labels), nn.optim.SGD)
    race(name, ours, step_of(torch.nn, y, torch.tensor(labels), torch.optim.SGD))


def product(m: int, k: int, n: int) -> None:
    """Race a matrix product."""
    a, b = images(m, k), images(k, n)
    race(f"matmul {m} x {k} x {n}", lambda: a[0] @ b[0], lambda: a[1] @ b[1])


def block(kit: Any) -> Any:
    """Two thirds of a basic block of a ResNet."""
    return kit.Sequential(
        kit.Conv2d(64, 64, 3, padding=1, bias=False), kit.BatchNorm2d(64), kit.ReLU(),
        kit.Conv2d(64, 64, 3, padding=1, bias=False), kit.BatchNorm2d(64), kit.ReLU(),
    )  # fmt: skip


def conv(*sizes: int, **settings: Any) -> Callable[[Any], Any]:
    """One convolution, of hal or of torch."""
    return lambda kit: kit.Conv2d(*sizes, **settings)


RACES: list[tuple[str, Callable[[], None]]] = [
    ("5x5", lambda: layers("5x5 64->64, 12x12, batch 128", conv(64, 64, 5, padding=2), 128, 64, 12, 12)),
    ("lenet1", lambda: layers("LeNet 1->6, 28x28, batch 64", conv(1, 6, 5, padding=2), 64, 1, 28, 28, first=True)),
    ("lenet2", lambda: layers("LeNet 6->16, 14x14, batch 64", conv(6, 16, 5), 64, 6, 14, 14)),
    ("3x3", lambda: layers("3x3 64->64, 56x56, batch 8", conv(64, 64, 3, padding=1), 8, 64, 56, 56)),
    ("1x1", lambda: layers("1x1 64->256, 56x56, batch 8", conv(64, 256, 1), 8, 64, 56, 56)),
    ("max", lambda: layers("max pool 2x2, 64, 56x56, batch 8", lambda kit: kit.MaxPool2d(2), 8, 64, 56, 56)),
    ("avg", lambda: layers("avg pool 2x2, 64, 56x56, batch 8", lambda kit: kit.AvgPool2d(2), 8, 64, 56, 56)),
    ("block", lambda: layers("two of conv, norm, relu, 56x56", block, 8, 64, 56, 56)),
    ("layer", lambda: layers("layer norm of 1024 x 256", lambda kit: kit.LayerNorm(256), 1024, 256)),
    ("train", lambda: training("LeNet, batch 64, training step", lenet, 64, 1, 28, 28)),
    ("matmul", lambda: product(64, 400, 120)),
    ("matmul", lambda: product(256, 256, 256)),
    ("matmul", lambda: product(1024, 784, 256)),
    ("matmul", lambda: product(2048, 2048, 2048)),
]


def main() -> None:
    """Run the races whose names were given, or all."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    print(hal_onednn.status())
    threads = torch.get_num_threads()
    measured = "CPU time" if threads == 1 else "wall time"
    print(f"torch {torch.__version__}, hal {hal.__version__}, {threads} threads, {measured}, {ROUNDS} rounds")
    for name, run in RACES:
        if len(sys.argv) < 2 or name in sys.argv[1:]:
            run()


if __name__ == "__main__":
    main()
