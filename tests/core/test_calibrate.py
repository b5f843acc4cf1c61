"""Calibration: what a device takes comes back from timing it, on a clock that only its kernels move."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

import hal
from hal import dtypes, ops
from hal.device import Device
from hal.graph.graph import Node, Value
from hal.graph.groups import grouped
from hal.op import Op
from hal.schedule.calibrate import measure
from hal.schedule.calls import calls
from hal.schedule.fitting import fitted
from hal.schedule.machine import Unit
from hal.schedule.speed import Link, Pace, Speed
from hal.schedule.timing import Bench
from hal.spec import Spec
from hal.testing.fake import Fake

WORK = [(0, 64), (2_000, 1_000), (10_000, 90_000), (8_000_000, 400_000), (2_000_000, 4_000_000)]
TRUE = {  # by op and by kind
    "add": Pace(2e-6, 0.0, 1e-10),
    "matmul": Pace(5e-6, 2e-11, 3e-11),
    "elementwise": Pace(1e-6, 1e-10, 0.0),
    "any": Pace(1e-5),
}


class Clock:
    """Stands for the module `time`: only sleeping takes time."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize("true", [*TRUE.values(), Pace(0.0, 0.0, 1e-9), Pace(3e-6, 1e-12, 1e-9)], ids=str)
def test_what_takes_what_a_pace_says_gives_that_pace(true: Pace) -> None:
    found = fitted([(f, b, true.seconds(f, b)) for f, b in WORK])
    for f, b in WORK:
        assert found.seconds(f, b) == pytest.approx(true.seconds(f, b), rel=1e-3)


def test_no_measurement_makes_a_pace_negative_or_shrinking() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = [(f, b, float(10 ** rng.uniform(-9, -2))) for f, b in WORK[: rng.integers(1, 6)]]
        found = fitted(points)
        assert min(found.start, found.flop, found.byte) >= 0
        assert found.seconds(*WORK[-1]) > 0
        assert found.seconds(2 * WORK[-1][0], 3 * WORK[-1][1]) >= found.seconds(*WORK[-1])


def test_twice_too_much_counts_as_twice_too_little() -> None:
    assert fitted([(0, 0, 1e-6), (0, 0, 4e-6)]).start == pytest.approx(2e-6, rel=1e-3)


def test_every_call_that_is_timed_fits_its_op() -> None:
    device = hal.device("cpu")
    names = set()
    for call in calls():
        node = call.on(device)
        names.update(call.tells)
        assert node.cost.bytes > 0 or call.tells == (node.op.name,)  # a view moves nothing
    assert {"elementwise group", "updates group", "contraction", "indexing", "random", "any", "sigmoid"} <= names


def test_what_does_not_fit_or_has_no_kernel_is_not_timed() -> None:
    add = next(calls())
    assert Bench(hal.device("cpu")).takes(add)
    apart = replace(add, inputs=(Spec((2,), dtypes.float32), Spec((3,), dtypes.float32)))
    assert not Bench(hal.device("cpu")).takes(apart)
    for fake in (Fake("fa", missing=("add",)), Fake("fa", dtypes=(dtypes.int8,))):
        with fake.registered():
            assert not Bench(hal.device("fa")).takes(add)


def test_a_device_is_known_by_timing_it(measured_roughly: None, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    for module in ("hal.testing.fake", "hal.schedule.timing"):
        monkeypatch.setattr(f"{module}.time", clock)
    backend = Fake("fa", speed=Speed(inf, paces=TRUE), bandwidth=1e9, latency=1e-5, missing=("permute",))
    with backend.registered():
        device = hal.device("fa")
        found = measure(device)
        assert found.upload == found.download == Link(1e9, 1.102e-5)  # of its shortest copy, 1,024 bytes
        assert "permute" not in found.speed.paces  # the device cannot do it
        for name in ("add", "tanh", "matmul"):
            true = TRUE.get(name, TRUE["elementwise"])
            for call in (c for c in calls() if c.tells[0] == name):
                node = call.on(device)
                want = true.seconds(node.cost.flops, node.cost.bytes)
                assert unit(device, found.speed).seconds(node) == pytest.approx(want, rel=1e-2), name


def unit(device: Device, speed: Speed) -> Unit:
    return Unit(device, speed, inf, Link(1e9), Link(1e9))


def test_a_group_takes_what_it_does_and_moves_and_starts_once() -> None:
    declared = Speed(1e9, {"contraction": 1e10, "any": 1e9}, 1e-5)
    measured = Speed(1e9, paces={"any": Pace(1e-5, 1e-9, 0.0), "elementwise group": Pace(2e-5, 0.0, 1e-9)})
    x = Spec((64, 64), dtypes.float32)
    for speed in (declared, measured):
        with Fake("fa", speed=speed).registered():
            on = unit(hal.device("fa"), speed)
            values = tuple(Value(x, on.device) for _ in range(2))
            product = node_of(ops.matmul, *values)
            scaled = node_of(ops.mul, *product.outputs, values[0])
            last = node_of(ops.tanh, *scaled.outputs)
            parts = [on.seconds(n) for n in (product, scaled, last)]
            chain = on.seconds(grouped([scaled, last], "elementwise", last.outputs))
            whole = on.seconds(grouped([product, scaled, last], "epilogue", last.outputs))
            work = speed.seconds("elementwise group", "elementwise", "float32", 11 * x.size, 3 * x.nbytes)
            assert chain == pytest.approx(work)
            assert parts[0] <= whole < parts[0] + chain
            steps = grouped([node_of(ops.sgd_step, *values, Value(Spec((), x.dtype), on.device))] * 3, "updates")
            assert on.seconds(steps) > 2 * parts[1]


def node_of(op: Op, *inputs: Value) -> Node:
    given = op.bind(len(inputs), {})
    out = op.infer(*(v.spec for v in inputs), **given)
    assert isinstance(out, Spec)
    return Node(op, inputs, given, (Value(out, inputs[0].device),), None, inputs[0].device)


def test_a_view_takes_no_time_where_it_is_one() -> None:
    speed = Speed(1e9, {"any": 1e9}, 1e-5)
    for views, want in ((True, 0.0), (False, 1e-5)):
        with Fake("fa", speed=speed, views=views).registered():
            device = hal.device("fa")
            x = Value(Spec((2, 3), dtypes.float32), device)
            given = {"axes": (1, 0)}
            node = Node(ops.permute, (x,), given, (Value(Spec((3, 2), dtypes.float32), device),), None, device)
            assert unit(device, speed).seconds(node) == want
