"""`hal diff`: names the first op that goes wrong on a device, forward or backward, with the user's line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import hal
from hal.cli import cli
from hal.op import Op
from hal.testing.fake import Fake

SCRIPT = """
import sys
import hal
import nn
from nn import functional as F

hal.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
x = hal.randn(5, 4)
loss = F.cross_entropy(net(x), hal.tensor([0, 1, 2, 0, 1]))
loss.backward()
print("loss", loss.item(), *sys.argv[1:])
"""


class Broken(Fake):
    """A fake device whose result of one op is off by a relative error."""

    def __init__(self, op: str, factor: float = 1.01) -> None:
        super().__init__("broken")
        self.wrong, self.factor = op, factor

    def compute(self, op: Op, inputs: Any, settings: dict[str, Any], specs: Any) -> Any:
        first, *rest = super().compute(op, inputs, settings, specs)
        if op.name == self.wrong:
            first = (first * self.factor).astype(first.dtype)
        return (first, *rest)


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "program.py"
    path.write_text(SCRIPT)
    return str(path)


def diff(*args: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli, ["diff", *args])
    return done.exit_code, done.stdout, done.stderr


def test_a_right_device_does_not_diverge(script: str) -> None:
    code, out, _ = diff("--dut", "fake", script, "an argument")
    assert code == 0, out
    assert "kernel calls on fake are within the tolerances of their ops" in out
    assert "an argument" in out


def test_a_wrong_kernel_is_named_in_the_forward_pass(script: str) -> None:
    hal.register(Broken("tanh"), "broken")
    try:
        code, out, _ = diff("--dut", "broken", script)
    finally:
        hal.unregister("broken")
    assert code == 1
    assert out.splitlines()[0].startswith("tanh on broken is wrong in the forward pass, call")
    assert f"{script}:10]" in out
    assert "Spec((5, 8), float32)" in out
    assert "cpu:" in out


def test_a_wrong_kernel_is_named_in_the_backward_pass(script: str) -> None:
    hal.register(Broken("cross_entropy_gradient", -1.0), "broken")
    try:
        code, out, _ = diff("--dut", "broken", "--json", script)
    finally:
        hal.unregister("broken")
    assert code == 1
    (found,) = json.loads(out)["divergences"]
    assert (found["op"], found["phase"], found["gradient_of"]) == (
        "cross_entropy_gradient",
        "backward",
        "cross_entropy",
    )
    assert found["line"] == f"{script}:10"
    assert np.allclose(found["got"], -np.array(found["other"]), rtol=1e-5)
    assert found["error"] > found["allowed"] >= found["reference_error"]
    assert found["unit"] != "ulp"
    assert found["ulps"] > 1e6  # the sign is wrong


def test_all_divergences_can_be_listed(script: str) -> None:
    hal.register(Broken("linear"), "broken")
    try:
        _, out, _ = diff("--dut", "broken", "--all", "--json", script)
    finally:
        hal.unregister("broken")
    assert [d["op"] for d in json.loads(out)["divergences"]] == ["linear", "linear"]


def test_a_script_that_fails_is_reported_with_what_was_found(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text("import hal\nhal.ones(2) + hal.ones(2)\nraise RuntimeError('my own fault')")
    code, out, err = diff("--dut", "fake", str(path))
    assert code == 1
    assert "no divergence" in out
    assert "the script ended with RuntimeError: my own fault" in err


def test_in_place_updates_are_judged_too(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text("import hal\nx = hal.ones(3)\nx.mul_(2.0)\nx.exp_()\n")
    hal.register(Broken("exp"), "broken")
    try:
        code, out, _ = diff("--dut", "broken", str(path))
    finally:
        hal.unregister("broken")
    assert code == 1
    assert f"[{path}:4]" in out
