"""hal.checkpoint: the same results and gradients as without it, random numbers included, and less that is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal.errors import GradientError
from nn import functional as F


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


def network() -> list[nn.Module]:
    hal.manual_seed(0)
    return [nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 4)) for _ in range(3)]


def trained(saving: bool, compiled: bool) -> list[Any]:
    parts = network()
    optimizer = nn.optim.Adam([p for part in parts for p in part.parameters()], lr=0.1)

    def step(x: hal.Tensor) -> hal.Tensor:
        optimizer.zero_grad()
        y = x
        for part in parts:
            y = hal.checkpoint(part, y) if saving else part(y)
        loss = (y * y).mean()
        loss.backward()
        optimizer.step()
        return loss

    run = hal.compile(step, exact=True) if compiled else step
    losses = [run(hal.randn(5, 4)).item() for _ in range(4)]
    return [losses, *[p.tolist() for part in parts for p in part.parameters()], hal.get_rng_state().tolist()]


@pytest.mark.parametrize("compiled", [False, True])
def test_nothing_but_memory_changes(compiled: bool) -> None:
    assert trained(True, compiled) == trained(False, compiled) == trained(False, False)


def test_gradients_reach_all_that_the_function_used() -> None:
    w = hal.tensor([2.0], requires_grad=True)
    x = hal.tensor([3.0], requires_grad=True)
    before = w * 5

    def f(x: hal.Tensor, *, n: int) -> tuple[hal.Tensor, hal.Tensor, int]:
        return x * w * n, before * x, n

    a, b, n = hal.checkpoint(f, x, n=2)
    assert (a.item(), b.item(), n) == (12, 30, 2)
    (a + b).sum().backward()
    assert x.grad is not None
    assert w.grad is not None
    assert x.grad.tolist() == [4 + 10]
    assert w.grad.tolist() == [6 + 15]


def test_second_derivatives() -> None:
    x = hal.tensor([2.0], requires_grad=True)
    y = hal.checkpoint(lambda x: x * x * x, x)
    (g,) = hal.grad(y, x, create_graph=True)
    assert hal.grad(g, x)[0].tolist() == [12]


def test_without_gradients_it_is_the_call() -> None:
    x = hal.ones(2)
    with hal.no_grad():
        assert hal.checkpoint(lambda x: x + 1, x).tolist() == [2, 2]
    assert not hal.checkpoint(lambda x: x + 1, x).requires_grad


def test_another_number_of_results() -> None:
    calls: list[int] = []

    def f(x: hal.Tensor) -> tuple[hal.Tensor, ...]:
        calls.append(1)
        return (x,) * len(calls)

    x = hal.ones(2, requires_grad=True)
    with pytest.raises(GradientError, match="gave 1 tensors, and 2"):
        hal.checkpoint(f, x * 1)[0].sum().backward()


def test_a_compiled_step_keeps_less() -> None:
    """Of 8 wide parts, the plan with checkpoints has about a part's worth of results at a time, not eight."""
    hal.manual_seed(0)
    parts = [nn.Sequential(nn.Linear(16, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 16))
             for _ in range(8)]  # fmt: skip
    sizes = []
    for saving in (False, True):

        def loss(x: hal.Tensor, saving: bool = saving) -> hal.Tensor:
            for part in parts:
                x = hal.checkpoint(part, x) if saving else part(x)
            value = F.mse_loss(x, hal.zeros_like(x))
            value.backward()
            return value

        compiled = hal.compile(loss)
        for part in parts:
            part.zero_grad()
        compiled(hal.randn(512, 16))
        (memory,) = compiled.plans[0].memory.values()
        sizes.append(memory.bytes)
        assert memory.bytes <= 1.1 * memory.bound
    assert sizes[1] < sizes[0] / 2
    assert np.isfinite(sizes).all()
