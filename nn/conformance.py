"""The conformance levels that nn brings: layers forward and backward, losses, optimizers, and whole trainings.

Each is run twice from the same seed and the same weights: on the device under test, and in float64 on a device that
computes by the references of the op table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import hal
import nn
from hal import Tensor, ops, report
from hal.device import Device
from hal.dtypes import DType
from hal.op import Array
from hal.policy import fallback
from hal.testing.accuracy import products_cost, unit_roundoff
from hal.testing.calls import fetch
from hal.testing.case import Case, Level, Outcome
from hal.testing.checks import Declined, case, exact_device, same_bits, some_float
from hal.testing.inputs import widened
from nn.conformance_cases import LAYERS, LOSSES, OPTIMIZERS, Build

UNITS = 64.0  # roundings of the largest element that a layer's results and gradients may be off by
SOURCE = "roundings on the way through a layer and back, in units of its largest result or gradient"
DRIFT = 1e3  # roundings that a loss may be off by, relatively, after a training of tens of steps
SEED = 7

Run = Callable[[Device, DType], list[Tensor]]


def _state(build: Build) -> tuple[nn.Module, dict[str, Array]]:
    """A layer on the exact device, and its state in float32: the same weights for all."""
    with exact_device():
        hal.manual_seed(SEED)
        layer = build()
    return layer, {name: fetch(x) for name, x in layer.state_dict().items()}


def _on(build: Build, state: dict[str, Array], device: Device, dtype: DType) -> nn.Module:
    """A layer with this state, on a device, in a dtype."""
    with exact_device():
        layer = build()
    layer.load_state_dict({name: hal.tensor(x, device=exact_device()) for name, x in state.items()})
    layer.to(dtype=dtype)
    return layer.to(device=device)


def _judged(what: str, device: Device, run: Run) -> Outcome:
    """Run twice, and compare all results and gradients."""
    dtype = some_float(device)
    want = [widened(fetch(x)) for x in run(exact_device(), hal.float64)]
    with fallback("allow"), report.placement_report() as counted:
        results = run(device, dtype)
        got = [widened(fetch(x)) for x in results]
    away = [x for x in results if x.device is not device]
    if away:
        return Outcome("wrong", detail=f"{what}: a result is on {away[0].device}")
    if len(got) != len(want):
        return Outcome("wrong", detail=f"{what}: {len(got)} results and gradients, expected {len(want)}")
    worst = 0.0
    for i, (y, w) in enumerate(zip(got, want, strict=True)):
        if y.shape != w.shape or (np.isfinite(y) != np.isfinite(w)).any():
            return Outcome("wrong", detail=f"{what}: result or gradient {i} is {y.shape}, expected finite {w.shape}")
        if w.size and w.dtype.kind == "f":
            scale = max(1.0, float(np.abs(w).max())) * unit_roundoff(dtype)
            worst = max(worst, float(np.abs(y - w).max()) / scale)
    fell = sorted({e.what for e in counted.fallbacks.values()})
    reason = f"{', '.join(fell)} fell back" if fell else ""
    allowed = UNITS + products_cost(device, ops.matmul, dtype)
    detail = f"{what}: off by {worst:.3g} roundings of the largest element" if worst > allowed else ""
    return Outcome(
        "wrong" if worst > allowed else "fallback" if fell else "native", worst, allowed, "norm", SOURCE, detail=detail,
        reason=reason, bytes=sum(e.bytes for e in counted.fallbacks.values()),
    )  # fmt: skip


def _layer(name: str) -> Case:
    build, shape = LAYERS[name]

    def check(device: Device) -> Outcome:
        _, state = _state(build)
        sent = np.random.default_rng(0).normal(size=shape).astype(np.float32).astype(some_float(device).numpy)

        def run(where: Device, dtype: DType) -> list[Tensor]:
            layer = _on(build, state, where, dtype)
            hal.manual_seed(SEED)
            trains = where.backend.training and device.backend.training
            x = hal.tensor(sent.astype(dtype.numpy), device=where, requires_grad=trains)
            if not trains:
                with hal.no_grad():
                    out = layer(x)
                return [out[0] if isinstance(out, tuple) else out]
            out = layer(x)
            out = out[0] if isinstance(out, tuple) else out
            probe = np.random.default_rng(3).normal(size=out.shape).astype(some_float(device).numpy)
            (out * hal.tensor(probe.astype(dtype.numpy), device=where)).sum().backward()
            gradients = [p.grad for p in (x, *layer.parameters())]
            buffers = [b for b in layer.buffers() if b.dtype.is_floating]
            return [out.detach(), *(g for g in gradients if g is not None), *buffers]

        return _judged(name, device, run)

    return case(f"nn/layer/{name}", check)


def _loss(name: str) -> Case:
    build, kind = LOSSES[name]

    def check(device: Device) -> Outcome:
        rng = np.random.default_rng(1)
        x = rng.normal(size=(6, 5)).astype(np.float32)
        shares = np.exp(rng.normal(size=(6, 5)))
        numbers = {"numbers": rng.normal(size=(6, 5)), "shares": shares / shares.sum(1, keepdims=True)}

        def run(where: Device, dtype: DType) -> list[Tensor]:
            trains = where.backend.training and device.backend.training
            given = hal.tensor(
                x.astype(some_float(device).numpy).astype(dtype.numpy), device=where, requires_grad=trains
            )
            if kind == "classes":
                target = hal.tensor(np.array([0, 4, 2, 1, 1, 3]), device=where)
            else:
                exact = numbers[kind].astype(some_float(device).numpy)
                target = hal.tensor(exact.astype(dtype.numpy), device=where)
            scores = hal.log_softmax(given, 1) if name in ("NLLLoss", "KLDivLoss") else given
            if not trains:
                with hal.no_grad():
                    return [build()(scores, target)]
            loss = build()(scores, target)
            loss.backward()
            assert given.grad is not None
            return [loss.detach(), given.grad]

        return _judged(name, device, run)

    return case(f"nn/loss/{name}", check)


def _optimizer(name: str) -> Case:
    make = OPTIMIZERS[name]

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))

    def check(device: Device) -> Outcome:
        if not device.backend.training:
            return Outcome("declined", detail=f"{device.type} declares that it does not train")
        _, state = _state(build)
        sent = np.random.default_rng(2).normal(size=(8, 6)).astype(np.float32)

        def run(where: Device, dtype: DType) -> list[Tensor]:
            net = _on(build, state, where, dtype)
            optimizer = make(net.parameters())
            x = hal.tensor(sent.astype(some_float(device).numpy).astype(dtype.numpy), device=where)
            for _ in range(6):
                optimizer.zero_grad()
                (net(x) - 0.5).square().mean().backward()
                optimizer.step()
            return [p.detach() for p in net.parameters()]

        return _judged(name, device, run)

    return case(f"nn/optimizer/{name}", check)


def _dropout(device: Device) -> str:
    """The same elements are dropped as everywhere, and the rest are scaled."""
    with fallback("allow"), hal.no_grad():
        drawn = []
        for where in (device, exact_device()):
            hal.manual_seed(SEED)
            x = hal.ones((40, 25), dtype=some_float(device), device=where)
            drawn.append(fetch(nn.Dropout(0.4)(x)))
        return same_bits("Dropout of the same seed", drawn[0], drawn[1])


def _moves(device: Device) -> str:
    """A module goes to the device and back with its parameters and buffers, and its state is the same."""
    layer, _ = _state(lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3)))
    layer.to(dtype=some_float(device))
    before = {name: fetch(x) for name, x in layer.state_dict().items()}
    if hal.int64 not in device.backend.dtypes:
        raise Declined(f"{device.type} declares no int64, which batches are counted in")
    layer.to(device=device)
    for name, x in layer.state_dict().items():
        if x.device is not device:
            return f"after module.to({str(device)!r}), {name} is on {x.device}"
        problem = same_bits(f"{name}, moved to {device}", fetch(x), before[name])
        if problem:
            return problem
    layer.to(device=exact_device())
    for name, x in layer.state_dict().items():
        problem = same_bits(f"{name}, moved to {device} and back", fetch(x), before[name])
        if problem:
            return problem
    return ""


def nn_cases(device: Device) -> Iterator[Case]:
    """Layers, losses, optimizers, dropout, moves."""
    for name in LAYERS:
        yield _layer(name)
    for name in LOSSES:
        yield _loss(name)
    for name in OPTIMIZERS:
        yield _optimizer(name)
    yield case("nn/dropout", _dropout)
    yield case("nn/moves", _moves)


# Whole trainings.


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(96, 10),
    )  # fmt: skip


class _Sequence(nn.Module):
    """An image read row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(8, 12)
        self.out = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Any:
        states, _ = self.cell(x.reshape(x.shape[0], 8, 8).permute(1, 0, 2))
        return self.out(states[-1])


TRAININGS: dict[str, tuple[Build, str, int]] = {
    "mlp-sgd": (_mlp, "SGD-momentum", 30),
    "mlp-adam": (_mlp, "Adam", 30),
    "cnn-adam": (_cnn, "Adam", 12),
    "lstm-adam": (_Sequence, "Adam", 24),
}


def _digits() -> tuple[Array, Array]:
    """Ten blurred patterns with noise: as easy as digits, and made of nothing but a seed."""
    rng = np.random.default_rng(SEED)
    patterns = rng.normal(size=(10, 64))
    labels = np.arange(60) % 10
    return (patterns[labels] + 0.5 * rng.normal(size=(60, 64))).astype(np.float32), labels


def curve(
    build: Build, optimizer: str, steps: int, device: Device, dtype: DType, sent: Array, labels: Array
) -> list[float]:
    """The loss at each step of a training from the seed's weights."""
    _, state = _state(build)
    net = _on(build, state, device, dtype)
    step = OPTIMIZERS[optimizer](net.parameters())
    losses = []
    for i in range(steps):
        rows = slice(20 * (i % 3), 20 * (i % 3) + 20)
        x, y = hal.tensor(sent[rows].astype(dtype.numpy), device=device), hal.tensor(labels[rows], device=device)
        step.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        step.step()
        losses.append(float(loss.item()))
    return losses


def _training(name: str) -> Case:
    build, optimizer, steps = TRAININGS[name]

    def check(device: Device) -> Outcome:
        if not device.backend.training:
            return Outcome("declined", detail=f"{device.type} declares that it does not train")
        dtype = some_float(device)
        allowed = (DRIFT + products_cost(device, ops.matmul, dtype)) * unit_roundoff(dtype)
        images, labels = _digits()
        sent = images.astype(dtype.numpy)
        want = curve(build, optimizer, steps, exact_device(), hal.float64, sent, labels)
        with fallback("allow"), report.placement_report() as counted:
            got = curve(build, optimizer, steps, device, dtype, sent, labels)
        drift = [abs(a - b) / max(1.0, abs(b)) for a, b in zip(got, want, strict=True)]
        fell = sorted({e.what for e in counted.fallbacks.values()})
        moved = sum(e.bytes for e in counted.fallbacks.values())
        worst = max(drift)
        if not worst <= allowed:
            i = int(np.argmax(np.nan_to_num(drift, nan=np.inf)))
            detail = f"at step {i} the loss is {got[i]:.6g}, expected {want[i]:.6g}; before it {got[:i][-1:]}"
            return Outcome("wrong", worst, allowed, "relative", detail=detail, bytes=moved)
        if got[-1] > got[0] / 2:
            return Outcome("wrong", worst, allowed, "relative", detail=f"nothing was learned: {got[0]} to {got[-1]}")
        reason = f"{', '.join(fell)} fell back" if fell else ""
        return Outcome("fallback" if fell else "native", worst, allowed, "relative", reason=reason, bytes=moved)

    return case(f"training/{name}", check)


def training_cases(device: Device) -> Iterator[Case]:
    """Small networks that learn: the same seed and data give the same curve of losses."""
    for name in TRAININGS:
        yield _training(name)


LEVELS = [
    Level("nn", "layers forward and backward, losses, optimizers, beside the same in float64", 90, nn_cases),
    Level("training", "whole trainings from the same seed and data give the same curve of losses", 100, training_cases),
]
