"""A training step on two real devices, the CPU and OpenCL: what is copied, how often, and what runs meanwhile."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

import hal
import nn
from hal.graph.plan import Plan
from hal.schedule.queues import runs_apart
from hal.schedule.speed import Calibration, Link, Speed
from hal.schedule.timeline import crosses
from hal.schedule.trial import best_of
from hal.tensor import Waiting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.device("opencl"),
]


class Towers(nn.Module):
    """Two towers that do not need each other until the end."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(*[m for _ in range(3) for m in (nn.Linear(256, 256), nn.Tanh())])
        self.right = nn.Sequential(*[m for _ in range(3) for m in (nn.Linear(256, 256), nn.Tanh())])
        self.last = nn.Linear(256, 10)

    def forward(self, x: hal.Tensor) -> hal.Tensor:
        return self.last(self.left(x) + self.right(x).to("cpu"))


def trained(right: str, policy: str) -> tuple[list[float], Plan, hal.profile]:
    """The losses of some steps with one tower on a device, the plan, and a profile of the last step."""
    hal.manual_seed(0)
    model = hal.place(Towers().to("cpu"), {"right": right})
    optimizer, loss_of = nn.optim.Adam(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()

    @hal.compile
    def step(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    rng = np.random.default_rng(0)
    x = hal.tensor(rng.normal(size=(128, 256)).astype("f4"), device="cpu")
    y = hal.tensor(rng.integers(0, 10, 128), device="cpu")
    with hal.placement(policy, devices=[right]):
        losses = [step(x, y).item() for _ in range(5)]
        with hal.profile() as profile:
            losses.append(step(x, y).item())
    return losses, step.plans[-1], profile


@pytest.fixture(autouse=True)
def _alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler takes all devices for equally fast, however busy this machine is."""
    speed, link = Speed(1e10, {"contraction": 5e10, "any": 5e9}, 1e-5), Link(1e10, 1e-5)

    def known(device: hal.Device) -> Calibration:
        return Calibration(str(device), speed, link, link)

    monkeypatch.setattr("hal.schedule.calibrate.calibration_of", known)
    monkeypatch.setattr("hal.schedule.calibrate.known_calibration", known)


def test_a_step_on_two_devices_copies_each_tensor_once_and_overlaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "hal.schedule.trial._times", lambda runs: [2.0, 1.0, *[3.0] * len(runs[2:])]
    )  # not what this is about
    want, _, _ = trained("cpu", "follow")
    losses, plan, profile = trained("opencl:0", "auto")
    np.testing.assert_allclose(losses, want, rtol=1e-4)
    assert runs_apart(plan)
    assert {str(s.device) for s in plan.steps} >= {"cpu", "opencl:0"}

    crossing = [n for n in plan.graph.nodes if crosses(n)]
    pairs = [(n.inputs[0], n.device) for n in crossing]
    assert pairs
    assert len(set(pairs)) == len(pairs), "a tensor was copied twice to one device"
    made = {n.outputs[0] for n in crossing}
    assert not made.intersection(x for x, _ in pairs), "a copy was copied on"
    links = [s.track for s in profile.slices if s.name == "copy" and s.facts["bytes"] > 16]
    assert len(links) <= len(crossing), "more was copied than the plan has"
    assert {"cpu → opencl:0", "opencl:0 → cpu"} == set(links)

    told = plan.report()
    work = [(r.queue, r.start, r.start + r.seconds) for r in told.rows if r.seconds]
    apart = [
        (a, b) for a in work for b in work if a[0] != b[0] and max(a[1], b[1]) < min(a[2], b[2])
    ]  # two queues that are busy at one time
    assert {("cpu", "opencl:0")} & {(a[0], b[0]) for a, b in apart}, "the devices wait for each other"
    assert any("→" in a[0] and "→" not in b[0] for a, b in apart), "copies wait for work, or work for copies"


def test_a_model_from_the_cpu_is_trained_on_opencl_as_if_it_had_been_put_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hal.schedule.offers.HOPELESS", inf)
    monkeypatch.setattr(
        "hal.schedule.trial.best_of",
        lambda offers, *others: best_of([o for o in offers if o.name.startswith("all on opencl:0")], *others),
    )
    states, losses = [], []
    for device, policy in (("opencl:0", "follow"), ("cpu", "auto")):
        hal.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True)
        model = nn.Sequential(layer, nn.Flatten(), nn.Linear(64, 3)).to(device)
        optimizer, loss_of = nn.optim.Adam(model.parameters()), nn.CrossEntropyLoss()

        @hal.compile
        def step(x: hal.Tensor, y: hal.Tensor, o=optimizer, m=model, of=loss_of) -> hal.Tensor:
            o.zero_grad()
            loss = of(m(x), y)
            loss.backward()
            o.step()
            return loss.detach()

        rng = np.random.default_rng(0)
        with hal.placement(policy, devices=["opencl:0"]):
            for _ in range(6):
                x = hal.tensor(rng.normal(size=(4, 4, 16)).astype("f4"), device=device)
                losses.append(step(x, hal.tensor(rng.integers(0, 3, 4), device=device)).item())
        plan = step.plans[-1]
        assert {str(s.device) for s in plan.steps} == {"opencl:0"}
        assert plan.in_place, "moments and parameters are written over where they are"
        assert (type(model[2].weight.storage.buffer) is Waiting) == (policy == "auto")
        states.append({name: p.cpu().numpy().copy() for name, p in model.state_dict().items()})
    assert [s.node.op.name for s in plan.steps].count("copy_to") == 0
    np.testing.assert_allclose(losses[:6], losses[6:], rtol=1e-5)
    for name, array in states[0].items():
        np.testing.assert_allclose(array, states[1][name], rtol=1e-4, atol=1e-6)
