"""Measures the scheduler: how long placing takes, how good it is, and how near predictions come to what is measured.

    python tests/bench/schedule.py [--quick] [--beside opencl:0] [--json results.json]

Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import hal
import nn
from hal.graph.plan import Plan
from hal.schedule.problem import lower_bound
from hal.schedule.search import place
from hal.schedule.speed import Speed
from hal.testing.fake import Fake
from hal.testing.problems import layered_problem

SIZES = (100, 1_000, 10_000, 100_000)


def placing(quick: bool) -> list[dict[str, Any]]:
    """Processor seconds to place layered problems on three devices, and how far they are from the lower bound."""
    rows = []
    for size in SIZES[: 3 if quick else 4]:
        problem = layered_problem(0, size // 20, 20, 3)
        start = time.process_time()
        found = place(problem)
        seconds = time.process_time() - start
        ratio = found.layout.seconds / lower_bound(problem)
        rows.append({"nodes": size, "seconds": seconds, "µs per node": 1e6 * seconds / size, "of lower bound": ratio})
    return rows


def mlp() -> tuple[nn.Module, Any, Any]:
    """The network of the tables, and a batch."""
    rng = np.random.default_rng(0)
    sizes = (784, 256, 128, 64)
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(64, 10)), rng.normal(size=(64, 784)), rng.integers(0, 10, 64)


def lenet() -> tuple[nn.Module, Any, Any]:
    """LeNet-5, and a batch."""
    rng = np.random.default_rng(0)
    layers = [
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    ]  # fmt: skip
    return nn.Sequential(*layers), rng.normal(size=(64, 1, 28, 28)), rng.integers(0, 10, 64)


def training_step(make: Callable[[], tuple[nn.Module, Any, Any]], device: str) -> tuple[Callable[[], Any], Any]:
    """A compiled training step with Adam, and the compiled function."""
    hal.manual_seed(0)
    model, x, y = make()
    model.to(device)
    optimizer, loss_of = nn.optim.Adam(model.parameters()), nn.CrossEntropyLoss()
    xs, ys = hal.tensor(x.astype(np.float32), device=device), hal.tensor(y, device=device)

    @hal.compile
    def step(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return lambda: step(xs, ys), step


def measured(run: Callable[[], Any], device: hal.Device, rounds: int) -> float:
    """The least time of a call: what other programs take away is no part of a prediction."""
    run(), run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        device.backend.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def predictions(quick: bool) -> list[dict[str, Any]]:
    """Predicted and measured time of training steps: on the CPU, and on fake devices of a declared speed."""
    rows = []
    rounds = 5 if quick else 30
    cpu = hal.device("cpu")
    for name, make in {"MLP": mlp, "LeNet": lenet}.items():
        run, compiled = training_step(make, "cpu")
        took = measured(run, cpu, rounds)
        plan: Plan = compiled.plans[-1]
        rows.append(_row(f"{name} on the CPU", plan.report().seconds, took))
    with ExitStack() as stack:
        slow = Speed(1e9, {"any": 1e8, "contraction": 1e9}, 1e-3)
        for name in ("fa", "fb"):
            stack.enter_context(Fake(name, speed=slow, bandwidth=1e9, latency=1e-4).registered())
        for name, devices in {"one fake device": [], "two fake devices": ["fb"]}.items():
            rng = np.random.default_rng(0)
            a, b = (hal.tensor(rng.normal(size=(64, 128)).astype(np.float32), device="fa") for _ in range(2))
            ws = [hal.tensor(rng.normal(size=(128, 128)).astype(np.float32), device="fa") for _ in range(8)]

            def towers(a: hal.Tensor, b: hal.Tensor, ws: list[hal.Tensor] = ws) -> hal.Tensor:
                for i in range(4):
                    a, b = (a @ ws[i]).tanh(), (b @ ws[4 + i]).tanh()
                return (a * b).sum()

            with hal.placement("auto", devices=devices):
                compiled = hal.compile(towers)
                took = measured(lambda f=compiled, a=a, b=b: f(a, b), hal.device("fa"), rounds)
            rows.append(_row(f"two towers on {name}", compiled.plans[-1].report().seconds, took))
    return rows


def against_one(others: list[str], quick: bool) -> list[dict[str, Any]]:
    """Training steps with `auto` over the CPU and other devices, beside the CPU alone, in turn."""
    rows = []
    for name, make in {"MLP": mlp, "LeNet": lenet}.items():
        alone, _ = training_step(make, "cpu")
        auto, compiled = training_step(make, "cpu")
        times: dict[str, list[float]] = {"alone": [], "auto": []}
        with hal.placement("auto", devices=others):
            auto()
        for _ in range(5 if quick else 30):
            for kind, run in (("alone", alone), ("auto", auto)):
                start = time.perf_counter()
                run()
                times[kind].append(time.perf_counter() - start)
        took = {kind: statistics.median(found[2:]) for kind, found in times.items()}
        used = sorted({str(s.device) for s in compiled.plans[-1].steps})
        rows.append({"what": name, "auto / alone": took["auto"] / took["alone"], "runs on": ", ".join(used)})
    return rows


def _row(name: str, predicted: float, took: float) -> dict[str, Any]:
    return {"what": name, "predicted ms": 1e3 * predicted, "measured ms": 1e3 * took, "ratio": predicted / took}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--beside", metavar="DEVICE", nargs="*", default=[], help="what `auto` may use besides the CPU")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tables = {"placing": placing(arguments.quick), "predictions": predictions(arguments.quick)}
    if arguments.beside:
        tables["auto"] = against_one(arguments.beside, arguments.quick)
    for name, rows in tables.items():
        print(name)
        for row in rows:
            print("  " + "  ".join(f"{k}: {v:.4g}" if isinstance(v, float) else f"{k}: {v}" for k, v in row.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(tables, indent=1), "utf-8")


if __name__ == "__main__":
    main()
