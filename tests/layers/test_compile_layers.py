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
from nn import metrics
from nn.conformance import LAYERS, LOSSES, OPTIMIZERS
from nn.data import DataLoader, Digits


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
    """Forward and backward passes with accumulated gradients, a smaller batch at last; the state after them."""
    hal.manual_seed(3)
    layer = build()
    fixed = isinstance(layer, type(LAYERS["AdaptiveLogSoftmaxWithLoss"][0]()))  # its targets are part of it
    last = shape if fixed else (max(shape[0] // 2, 1), *shape[1:])
    xs = [hal.randn(size) for size in (shape, shape, last)]
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


STEPPERS: dict[str, Callable[[Any], Any]] = {
    **OPTIMIZERS,
    "SGD-dampened": lambda p: nn.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5),
    "Adam-amsgrad": lambda p: nn.optim.Adam(p, lr=0.02, amsgrad=True, weight_decay=0.1),
    "Adagrad-decaying": lambda p: nn.optim.Adagrad(p, lr=0.05, lr_decay=0.1),
    "RMSprop-centered": lambda p: nn.optim.RMSprop(p, momentum=0.5, centered=True),
    "Adadelta": lambda p: nn.optim.Adadelta(p, lr=0.5),
    "Lion": lambda p: nn.optim.Lion(p, lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("name", STEPPERS)
def test_training_steps(name: str) -> None:
    """The whole step: forward, backward, clipping, optimizer, metrics, random numbers, running statistics."""
    found = []
    for compiled in (True, False):
        hal.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))
        optimizer = STEPPERS[name](net.parameters())
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
            first_differs = name == "SGD-dampened"
            assert (run.counters.traces, run.counters.replays) == ((2, 2) if first_differs else (1, 3))
    assert_same(*found)


def test_mixed_precision_has_plans_of_its_own() -> None:
    found = []
    for compiled in (True, False):
        hal.manual_seed(0)
        layer = nn.Linear(4, 3)
        run = hal.compile(layer, exact=True) if compiled else layer
        got = []
        for dtype in (None, hal.bfloat16, None, hal.bfloat16):
            x = hal.randn(2, 4)
            with hal.autocast(dtype=hal.bfloat16, enabled=dtype is not None):
                y = run(x)
            assert y.dtype is (dtype or hal.float32)
            y.float().sum().backward()
            got += contents([y.float(), layer.weight.grad])
        found.append(got)
    assert_same(*found)


@pytest.mark.parametrize("more", [{}, {"clip_norm": 0.5}, {"precision": hal.bfloat16}])
def test_fit_compiles_its_steps(more: dict[str, Any]) -> None:
    """The last batch of an epoch is smaller: it gets a plan of its own, and no more are made."""
    found = []
    for compiled in (True, False):
        hal.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10))
        optimizer = nn.optim.Adam(net.parameters(), lr=3e-3)
        schedule = nn.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
        fit = Spy()
        history = nn.fit(
            net, optimizer, F.cross_entropy, DataLoader(Digits(), batch_size=256), epochs=2,
            metrics={"accuracy": metrics.Accuracy()}, schedule=schedule, compile=compiled, quiet=True,
            callbacks=[fit], **more,
        )  # fmt: skip
        found.append((history["loss"], history["accuracy"]))
        if compiled:
            assert fit.traces == 2
    assert found[0] == found[1]


class Spy(nn.fitting.Callback):
    """Notes how often the step was traced."""

    traces = 0

    def end(self, fit: nn.fitting.Fit) -> None:
        if fit._compiled is not None:
            self.traces = fit._compiled.counters.traces


def both(make: Callable[[], tuple[Callable[..., Any], Callable[[], Any]]], calls: int = 3) -> None:
    """What `make` gives (a function, and what to look at afterwards) does the same compiled."""
    found = []
    for compiled in (True, False):
        hal.manual_seed(0)
        function, look = make()
        run = hal.compile(function, exact=True) if compiled else function
        got = []
        for _ in range(calls):
            got += contents(run(hal.randn(4, 3)))
        found.append(got + contents(look()))
    assert_same(*found)


def test_gradients_that_are_set_to_zero() -> None:
    def make() -> tuple[Callable[..., Any], Callable[[], Any]]:
        net = nn.Linear(3, 1)
        optimizer = nn.optim.SGD(net.parameters(), lr=0.1)

        def step(x: hal.Tensor) -> None:
            optimizer.zero_grad(set_to_none=False)
            net(x).sum().backward()
            optimizer.step()

        step(hal.randn(4, 3))
        return step, lambda: [net.weight, net.weight.grad]

    both(make)


def test_updates_written_by_hand() -> None:
    def make() -> tuple[Callable[..., Any], Callable[[], Any]]:
        net = nn.Linear(3, 1)

        def step(x: hal.Tensor) -> None:
            net(x).sum().backward()
            for p in net.parameters():
                assert p.grad is not None
                p.data = p.data - 0.1 * p.grad
                p.data -= 0.01 * p.data
                p.grad = None

        return step, lambda: [net.weight, net.bias]

    both(make)


def test_hooks_and_parameters_as_arguments() -> None:
    def make() -> tuple[Callable[..., Any], Callable[[], Any]]:
        w = hal.ones(3, requires_grad=True)
        w.register_hook(lambda g: g * 10)
        given = hal.ones(3, requires_grad=True)
        inner = hal.compile(lambda v, x: (v * w * x).sum())

        def step(x: hal.Tensor) -> None:
            inner(given, x).backward()

        return step, lambda: [w.grad, given.grad]

    both(make)


def test_a_lazy_layer_is_made_once() -> None:
    def make() -> tuple[Callable[..., Any], Callable[[], Any]]:
        net = nn.Sequential(nn.LazyLinear(2), nn.ReLU())
        return net, lambda: list(net.parameters())

    both(make)


def test_two_forward_passes_before_the_backward_passes() -> None:
    net = nn.Linear(3, 1)
    compiled = hal.compile(net, exact=True)
    a, b = hal.randn(4, 3), hal.randn(4, 3)
    found = []
    for run in (compiled, net):
        net.zero_grad()
        (run(a).sum() + run(b).square().sum()).backward()
        found.append(contents([p.grad for p in net.parameters()]))
    assert_same(*found)


# What decides by contents: such steps are split.


def scaled(net: nn.Module, optimizer: nn.optim.Optimizer) -> tuple[Callable[..., Any], Callable[[], Any]]:
    scaler = nn.amp.GradScaler(growth_interval=3)

    def step(x: hal.Tensor, y: hal.Tensor) -> Any:
        optimizer.zero_grad()
        with hal.autocast(dtype=hal.float16):
            loss = F.cross_entropy(net(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss, norm

    return step, lambda: [hal.tensor([scaler.get_scale(), scaler.state_dict()["_growth_tracker"]])]


def averaged(net: nn.Module, optimizer: nn.optim.Optimizer) -> tuple[Callable[..., Any], Callable[[], Any]]:
    means = [
        nn.optim.swa_utils.AveragedModel(net),
        nn.optim.swa_utils.AveragedModel(net, avg_fn=nn.optim.swa_utils.get_ema_avg_fn(0.9), use_buffers=True),
    ]

    def step(x: hal.Tensor, y: hal.Tensor) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        for mean in means:
            mean.update_parameters(net)
        return loss

    return step, lambda: [list(mean.state_dict().values()) for mean in means]


@pytest.mark.parametrize("make", [scaled, averaged])
def test_steps_that_are_split(make: Any) -> None:
    found = []
    for compiled in (True, False):
        hal.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))
        optimizer = nn.optim.Adam(net.parameters(), lr=0.02)
        step, look = make(net, optimizer)
        run = hal.compile(step, exact=True, split=True) if compiled else step
        got: list[Array] = []
        for i in range(9):
            got += contents(run(hal.randn(5, 8) * (1e5 if i == 4 else 1), hal.randint(0, 3, (5,)))) + contents(look())
        got += contents(list(net.state_dict().values())) + contents([p.grad for p in net.parameters()])
        got += [v.numpy() for s in optimizer.state_dict()["state"].values() for v in s.values()]
        found.append(got)
        if compiled:
            counters = run.counters
            assert (counters.traces, counters.ways, counters.replays, counters.eager) == (2, 1, 7, 0)
    assert_same(*found)


def test_the_closure_of_lbfgs_is_compiled_and_its_steps_are_not() -> None:
    found = []
    for how in ("eagerly", "closure", "whole"):
        hal.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
        optimizer = nn.optim.LBFGS(net.parameters(), line_search_fn="strong_wolfe")

        def closure(
            x: hal.Tensor, y: hal.Tensor, net: nn.Module = net, optimizer: nn.optim.Optimizer = optimizer
        ) -> hal.Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            return loss

        losses = hal.compile(closure, exact=True) if how == "closure" else closure

        def step(
            x: hal.Tensor, y: hal.Tensor, optimizer: nn.optim.Optimizer = optimizer, losses: Callable[..., Any] = losses
        ) -> Any:
            return optimizer.step(lambda: losses(x, y))

        run = hal.compile(step, split=True) if how == "whole" else step
        for _ in range(2):
            run(hal.randn(5, 8), hal.randint(0, 3, (5,)))
        found.append(contents(list(net.parameters())))
        if how == "closure":
            assert losses.counters.replays > losses.counters.traces
        if how == "whole":
            assert run.counters.eager == 2
            assert "eagerly: LBFGS.step cannot be traced" in run.explain()
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])
