"""What a prompt shows of large things: one short line of what runs, and the whole text of what is there to be read."""

import re
from dataclasses import replace

import pytest

import hal
import nn


@hal.compile
def step(x: hal.Tensor) -> hal.Tensor:
    return (x.exp().sum(0) @ x.T).tanh()


step(hal.ones(3, 3))
PLAN = step.plans[0]
step.forget()
with hal.profile() as PROFILE:
    hal.ones(3)
HISTORY = nn.fitting.History([{"epoch": 1, "loss": 0.5, "val_loss": None}], "early")


@pytest.mark.parametrize(
    ("thing", "wanted"),
    [
        (step, "<compiled step: 0 plans>"),
        (PLAN, r"<plan: \d steps on cpu, \d+ bytes of arena>"),
        (replace(PLAN, steps=(), memory={}, end="a:3"), "<plan: 0 steps on no device, 0 bytes of arena, until a:3>"),
        (PLAN.graph, r"<graph: \d nodes, 1 inputs, 1 outputs>"),
        (PROFILE, "<profile: 1 slices>"),
        (HISTORY, "<history: 1 epochs, stopped early, the last with loss 0.5>"),
        (nn.fitting.History(), "<history: 0 epochs>"),
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_what_runs_is_shown_in_a_line(thing: object, wanted: str) -> None:
    assert re.fullmatch(wanted, repr(thing))


@pytest.mark.parametrize("thing", [PLAN.report(), nn.summary(nn.Linear(2, 3), hal.ones(1, 2)), hal.placement_report()])
def test_a_report_is_shown_as_its_text(thing: object) -> None:
    assert repr(thing) == str(thing)
