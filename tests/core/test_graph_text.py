"""Graphs as text, and where their results lie in memory."""

from __future__ import annotations

import numpy as np
import pytest

import hal
from hal.errors import GraphError
from hal.graph import memory
from hal.graph.text import parse


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("hello", "begins with graph"),
        ("graph(x: float32[2])\n    return y", "uses 'y' before"),
        ("graph(x: float32[2])\n    v0 = wobble(x)", "no op 'wobble'"),
        ("graph(x: float32[2])\n    v0: float32[3] = exp(x)", "but the op gives"),
        ("graph(x: float32[2])\n    v0 = exp x", "cannot read"),
        ("graph(x)", "needs a dtype"),
    ],
)
def test_what_is_no_graph(bad: str, says: str) -> None:
    with pytest.raises(GraphError, match=says):
        parse(bad)


def test_lines_are_shown() -> None:
    f = hal.compile(lambda x: x.exp())
    f(hal.ones(2))
    line = f.function.__code__.co_firstlineno
    assert f.plans[0].graph.text(lines=True).splitlines()[1].endswith(f"exp(x0)  # {__file__}:{line}")


def test_the_arena_is_as_small_as_it_can_be() -> None:
    """On random graphs of large and small results, at most a tenth above the least that any assignment needs."""
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(20):
        blocks = []
        for i in range(60):
            size = int(2 ** rng.uniform(6, 14)) // 64 * 64
            blocks.append(memory.Block(i, i + int(rng.integers(1, 12)), size, [object()]))
        offsets, size = memory.assign(blocks)
        least = memory.bound(blocks)
        for a in blocks:
            for b in blocks:
                if a is not b and a.start <= b.stop and b.start <= a.stop:
                    first, second = offsets[a.values[0]], offsets[b.values[0]]
                    assert first + a.nbytes <= second or second + b.nbytes <= first
        worst = max(worst, size / least)
    assert worst <= 1.1


def test_results_share_memory_when_they_are_not_alive_together() -> None:
    f = hal.compile(lambda x, w: ((x @ w).exp() @ w).exp() @ w)
    f(hal.ones(64, 64), hal.ones(64, 64))
    (plan,) = f.plans
    (found,) = plan.memory.values()
    assert found.bytes == found.bound == 2 * 64 * 64 * 4
    assert len(found.offsets) == 4
