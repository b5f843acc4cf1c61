"""What the machine tells the scheduler: the cost model's seconds for each call."""

from __future__ import annotations

import pytest

import hal
from hal import ops
from hal.plugin import Spec
from hal_systolic.cost import cost
from hal_systolic.presets import load
from hal_systolic.work import Matmul, Operand, Vector


def test_a_call_takes_what_the_cost_model_says() -> None:
    device, machine = hal.device("systolic:tpu-v2-core"), load("tpu-v2-core")
    a, b = Spec((64, 512), hal.bfloat16), Spec((512, 256), hal.bfloat16)
    out = ops.matmul.infer(a, b)
    predicted = device.backend.seconds(ops.matmul, (a, b), (out,), {}, device)
    product = Matmul(64, 512, 256, Operand(0, a.nbytes), Operand(1, b.nbytes), Operand(2, out.nbytes))
    assert predicted == pytest.approx(cost(product, machine).latency_s)

    added = device.backend.seconds(ops.add, (a, a), (a,), {}, device)
    inputs = (Operand(0, a.nbytes), Operand(1, a.nbytes))
    work = Vector("add", 64 * 512, 1.0, inputs, (Operand(2, a.nbytes),))
    assert added == pytest.approx(cost(work, machine).latency_s)


def test_a_profile_has_a_track_with_the_machines_own_time() -> None:
    device = hal.device("systolic:tpu-v2-core")
    x = hal.ones(64, 64, device=device)
    with hal.profile() as p:
        (x @ x).exp()
    given = {
        "matmul": device.backend.seconds(ops.matmul, (x.spec, x.spec), (x.spec,), {}, device),
        "exp": device.backend.seconds(ops.exp, (x.spec,), (x.spec,), {}, device),
    }
    clock = [s for s in p.slices if s.simulated]
    assert {s.name: s.simulated[1] for s in clock} == given
    assert [s.simulated[0] for s in clock] == [0.0, given["matmul"]]


def test_other_devices_leave_it_to_their_speed() -> None:
    device, spec = hal.device("cpu"), Spec((4, 4), hal.float32)
    assert device.backend.seconds(ops.add, (spec, spec), (spec,), {}, device) is None
