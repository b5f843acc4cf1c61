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
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Contenders = dict[str, Callable[[], Any]]
Process = tuple[str, tuple[str, ...]]  # a program, and folders for its path
PLUGINS = 20
clock: Callable[[], float] = time.perf_counter  # what is timed: on the wall, or of the processor
beside_torch = importlib.util.find_spec("torch") is not None


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
            start = clock()
            for _ in range(calls):
                run()
            times[key].append((clock() - start) / calls * scale)
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
    if beside_torch:
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
        libraries = ["hal", *(["torch"] if beside_torch else [])]
        contenders = {library: _step(library, build, shape) for library in libraries}
        row = timed(name, contenders, 3 if quick else 15, 1 if quick else calls, "ms")
        row.note = ", ".join(f"{k} {1000 / v:,.0f} steps/s" for k, v in row.medians.items())
        rows.append(row)
    return rows


def _in_processes(contenders: dict[str, Process], rounds: int) -> dict[str, float]:
    """What each program prints last, run `rounds` times in turn, each time in a fresh process; the medians."""
    printed: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (code, folders) in contenders.items():
            path = os.pathsep.join([*folders, *(p for p in sys.path if p)])
            env = {k: v for k, v in os.environ.items() if not k.startswith("HAL_")} | {"PYTHONPATH": path}
            done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
            printed[name].append(float(done.stdout.split()[-1]))
    return {name: statistics.median(values) for name, values in printed.items()}


TIMED = "import time; start = time.perf_counter(); {0}; print((time.perf_counter() - start) * 1e3)"
MEMORY = """
import sys
sys.path.insert(0, {folder!r})
import run
step = run._step({library!r}, run._mlp, (64, 784))
for _ in range(20): step()
print(run.peak_memory())
"""


def imports(quick: bool) -> list[Row]:
    """Import time, each in a fresh process; and what installed plugins add to it."""
    rounds = 3 if quick else 11
    plain = {n: (TIMED.format(f"import {n}"), ()) for n in ("hal", "numpy", *(["torch"] if beside_torch else []))}
    rows = [Row("import", "ms", _in_processes(plain, rounds), rounds)]
    with tempfile.TemporaryDirectory() as folder:
        install_plugins(Path(folder), PLUGINS)
        for name, code in (
            (f"import hal, {PLUGINS} plugins installed", "import hal"),
            (f"import hal, list devices, {PLUGINS} plugins", "import hal; hal.devices()"),
            ("command line, up to its help", "from hal.cli import cli; cli(['--help'], standalone_mode=False)"),
        ):
            both = {"hal": (TIMED.format(code), (folder,)), "without": (TIMED.format(code), ())}
            found = _in_processes(both, rounds)
            more = f"{found['hal'] - found['without']:+.1f} ms by the plugins"
            rows.append(Row(name, "ms", {"hal": found["hal"]}, rounds, more))
    return rows


PLUGIN = """
from hal.plugin import Backend, Device, Kernels, hookimpl

class Chip(Backend):
    name = "{name}"
    priority = -1
    kernels = Kernels()
    def devices(self): return [Device(self)]
    def upload(self, array, device): return array.copy()
    def download(self, buffer, spec): return buffer.copy()

@hookimpl
def hal_backends(): return [Chip()]
"""


def install_plugins(folder: Path, count: int) -> None:
    """What `pip install` of that many plugin packages leaves behind: a module and its metadata each."""
    for i in range(count):
        name = f"chip{i}"
        (folder / f"hal_{name}.py").write_text(PLUGIN.format(name=name))
        info = folder / f"hal_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: hal-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[hal]\n{name} = hal_{name}\n")


def training(quick: bool) -> list[Row]:
    """The whole of `hal train` on the digits that ship with HAL."""
    rounds, options = (1, ["--epochs", "2"]) if quick else (3, [])
    speeds, seconds, accuracy = [], [], 0.0
    for _ in range(rounds):
        before = os.times()
        command = [sys.executable, "-m", "hal", "train", "digits", "--json", "--quiet", *options]
        result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        after = os.times()
        speeds.append(result["images_per_second"])
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
        accuracy = result["test_accuracy"]
    note = f"{accuracy:.2%} right after {result['epochs']} epochs, {statistics.median(seconds):.1f} s of CPU in all"
    return [Row("hal train digits", "images/s", {"hal": statistics.median(speeds)}, rounds, note)]


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
    names = ["hal", *(["torch"] if beside_torch else [])]
    peaks = _in_processes({n: (MEMORY.format(folder=folder, library=n), ()) for n in names}, rounds)
    return [Row("peak memory, 20 MLP steps, batch 64", "MiB", peaks, rounds)]


GROUPS: dict[str, Callable[[bool], list[Row]]] = {
    "overhead": overhead,
    "steps": steps,
    "training": training,
    "imports": imports,
    "memory": memory,
}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import hal

    versions = {"hal": hal.__version__, "numpy": np.__version__, "python": platform.python_version()}
    if beside_torch:
        import torch

        versions["torch"] = torch.__version__
    return {
        "versions": versions,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }


COLUMNS = ("hal", "numpy", "torch")


def line(row: Row) -> str:
    """One row as text, in columns that are the same for all."""
    figures = "".join(f"{_figure(row.medians.get(name)):>10}" for name in COLUMNS)
    ratios = [f"{ratio:.2f} x {name}" for name, ratio in row.ratios.items()]
    return f"{row.name:<42} {row.unit:<9}{figures}  {', '.join([*ratios, row.note] if row.note else ratios)}".rstrip()


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 1 else f"{value:.1f}"


def main() -> None:
    """Run the groups and print one line for each workload."""
    global beside_torch
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works, not to quote")
    parser.add_argument("--only", choices=GROUPS, help="one group")
    parser.add_argument("--no-torch", action="store_true", help="leave torch out, though it is there")
    parser.add_argument("--json", metavar="FILE", help="also write the rows and the machine to a file")
    options = parser.parse_args()
    beside_torch = beside_torch and not options.no_torch
    print(f"{'':<42} {'':<9}{''.join(f'{name:>10}' for name in COLUMNS)}")
    rows: list[Row] = []
    for name, group in GROUPS.items():
        if options.only in (None, name):
            for row in group(options.quick):
                rows.append(row)
                print(line(row), flush=True)
    if options.json:
        results = {"machine": machine(), "rows": [asdict(row) for row in rows]}
        Path(options.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
