"""Measures what HAL costs: time of an op, training steps per second, import time, peak memory; torch beside it.

    python tests/bench/run.py [--quick] [--only overhead] [--json results.json]

Contenders of one row are timed in turn within one run, so that only their ratio counts: machines are noisy.
Each figure is a median; nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

Contenders = dict[str, Callable[[], Any]]
HAS_TORCH = importlib.util.find_spec("torch") is not None


@dataclass
class Row:
    """One workload: the median of each contender, in `unit`."""

    name: str
    unit: str
    medians: dict[str, float]
    rounds: int
    note: str = ""
    ratios: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        mine = self.medians.get("hal")
        self.ratios = {k: mine / v for k, v in self.medians.items() if mine and v and k != "hal"}


def timed(name: str, contenders: Contenders, rounds: int, calls: int, unit: str = "µs", note: str = "") -> Row:
    """Time `calls` calls of each contender in turn, `rounds` times; the median time of a call."""
    scale = {"µs": 1e6, "ms": 1e3}[unit]
    for run in contenders.values():
        run()
    times: dict[str, list[float]] = {k: [] for k in contenders}
    for _ in range(rounds):
        for key, run in contenders.items():
            start = time.perf_counter()
            for _ in range(calls):
                run()
            times[key].append((time.perf_counter() - start) / calls * scale)
    return Row(name, unit, {k: statistics.median(v) for k, v in times.items()}, rounds, note)


def overhead(quick: bool) -> list[Row]:
    """The time of one eager op on 16 floats, where nearly all of it is overhead."""
    import hal

    rounds, calls = (5, 2000) if quick else (25, 20000)
    array = np.ones(16, np.float32)
    x, y, leaf = hal.tensor(array), hal.tensor(array), hal.tensor(array, requires_grad=True)
    rows: dict[str, Contenders] = {
        "add of 16 floats": {"hal": lambda: x + y, "numpy": lambda: array + array},
        "add of 16 floats and a number": {"hal": lambda: x + 2.0, "numpy": lambda: array + 2.0},
        "add of 16 floats, recorded": {"hal": lambda: x + leaf},
        "relu of 16 floats": {"hal": lambda: hal.relu(x), "numpy": lambda: np.maximum(array, 0)},
        "sum of 16 floats": {"hal": lambda: x.sum(), "numpy": lambda: array.sum()},
        "reshape of 16 floats": {"hal": lambda: x.reshape(4, 4), "numpy": lambda: array.reshape(4, 4)},
        "add, multiply, sum and backward": {"hal": lambda: ((x + leaf) * y).sum().backward()},
    }
    if HAS_TORCH:
        import torch

        tx, ty = torch.tensor(array), torch.tensor(array)
        tleaf = torch.tensor(array, requires_grad=True)
        more: list[Callable[[], Any]] = [
            lambda: tx + ty, lambda: tx + 2.0, lambda: tx + tleaf, lambda: torch.relu(tx), lambda: tx.sum(),
            lambda: tx.reshape(4, 4), lambda: ((tx + tleaf) * ty).sum().backward(),
        ]  # fmt: skip
        for contenders, run in zip(rows.values(), more, strict=True):
            contenders["torch"] = run
    return [timed(name, contenders, rounds, calls) for name, contenders in rows.items()]


def _mlp(nn: Any) -> Any:
    widths = [784, 256, 128, 64, 10]
    layers: list[Any] = []
    for i in range(4):
        layers += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _lenet(nn: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def _step(library: str, build: Callable[[Any], Any], shape: tuple[int, ...]) -> Callable[[], Any]:
    """One training step with Adam: forward, cross-entropy, backward, update."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=shape).astype(np.float32)
    labels = rng.integers(0, 10, shape[0])
    if library == "torch":
        import torch

        model, loss_of = build(torch.nn), torch.nn.CrossEntropyLoss()
        optimizer: Any = torch.optim.Adam(model.parameters(), lr=1e-3)
        x: Any = torch.tensor(images)
        t: Any = torch.tensor(labels)
    else:
        import hal
        import nn

        model, loss_of = build(nn), nn.CrossEntropyLoss()
        optimizer = nn.optim.Adam(model.parameters(), lr=1e-3)
        x, t = hal.tensor(images), hal.tensor(labels)

    def step() -> None:
        optimizer.zero_grad()
        loss_of(model(x), t).backward()
        optimizer.step()

    return step


def steps(quick: bool) -> list[Row]:
    """Training steps of small networks."""
    rows = []
    for name, build, shape, calls in (
        ("MLP 784-256-128-64-10, Adam, batch 64", _mlp, (64, 784), 20),
        ("MLP 784-256-128-64-10, Adam, batch 1024", _mlp, (1024, 784), 3),
        ("LeNet-5, Adam, batch 64", _lenet, (64, 1, 28, 28), 5),
    ):
        libraries = ["hal", *(["torch"] if HAS_TORCH else [])]
        contenders = {library: _step(library, build, shape) for library in libraries}
        row = timed(name, contenders, 3 if quick else 15, 1 if quick else calls, "ms")
        row.note = ", ".join(f"{k} {1000 / v:,.0f} steps/s" for k, v in row.medians.items())
        rows.append(row)
    return rows


def _measure_in_a_process(code: str, rounds: int) -> float:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    runs = [
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        for _ in range(rounds)
    ]
    return statistics.median(float(r.stdout.strip().splitlines()[-1]) for r in runs)


IMPORT = "import time; start = time.perf_counter(); import {0}; print((time.perf_counter() - start) * 1e3)"
MEMORY = """
import sys
sys.path.insert(0, {folder!r})
import run
step = run._step({library!r}, run._mlp, (64, 784))
for _ in range(20): step()
print(run.peak_memory())
"""


def imports(quick: bool) -> list[Row]:
    """Import time, each in a fresh process."""
    rounds = 3 if quick else 9
    names = ["hal", "numpy", *(["torch"] if HAS_TORCH else [])]
    return [Row("import", "ms", {n: _measure_in_a_process(IMPORT.format(n), rounds) for n in names}, rounds)]


def peak_memory() -> float:
    """The most memory that this process has held, in MiB.

    Not from getrusage where Linux has better: its figure begins with that of the process that started this one.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        import resource

        scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def memory(quick: bool) -> list[Row]:
    """Peak memory of a process that does 20 MLP steps."""
    rounds = 1 if quick else 3
    folder = os.path.dirname(os.path.abspath(__file__))
    names = ["hal", *(["torch"] if HAS_TORCH else [])]
    peaks = {n: _measure_in_a_process(MEMORY.format(folder=folder, library=n), rounds) for n in names}
    return [Row("peak memory, 20 MLP steps, batch 64", "MiB", peaks, rounds)]


GROUPS: dict[str, Callable[[bool], list[Row]]] = {
    "overhead": overhead,
    "steps": steps,
    "imports": imports,
    "memory": memory,
}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import hal

    versions = {"hal": hal.__version__, "numpy": np.__version__, "python": platform.python_version()}
    if HAS_TORCH:
        import torch

        versions["torch"] = torch.__version__
    return {
        "versions": versions,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    """Run the groups and print one line for each workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works, not to quote")
    parser.add_argument("--only", choices=GROUPS, help="one group")
    parser.add_argument("--json", metavar="FILE", help="also write the rows and the machine to a file")
    options = parser.parse_args()
    rows: list[Row] = []
    for name, group in GROUPS.items():
        if options.only in (None, name):
            for row in group(options.quick):
                rows.append(row)
                figures = "  ".join(f"{k} {v:.2f}" for k, v in row.medians.items())
                ratios = "  ".join(f"{v:.2f}x {k}" for k, v in row.ratios.items())
                print(f"{row.name:<42} {row.unit:<4} {figures:<44} {ratios}  {row.note}", flush=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": machine(), "rows": [asdict(row) for row in rows]}, file, indent=2)


if __name__ == "__main__":
    main()
