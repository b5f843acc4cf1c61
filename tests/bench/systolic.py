"""How fast the simulator is, in CPU time: `python tests/bench/systolic.py [--json]`.

The event level and the closed forms are compared with the CPU time that SCALE-Sim 3.0.0 took for the same layers, which
stands in the table beside its counts. That was measured on another day, so the ratios are good for orders of magnitude.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from hal_systolic import pe
from hal_systolic.compat import count, read_layer
from hal_systolic.config import Machine
from hal_systolic.cost import cost, forget, matmul_cost
from hal_systolic.presets import load
from hal_systolic.simulation import simulate
from hal_systolic.tiling import problem, tilings
from hal_systolic.work import Matmul, Operand, Work

TABLE = Path(__file__).parents[1] / "backends" / "scalesim_sample.csv"


def cpu_seconds(run: Callable[[], object], times: int = 3) -> float:
    """Median CPU time of a call."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return median(taken)


def resnet50() -> list[Work]:
    """The convolutions and the last layer of ResNet-50 for one image, in bfloat16."""
    work: list[Work] = []
    key = 0

    def layer(size: int, channels: int, filters: int, kernel: int, stride: int) -> None:
        nonlocal key
        m, k = (size // stride) ** 2, channels * kernel * kernel
        image, out = Operand(key, 2 * size * size * channels), Operand(key + 1, 2 * m * filters)
        weights = Operand(-1 - key, 2 * k * filters, weight=True)
        work.append(Matmul(m, k, filters, image, weights, out, layer=f"layer {key}"))
        key += 1

    layer(224, 3, 64, 7, 2)
    size, channels = 56, 64
    for planes, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            stride = first if block == 0 else 1
            layer(size, channels, planes, 1, 1)
            layer(size, planes, planes, 3, stride)
            layer(size // stride, planes, 4 * planes, 1, 1)
            if block == 0:
                layer(size, channels, 4 * planes, 1, stride)
            size, channels = size // stride, 4 * planes
    layer(1, 2048, 1000, 1, 1)
    return work


def table() -> dict[str, float]:
    """How many times less CPU time than SCALE-Sim's the same rows take."""
    rows = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
    layers, theirs = [read_layer(row) for row in rows], sum(float(row["cpu_s"]) for row in rows)
    closed = cpu_seconds(lambda: [count(layer) for layer in layers])

    def events() -> None:
        for layer in layers:
            machine = load("scalesim-compat", rows=layer.rows, cols=layer.cols, dataflow=layer.dataflow)
            operands = (Operand(key, 1) for key in range(3))
            list(simulate([Matmul(layer.m, layer.k, layer.n, *operands, "int8")], machine).intervals())

    return {
        "closed form, times SCALE-Sim": theirs / closed,
        "event level, times SCALE-Sim": theirs / cpu_seconds(events),
    }


def estimate(work: list[Work], machine: Machine) -> float:
    """Cycles of all layers, none of them remembered."""
    forget()
    return sum(cost(piece, machine).cycles for piece in work)


def measure() -> dict[str, float]:
    """Everything, by name."""
    machine, work = load("tpu-v2-core"), resnet50()
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((2000, 128), (128, 128)))
    edges = pe.matmul(a, b, 128, 128).cycles
    p = problem(work[10], machine)
    tiling = next(iter(tilings(p, machine, (True, True, False))))
    return {
        "PE level, 128 x 128, cycles a second": edges / cpu_seconds(lambda: pe.matmul(a, b, 128, 128)),
        "ResNet-50, stream and timeline, s": cpu_seconds(lambda: list(simulate(work, machine).intervals())),
        "ResNet-50, estimate, s": cpu_seconds(lambda: estimate(work, machine)),
        "one estimate for a tiling, us": 1e3 * cpu_seconds(
            lambda: [matmul_cost(p, tiling, machine) for _ in range(1000)]
        ),
        **table(),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    found = measure()
    if parser.parse_args().json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f"{name:40} {value:,.4g}")


if __name__ == "__main__":
    main()
