"""Compiled = eager, bit for bit: every layer forward and backward, every optimizer, whole training steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal.op import Array
from nn import functional as F
from nn.conformance import LAYERS, LOSSES, OPTIMIZERS


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


def contents(x: Any) -> list[Array]:
    if isinstance(x, hal.Tensor):
        return [x.detach().numpy().copy()]
    return [a for part in x for a in contents(part)] if isinstance(x, (tuple, list)) else []


def assert_same(got: list[Array], want: list[Array]) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def passes(build: Callable[[], nn.Module], shape: tuple[int, ...], compiled: bool) -> list[Array]:
    """Two forward and backward passes with accumulated gradients; the state and gradients after them."""
    hal.manual_seed(3)
    layer = build()
    xs = [hal.randn(shape) for _ in range(2)]
    run = hal.compile(layer, exact=True) if compiled else layer
    found: list[Array] = []
    for x in xs:
        x.requires_grad = True
        result = run(x)
        found += contents(result)
        first = result[0] if isinstance(result, tuple) else result
        (first * first).sum().backward()
        assert x.grad is not None
        found += contents(x.grad)
    found += contents(list(layer.state_dict().values()))
    return found + contents([p.grad for p in layer.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    build, shape = LAYERS[name]
    assert_same(passes(build, shape, True), passes(build, shape, False))


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    build, wants = LOSSES[name]
    found = []
    for compiled in (True, False):
        hal.manual_seed(3)
        loss = build()
        run = hal.compile(loss, exact=True) if compiled else loss
        got: list[Array] = []
        for _ in range(2):
            x = hal.randn(4, 5, requires_grad=True)
            target = hal.randint(0, 5, (4,)) if wants == "classes" else hal.rand(4, 5)
            value = run(x, target)
            value.backward()
            got += contents([value, x.grad])
        found.append(got)
    assert_same(*found)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_steps(name: str) -> None:
    """The whole step: forward, backward, clipping, optimizer, metrics, random numbers, running statistics."""
    found = []
    for compiled in (True, False):
        hal.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))
        optimizer = OPTIMIZERS[name](net.parameters())
        scheduler = nn.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

        def step(
            x: hal.Tensor, y: hal.Tensor, net: nn.Module = net, optimizer: nn.optim.Optimizer = optimizer
        ) -> tuple[hal.Tensor, hal.Tensor]:
            optimizer.zero_grad()
            scores = net(x)
            loss = F.cross_entropy(scores, y)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            return loss, norm + (scores.argmax(dim=1) == y).sum()

        run = hal.compile(step, exact=True) if compiled else step
        got: list[Array] = []
        for _ in range(4):
            got += contents(run(hal.randn(5, 8), hal.randint(0, 3, (5,))))
            scheduler.step()
        got += contents(list(net.state_dict().values())) + contents([p.grad for p in net.parameters()])
        got += [np.array(s["step"]) for s in optimizer.state_dict()["state"].values() if "step" in s]
        got += [v.numpy() for s in optimizer.state_dict()["state"].values() for v in s.values() if v.ndim]
        found.append(got)
        if compiled:
            assert isinstance(run, hal.graph.compiler.Compiled)
            assert (run.counters.traces, run.counters.replays) == (1, 3)
    assert_same(*found)
