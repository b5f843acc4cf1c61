"""What a failing kernel leaves of a compiled step: parameters, state, gradients and random numbers as they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import hal
import nn
from hal.errors import DeviceError
from hal.graph.plan import Plan
from hal.graph.planner import Replay
from hal.op import Op
from hal.testing.fake import Fake
from nn import functional as F


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


class Breaking(Fake):
    """A device on which the kernel of one op can be made to fail."""

    broken = ""

    def prepare(self, op: Op, kernel: Any, specs: Any, outs: Any, settings: Any) -> Any:
        run = super().prepare(op, kernel, specs, outs, settings)

        def guarded(*buffers: Any, **given: Any) -> Any:
            if op.name == self.broken:
                raise ValueError("the chip melted")
            return run(*buffers, **given)

        return guarded


@pytest.mark.parametrize("broken", ["linear", "where", "adam_step", "neg"])
@pytest.mark.parametrize("calls", [0, 2])
@pytest.mark.parametrize("split", [False, True])
def test_a_failing_kernel_changes_no_state_and_says_where(broken: str, calls: int, split: bool) -> None:
    with Breaking("melting").registered() as backend:
        device = hal.device("melting")
        hal.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).to(device)
        optimizer = nn.optim.Adam(net.parameters())

        def step(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(F.dropout(x, 0.2)), y)
            loss.backward()
            optimizer.step()
            if split:  # the parameters have their new values, and what comes is another plan
                assert loss.item() > 0
            return -loss

        compiled = hal.compile(step, split=split)
        x, y = hal.randn(5, 3, device=device), hal.randint(0, 2, (5,), device=device)
        for _ in range(calls):
            compiled(x, y)

        def everything() -> list[Any]:
            kept = optimizer.state_dict()["state"].values()
            return [
                [t.tolist() for t in net.state_dict().values()], hal.get_rng_state().tolist(),
                [{k: v.tolist() for k, v in s.items()} for s in kept],
                [None if p.grad is None else p.grad.tolist() for p in net.parameters()],
            ]  # fmt: skip

        before = everything()
        backend.broken = broken
        with pytest.raises(DeviceError, match=rf"{broken} on melting, called at .*_failures.py:\d+.*melted"):
            compiled(x, y)
        after = everything()
        if calls == 0:  # the optimizer has made its state, of zeros
            before, after = before[:2], after[:2]
        assert after == before
        backend.broken = ""
        compiled(x, y)
        assert everything()[0] != before[0]


@pytest.mark.parametrize("split", [False, True])
def test_whichever_kernel_fails_nothing_has_changed(
    each_device: hal.Device, monkeypatch: pytest.MonkeyPatch, split: bool
) -> None:
    hal.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def step(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(F.dropout(x, 0.2)), y)
        loss.backward()
        optimizer.step()
        if split and net[0].weight.abs().sum().item() < 0:  # the new one
            raise AssertionError
        return loss

    def everything() -> list[Any]:
        kept = [s["momentum_buffer"].tolist() for s in optimizer.state_dict()["state"].values()]
        gradients = [None if p.grad is None else p.grad.tolist() for p in net.parameters()]
        return [[t.tolist() for t in net.state_dict().values()], kept, gradients, hal.get_rng_state().tolist()]

    done, broken = 0, -1

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*buffers: Any, **given: Any) -> Any:
            nonlocal done
            done += 1
            if done - 1 == broken:
                raise ValueError("the chip melted")
            return call(*buffers, **given)

        return run

    runs: dict[Plan, Callable[..., Any]] = {}

    def watched(plan: Plan) -> Callable[..., Any]:
        if plan not in runs:
            steps = tuple(replace(step, call=guarded(step.call)) for step in plan.steps)
            runs[plan] = Replay(plan.graph, steps).plan.run
        return runs[plan]

    monkeypatch.setattr("hal.graph.plan.timed", watched)
    compiled = hal.compile(step, split=split)
    x, y = hal.randn(5, 3), hal.randint(0, 2, (5,))
    for _ in range(2):
        compiled(x, y)
    count = done // 2
    before = everything()
    for i in range(count):
        done, broken = 0, i
        with pytest.raises(DeviceError, match=r" on [\w:]+, called at .*test_compile_failures.py:\d+.*melted"):
            compiled(x, y)
        assert everything() == before
    broken = -1
    compiled(x, y)
    assert everything() != before
    assert count > 15
    assert len(compiled.plans) == 1 + split
