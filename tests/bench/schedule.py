"""Measures the scheduler: how long placing takes, how good it is, what it gains, and how near its predictions come.

    python tests/bench/schedule.py [--quick] [--devices opencl:0 systolic] [--page docs/measured/scheduler.md]

Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import hal
import nn
from hal.graph.graph import COPY
from hal.schedule.machine import here
from hal.schedule.problem import lower_bound
from hal.schedule.report import duration, size
from hal.schedule.search import place
from hal.schedule.speed import Speed
from hal.schedule.whatif import what_if
from hal.testing.fake import Fake
from hal.testing.problems import any_problem, layered_problem, optimum

Table = tuple[str, list[dict[str, str]]]  # a sentence on it, and its rows
Model = Callable[[], tuple[nn.Module, Any, Any]]
SIZES = (100, 1_000, 10_000, 100_000)
ROUNDS = 15
SLOW, FAST = Speed(1e9, {"any": 1e8, "contraction": 1e9}, 1e-3), Speed(1e12, {"any": 1e12}, 1e-7)


def placing(quick: bool) -> Table:
    """Processor time of placing, and the distance to the lower bound."""
    rows = []
    for count in SIZES[: 2 if quick else 4]:
        problem = layered_problem(0, count // 20, 20, 3)
        start = time.process_time()
        found = place(problem)
        seconds = time.process_time() - start
        rows.append({
            "nodes": f"{count:,}", "processor time": duration(seconds), "for each node": duration(seconds / count),
            "of the lower bound": f"{found.layout.seconds / lower_bound(problem):.3f}",
        })  # fmt: skip
    return "Placing random layered graphs (20 wide) on three devices, in processor time.", rows


def small(quick: bool) -> Table:
    """Distance to the optimum of all devices for all nodes in all orders."""
    rows = []
    for tasks, devices, copies in ((5, 2, 1.0), (6, 3, 0.3), (8, 2, 3.0), (8, 3, 1.0), (10, 2, 1.0), (10, 2, 0.1)):
        ratios = []
        for seed in range(2 if quick else 15):
            problem = any_problem(1000 + seed, tasks, devices, copies)
            seconds = place(problem).layout.seconds
            ratios.append(seconds / optimum(problem, seconds))
        rows.append({
            "nodes": str(tasks), "devices": str(devices), "a copy takes, in nodes": f"{copies:g}",
            "optimum found": f"{sum(r < 1 + 1e-9 for r in ratios)} of {len(ratios)}", "worst": f"{max(ratios):.3f}",
        })  # fmt: skip
    return "Random graphs of at most ten nodes, beside the optimum, which was found by trying everything.", rows


def layered(quick: bool) -> Table:
    """Distance to a bound that no schedule can beat."""
    rows = []
    for layers, width, devices, copies in ((5, 8, 2, 0.1), (10, 16, 3, 0.3), (6, 32, 4, 0.1), (40, 12, 3, 0.1)):
        ratios = []
        for seed in range(2 if quick else 10):
            problem = layered_problem(seed, layers, width, devices, copies)
            ratios.append(place(problem).layout.seconds / lower_bound(problem))
        rows.append({
            "layers": f"{layers} of {width}", "devices": str(devices), "median": f"{statistics.median(ratios):.3f}",
            "worst": f"{max(ratios):.3f}",
        })  # fmt: skip
    return (
        "Random layered graphs, as a multiple of the lower bound: the longest chain, and all work shared without loss.",
        rows,
    )


def mlp() -> tuple[nn.Module, Any, Any]:
    """A classifier of 784 pixels, and a batch of 64."""
    rng = np.random.default_rng(0)
    layers = [m for a, b in pairwise((784, 256, 128, 64)) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(64, 10)), rng.normal(size=(64, 784)), rng.integers(0, 10, 64)


def lenet() -> tuple[nn.Module, Any, Any]:
    """LeNet-5, and a batch of 64."""
    rng = np.random.default_rng(0)
    layers = [
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    ]  # fmt: skip
    return nn.Sequential(*layers), rng.normal(size=(64, 1, 28, 28)), rng.integers(0, 10, 64)


def transformer() -> tuple[nn.Module, Any, Any]:
    """Two layers of 64 features over 32 positions, and a batch of 8."""
    rng = np.random.default_rng(0)
    layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, activation="gelu", batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(32 * 64, 10))
    return model, rng.normal(size=(8, 32, 64)), rng.integers(0, 10, 8)


def deep_cnn() -> tuple[nn.Module, Any, Any]:
    """Five convolutions of 16 to 64 channels, each with a batch normalisation, and a batch of 16."""
    rng = np.random.default_rng(0)
    layers: list[nn.Module] = []
    for before, width in pairwise((3, 16, 16, 32, 32, 64)):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if width > before > 3 else []
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers), rng.normal(size=(16, 3, 32, 32)), rng.integers(0, 10, 16)


class Last(nn.Module):
    """An LSTM of 64 features, and a classifier of what it gives last."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(32, 64, batch_first=True), nn.Linear(64, 10)

    def forward(self, x: hal.Tensor) -> hal.Tensor:
        return self.out(self.lstm(x)[0][:, -1])


def lstm() -> tuple[nn.Module, Any, Any]:
    """An LSTM over 20 positions, and a batch of 32."""
    rng = np.random.default_rng(0)
    return Last(), rng.normal(size=(32, 20, 32)), rng.integers(0, 10, 32)


class EachToken(nn.Module):
    """A GPT of three layers of 96 features, whose scores are in one row for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.gpt = nn.models.GPT(65, block_size=64, n_layer=3, n_head=4, n_embd=96)

    def forward(self, x: hal.Tensor) -> hal.Tensor:
        return self.gpt(x).reshape(-1, 65)


def gpt() -> tuple[nn.Module, Any, Any]:
    """A language model of characters, and four lines of 64."""
    rng = np.random.default_rng(0)
    return EachToken(), rng.integers(0, 65, (4, 64)), rng.integers(0, 65, 256)


MODELS: dict[str, Model] = {"MLP": mlp, "LeNet-5": lenet, "transformer": transformer}
OTHERS: dict[str, Model] = {"CNN with batch norm": deep_cnn, "LSTM": lstm, "GPT": gpt}


def training_step(make: Model, device: str) -> tuple[Callable[[], Any], Any]:
    """A compiled training step with Adam, and the compiled function."""
    hal.manual_seed(0)
    model, x, y = make()
    model.to(device)
    optimizer, loss_of = nn.optim.Adam(model.parameters()), nn.CrossEntropyLoss()
    xs, ys = hal.tensor(x.astype("f4") if x.dtype.kind == "f" else x, device=device), hal.tensor(y, device=device)

    @hal.compile
    def step(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return lambda: step(xs, ys).item(), step


def in_turn(
    runs: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Times of each, run one after another so that all meet the same neighbours on a shared machine."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(), run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return times


def auto(devices: list[str], quick: bool) -> Table:
    """Training steps with `auto` beside each device alone."""
    rows = []
    for name, make in MODELS.items():
        runs = {device: training_step(make, device)[0] for device in ["cpu", *devices]}
        chosen, compiled = training_step(make, "cpu")
        runs["auto"] = _under_auto(chosen, devices)
        times = in_turn(runs, 3 if quick else 2 * ROUNDS)
        best = min((d for d in runs if d != "auto"), key=lambda d: min(times[d]))
        pair = {"alone": runs[best], "auto": runs["auto"]}
        wall = in_turn(pair, 3 if quick else 6 * ROUNDS)
        spent = in_turn(pair, 3 if quick else 3 * ROUNDS, time.process_time)
        ratios = [
            min(wall["auto"]) / min(wall["alone"]),
            statistics.median(a / b for a, b in zip(spent["auto"], spent["alone"], strict=True)),
        ]
        used = sorted({str(s.device) for s in compiled.plans[-1].steps})
        rows.append({
            "training step": name, **{d: duration(min(t)) for d, t in times.items()}, "best alone": best,
            "auto / best alone": f"{ratios[0]:.3f}", "in processor time": f"{ratios[1]:.3f}",
            "auto runs on": ", ".join(used),
        })  # fmt: skip
    return (
        "Training steps on real devices, in turn: least wall times, and medians of pairs in processor time. `auto` "
        "begins with a model on the CPU, and with a batch there that is the same in each step.",
        rows,
    )


def _under_auto(run: Callable[[], Any], devices: list[str]) -> Callable[[], Any]:
    def under() -> Any:
        with hal.placement("auto", devices=devices):
            return run()

    return under


@contextmanager
def fakes(*backends: Fake) -> Iterator[None]:
    """These devices, while the block lasts."""
    with ExitStack() as stack:
        for backend in backends:
            stack.enter_context(backend.registered())
        yield


def towers(quick: bool) -> Table:
    """What `auto` gains where devices truly help, predicted and measured."""
    rows = []
    for names in (["fa"], ["fa", "fb"], ["fa", "fb", "fc", "fd"]):
        with fakes(*(Fake(n, speed=SLOW, bandwidth=1e9, latency=1e-4) for n in names)):
            rng = np.random.default_rng(0)
            given = [hal.tensor(rng.normal(size=(64, 128)).astype(np.float32), device="fa") for _ in range(4)]
            weights = [hal.tensor(rng.normal(size=(128, 128)).astype(np.float32), device="fa") for _ in range(4)]

            def four(*xs: hal.Tensor, weights: Any = tuple(weights)) -> hal.Tensor:
                ys = list(xs)
                for w in weights:
                    ys = [(y @ w).tanh() for y in ys]
                return sum(y.sum() for y in ys)

            with hal.placement("auto", devices=names):
                compiled = hal.compile(four)
                times = in_turn({"": lambda f=compiled, xs=given: f(*xs).item()}, 3 if quick else ROUNDS)[""]
            predicted = compiled.plans[-1].report().seconds
            rows.append({
                "devices": str(len(names)), "predicted": duration(predicted), "measured": duration(min(times)),
                "predicted / measured": f"{predicted / min(times):.2f}",
            })  # fmt: skip
    return "Four towers of four layers under `auto`, on fake devices that are as fast as they declare to be.", rows


def predictions(devices: list[str], quick: bool) -> Table:
    """What-if predictions from the CPU's plan, beside what the device then takes."""
    rows = []
    for name, make in (MODELS | OTHERS).items():
        run, compiled = training_step(make, "cpu")
        run()
        plan = compiled.plans[-1]
        for device in ["cpu", *devices]:
            predicted = what_if(plan, here([hal.device(device)])).seconds
            run, _ = training_step(make, device)
            simulated = hal.device(device).backend.simulated
            clock = time.process_time if device == "cpu" else time.perf_counter
            took = _simulated(run) if simulated else min(in_turn({"": run}, 3 if quick else 3 * ROUNDS, clock)[""])
            rows.append({
                "training step": name, "device": device, "predicted": duration(predicted), "measured": duration(took),
                "predicted / measured": f"{predicted / took:.2f}",
            })  # fmt: skip
    return (
        "What-if: a step that was traced on the CPU, as predicted for each device without running there, and the least "
        "time of a call that then ran there (on the CPU in processor time, as others used it). Of a simulated machine: "
        "its time in the event-level simulation, which keeps operands on the chip where the prediction loads them. The "
        "last three models show whether that holds for others than those that the calibration was made with.",
        rows,
    )


def _simulated(run: Callable[[], Any]) -> float:
    """Seconds of a step on the clock of the only simulated machine in it, operands resident as they are in training."""
    import hal_systolic

    run(), run()
    with hal_systolic.report() as report:
        run()
    return float(report.seconds)


def memory(quick: bool) -> Table:
    """Training in less memory than it needs."""
    rows: list[dict[str, str]] = []
    need = 0
    want: list[float] = []
    for share in (0.0, 0.75, 0.5, 0.3):
        limit = int(share * need) or None
        host = Fake("host", host_memory=True, speed=Speed(1e6, {"any": 1e6}, 1e-3), bandwidth=1e11)
        device = Fake("small", speed=FAST, bandwidth=1e11, memory=limit)
        with fakes(host, device):
            hal.manual_seed(0)
            layers = [m for _ in range(6) for m in (nn.Linear(64, 64), nn.Tanh())]
            model = nn.Sequential(*layers, nn.Linear(64, 4)).to("small")
            optimizer, loss_of = nn.optim.Adam(model.parameters(), lr=1e-2), nn.CrossEntropyLoss()

            @hal.compile
            def step(x: hal.Tensor, y: hal.Tensor, o: Any = optimizer, m: Any = model, of: Any = loss_of) -> hal.Tensor:
                o.zero_grad()
                loss = of(m(x), y)
                loss.backward()
                o.step()
                result: hal.Tensor = loss.detach()
                return result

            rng, losses = np.random.default_rng(0), []
            with hal.placement("auto" if limit else "follow", devices=["host"]):
                for _ in range(2 if quick else 5):
                    x = hal.tensor(rng.normal(size=(32, 64)).astype("f4"), device="small")
                    y = hal.tensor(rng.integers(0, 4, 32), device="small")
                    losses.append(step(x, y).item())
                    del x, y
            most = device.most[hal.device("small")]
            need, want = need or most, want or losses
            graph = step.plans[-1].graph
            state = sum(p.spec.nbytes for p in model.parameters())
            rows.append({
                "memory": size(limit) if limit else "enough", "of the need": f"{share:.0%}" if limit else "100%",
                "of the parameters": f"{(limit or need) / state:.1f}", "held at most": size(most),
                "state that waits": size(sum(v.spec.nbytes for v in graph.inputs if v in graph.away)),
                "copies in a step": str(sum(n.op is COPY for n in graph.nodes)),
                "losses": "the same bits" if losses == want else f"off by {max(map(abs, np.subtract(losses, want)))}",
            })  # fmt: skip
    return "A step of Adam on a device that is too small for it: parameters, moments, gradients, activations.", rows


def rendered(tables: list[Table], asked: str) -> str:
    """The page."""
    parts = [
        "# The scheduler\n",
        f"Measured on {date.today():%d %B %Y}: {os.cpu_count()} processors ({platform.machine()}) shared with others, "
        f"NumPy {np.__version__}, one thread for products of matrices (OMP_NUM_THREADS="
        f"{os.environ.get('OMP_NUM_THREADS', 'unset')}), load average {os.getloadavg()[0]:.0f}. "
        "Only ratios within a row mean something.\n",
    ]
    for said, rows in tables:
        titles = list(rows[0])
        lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
        lines += ["| " + " | ".join(row.get(t, "") for t in titles) + " |" for row in rows]
        parts.append(f"{said}\n\n" + "\n".join(lines) + "\n")
    return "\n".join([*parts, f"```console\n$ {asked}\n```"]) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--devices", metavar="DEVICE", nargs="*", default=[], help="besides the CPU")
    parser.add_argument("--only", metavar="TABLE", help="placing, small, layered, towers, auto, predictions or memory")
    parser.add_argument("--page", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    quick, devices = arguments.quick, arguments.devices
    measures: dict[str, Callable[[], Table]] = {
        "placing": lambda: placing(quick), "small": lambda: small(quick), "layered": lambda: layered(quick),
        "towers": lambda: towers(quick), "auto": lambda: auto(devices, quick),
        "predictions": lambda: predictions(devices, quick), "memory": lambda: memory(quick),
    }  # fmt: skip
    tables = [measure() for name, measure in measures.items() if arguments.only in (None, name)]
    asked = f"python tests/bench/schedule.py --devices {' '.join(devices)} --page docs/measured/scheduler.md"
    page = rendered(tables, asked)
    print(page)
    if arguments.page:
        arguments.page.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
