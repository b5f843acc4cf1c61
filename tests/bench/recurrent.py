"""Measures recurrent layers beside torch's, forward and backward.

    python tests/bench/recurrent.py [LSTM GRU RNN]

Both are timed in turn within one process, in CPU time with one thread each, so that only their ratio counts. Each
figure is a median; nothing here passes or fails.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import hal
import nn

SIZES = {  # steps, batch, features, hidden, layers; and how often
    "small": ((20, 16, 16, 32, 1), 31),
    "medium": ((35, 20, 128, 200, 1), 9),
    "large": ((50, 32, 256, 256, 2), 5),
}


def passes(layer: Any, x: Any, no_grad: Callable[[], Any], backward: bool) -> Callable[[], None]:
    """A forward pass, with or without a backward one."""

    def run() -> None:
        if not backward:
            with no_grad():
                layer(x)
            return
        for parameter in layer.parameters():
            parameter.grad = None
        layer(x)[0].sum().backward()

    return run


def in_turn(first: Callable[[], None], second: Callable[[], None], times: int) -> tuple[float, float]:
    """The medians of the CPU seconds of both."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(times + 2):
        for run, seconds in zip((first, second), found, strict=True):
            start = time.process_time()
            run()
            if number >= 2:
                seconds.append(time.process_time() - start)
    return statistics.median(found[0]), statistics.median(found[1])


def main() -> None:
    """Print a row for each kind and size."""
    torch.set_num_threads(1)
    print(f"{'':14}{'forward':>30}{'with backward':>30}")
    for kind in sys.argv[1:] or ["LSTM", "GRU", "RNN"]:
        for name, ((steps, batch, features, hidden, layers), times) in SIZES.items():
            ours, theirs = (getattr(kit, kind)(features, hidden, layers) for kit in (nn, torch.nn))
            x = np.random.default_rng(0).normal(size=(steps, batch, features)).astype(np.float32)
            cells = []
            for backward in (False, True):
                mine = passes(ours, hal.tensor(x), hal.no_grad, backward)
                a, b = in_turn(mine, passes(theirs, torch.tensor(x), torch.no_grad, backward), times)
                cells.append(f"{a * 1e3:8.2f} ms, torch {b * 1e3:8.2f} {b / a:5.2f}x")
            print(f"{kind:6}{name:8}" + "".join(f"{cell:>30}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
