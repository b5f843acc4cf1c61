"""Measures `hal.compile` beside eager hal, torch eager, torch.compile and jax.jit, where they are there.

    python tests/bench/compiled.py [--quick] [--only networks] [--cpu-time] [--json results.json]

Contenders of one row are timed in turn within one run, so that only their ratio counts: machines are noisy.
Each figure is a median; nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import run
from run import Row, _in_processes, _lenet, _mlp, timed

Step = Callable[[Any, Any], Any]
Build = Callable[[Any], Any]
beside_torch = importlib.util.find_spec("torch") is not None
beside_jax = importlib.util.find_spec("jax") is not None


def training_step(library: str, build: Build, arrays: tuple[Any, Any]) -> tuple[Step, Any, Any]:
    """A training step with Adam, and its arguments."""
    x, y = arrays
    if library == "torch":
        import torch

        model: Any = build(torch.nn)
        optimizer: Any = torch.optim.Adam(model.parameters(), lr=1e-3)
        loss_of: Any = torch.nn.functional.cross_entropy
        given: tuple[Any, Any] = (torch.tensor(x), torch.tensor(y))
    else:
        import hal
        import nn

        model = build(nn)
        optimizer = nn.optim.Adam(model.parameters(), lr=1e-3)
        loss_of = nn.functional.cross_entropy
        given = (hal.tensor(x), hal.tensor(y))

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        scores = model(x)
        loss = loss_of(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss

    return step, *given


def contenders_of(name: str, build: Build, arrays: tuple[Any, Any]) -> tuple[dict[str, Callable[[], Any]], str]:
    """The step in each library, and what there is to say of hal's plan."""
    import hal

    def first(call: Callable[[], Any]) -> str:
        """How long the first call takes, which traces and compiles."""
        start = time.perf_counter()
        call()
        return f"{(time.perf_counter() - start) * 1e3:.0f} ms"

    eager, x, y = training_step("hal", build, arrays)
    other, _, _ = training_step("hal", build, arrays)
    compiled = hal.compile(other)
    took = first(lambda: compiled(x, y))
    (memory,) = compiled.plans[0].memory.values()
    note = (
        f"{len(compiled.plans[0].steps)} steps, arena {memory.bytes / 2**20:.1f} MiB = "
        f"{memory.bytes / memory.bound:.3f} of the least; first call: hal {took}"
    )
    found: dict[str, Callable[[], Any]] = {"hal": lambda: compiled(x, y), "hal eager": lambda: eager(x, y)}
    if beside_torch:
        import torch

        plain, tx, ty = training_step("torch", build, arrays)
        found["torch"] = lambda: plain(tx, ty)
        fast, _, _ = training_step("torch", build, arrays)
        inductor = torch.compile(fast)
        try:
            note += f", torch.compile {first(lambda: inductor(tx, ty))}"
            found["torch.compile"] = lambda: inductor(tx, ty)
        except Exception as error:  # it needs a C++ compiler
            note += f", torch.compile {type(error).__name__}"
    if beside_jax:
        import in_jax

        found["jax.jit"] = in_jax.training_step(name, arrays)
        note += f", jax.jit {first(found['jax.jit'])}"
    return found, note


def networks(quick: bool) -> list[Row]:
    """Whole training steps."""
    rows = []
    for name, (build, arrays_of, calls) in NETWORKS.items():
        contenders, note = contenders_of(name, build, arrays_of())
        rows.append(timed(name, contenders, 3 if quick else 25, 1 if quick else calls, "ms", note))
    return rows


def _images(*shape: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=shape).astype(np.float32), rng.integers(0, 10, shape[0])


def _words(*shape: int) -> tuple[Any, Any]:
    words = np.random.default_rng(0).integers(0, 64, shape)
    return words, words


def _transformer(nn: Any) -> Any:
    layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, activation="gelu", batch_first=True)
    return nn.Sequential(nn.Embedding(64, 128), nn.TransformerEncoder(layer, 2), nn.Linear(128, 64))


NETWORKS: dict[str, tuple[Build, Callable[[], tuple[Any, Any]], int]] = {  # with calls in a round
    "MLP 784-256-128-64-10, batch 64": (_mlp, lambda: _images(64, 784), 10),
    "MLP 784-256-128-64-10, batch 1024": (_mlp, lambda: _images(1024, 784), 3),
    "LeNet-5, batch 64": (_lenet, lambda: _images(64, 1, 28, 28), 3),
    "transformer, 2 layers, d 128, T 64, batch 8": (_transformer, lambda: _words(8, 64), 1),
}


def chains(quick: bool) -> list[Row]:
    """Elementwise ops one after another, on small and large arrays."""
    import hal

    def heavy(x: Any) -> Any:
        return x.tanh().sigmoid().relu()

    def light(x: Any) -> Any:
        return (x * 1.5 + 0.25) * 0.5 - 0.125

    def ten(x: Any) -> Any:
        for _ in range(5):
            x = x * 0.5 + 0.25
        return x

    rows = []
    for name, function, size, calls in (
        ("tanh, sigmoid, relu of 2^22", heavy, 1 << 22, 1), ("(x a + b) c - d of 2^22", light, 1 << 22, 1),
        ("(x a + b) c - d of 2^24", light, 1 << 24, 1), ("ten ops on 16 floats", ten, 16, 200),
    ):  # fmt: skip
        array = np.random.default_rng(0).normal(size=size).astype(np.float32)
        compiled = hal.compile(function)
        x = hal.tensor(array)
        contenders: dict[str, Callable[[], Any]] = {
            "hal": lambda c=compiled, x=x: c(x), "hal eager": lambda f=function, x=x: f(x),
        }  # fmt: skip
        if beside_torch:
            import torch

            tx = torch.tensor(array)
            contenders["torch"] = lambda f=function, x=tx: f(x)
            inductor = torch.compile(function)
            contenders["torch.compile"] = lambda f=inductor, x=tx: f(x)
        if beside_jax:
            import jax

            jitted = jax.jit({heavy: lambda x: jax.nn.relu(jax.nn.sigmoid(jax.numpy.tanh(x)))}.get(function, function))
            jx = jax.numpy.asarray(array)
            contenders["jax.jit"] = lambda f=jitted, x=jx: f(x).block_until_ready()
        rows.append(timed(name, contenders, 3 if quick else 15, 1 if quick else calls))
    return rows


MEMORY = """
import sys
sys.path.insert(0, {folder!r})
import run, compiled
build, arrays_of, _ = compiled.NETWORKS[{name!r}]
step, x, y = compiled.training_step({library!r}, build, arrays_of())
before = run.peak_memory()
if {compile!r}:
    import hal
    step = hal.compile(step)
for _ in range(10): step(x, y)
print(run.peak_memory() - before)
"""


def memory(quick: bool) -> list[Row]:
    """How much the peak memory of a process grows by ten steps: what a step needs beside the network and the data."""
    folder = str(Path(__file__).parent)
    kinds = {"hal": ("hal", True), "hal eager": ("hal", False)} | ({"torch": ("torch", False)} if beside_torch else {})
    rows = []
    for name in list(NETWORKS)[1:]:
        programs = {
            kind: (MEMORY.format(folder=folder, name=name, library=library, compile=compiled), ())
            for kind, (library, compiled) in kinds.items()
        }
        peaks = _in_processes(programs, 1 if quick else 3)
        rows.append(Row(f"growth of peak memory, {name}", "MiB", peaks, 1 if quick else 3))
    return rows


def sizes(quick: bool) -> list[Row]:
    """What the first batch of a new size costs beside the next of that size: it is traced, rewritten and planned."""
    import hal

    rng = np.random.default_rng(0)
    rows = []
    for name, build, most, arrays in (
        ("MLP 784-256-128-64-10", _mlp, 64, lambda n: (rng.normal(size=(n, 784)), rng.integers(0, 10, n))),
        ("LeNet-5", _lenet, 64, lambda n: (rng.normal(size=(n, 1, 28, 28)), rng.integers(0, 10, n))),
        ("transformer, 2 layers, d 128, T 64", _transformer, 16, lambda n: (rng.integers(0, 64, (n, 64)),) * 2),
    ):
        step, x, y = training_step("hal", build, tuple(a.astype(a.dtype.str.replace("f8", "f4")) for a in arrays(most)))
        compiled, last = hal.compile(step), [x, y]
        left = iter(range(most - 1, 0, -1))
        spent: dict[str, list[float]] = {"trace": [], "optimized": [], "plan_of": []}

        def first(x: Any = x, y: Any = y, last: Any = last, compiled: Any = compiled, left: Any = left) -> None:
            n = next(left)
            last[:] = [x[:n], y[:n]]
            compiled(*last)

        with _noting(spent):
            contenders = {
                "first": first, "next": lambda f=compiled, last=last: f(*last),
                "eager": lambda f=step, last=last: f(*last),
            }  # fmt: skip
            row = timed(f"{name}, below {most}", contenders, 3 if quick else most - 4, 1, "ms")
        parts = {k: f"{np.median(v) * 1e3:.2f}" for k, v in spent.items()}
        note = "of the first, ms: tracing {trace}, rewriting {optimized}, planning {plan_of}".format(**parts)
        rows.append(Row(row.name, row.unit, row.medians, row.rounds, note))
    return rows


@contextmanager
def _noting(spent: dict[str, list[float]]) -> Iterator[None]:
    """Note the seconds of each trace, rewriting and planning inside the block."""
    from hal.graph import compiler, entry

    before = {(module, name): getattr(module, name) for module in (compiler, entry) for name in spent if
              hasattr(module, name)}  # fmt: skip

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            found = function(*args, **kwargs)
            spent[name].append(time.perf_counter() - start)
            return found

        return run

    for (module, name), function in before.items():
        setattr(module, name, noted(name, function))
    try:
        yield
    finally:
        for (module, name), function in before.items():
            setattr(module, name, function)


SECTIONS = {"networks": networks, "chains": chains, "memory": memory, "sizes": sizes}


def main() -> None:
    """Print the chosen sections."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few repetitions: to see that it runs")
    parser.add_argument("--only", choices=SECTIONS, help="one section")
    parser.add_argument("--cpu-time", action="store_true", help="of all threads: what else runs disturbs it less")
    parser.add_argument("--json", type=Path, help="write the rows into a file, too")
    given = parser.parse_args()
    if given.cpu_time:
        run.clock = time.process_time
    rows: list[Row] = []
    for name, section in SECTIONS.items():
        if given.only in (None, name):
            for row in section(given.quick):
                figures = "  ".join(f"{k} {v:,.2f}" for k, v in row.medians.items())
                print(f"{row.name}: {figures} {row.unit}  {row.note}", flush=True)
                rows.append(row)
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
