"""Gradients of gradients: on the device, beside those of an exact device in float64 and finite differences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import hal
from hal import dtypes, ops, report
from hal.device import Device
from hal.dtypes import DType
from hal.op import Array, Op
from hal.policy import fallback
from hal.tensor import Tensor
from hal.testing.accuracy import products_cost, unit_roundoff
from hal.testing.calls import (
    Call,
    call_of,
    fetch,
    foreign_result,
    has_floats,
    roundtrip_of,
    samples_of,
    why_declined,
)
from hal.testing.case import Case, Level, Outcome, Status
from hal.testing.checks import exact_device, some_float
from hal.testing.levels.gradients import ALLOWED, SOURCE, differentiable

LARGEST = 400  # elements of the inputs of a call
STEP, DIFFERENCES = 1e-5, 1e-4  # of the finite differences, and how far they may be from the exact value


class Twice:
    """A call, the gradient of a weighted sum of its results, and the gradient of a weighted sum of that."""

    def __init__(self, call: Call) -> None:
        rng = np.random.default_rng(3)
        self.call = call
        self.floating = [i for i, x in enumerate(call.inputs) if dtypes.of(x.dtype).is_floating]
        self.weights = [np.asarray(rng.normal(size=s.shape)) for s in call.results]
        self.directions = [np.asarray(rng.normal(size=np.shape(call.inputs[i]))) for i in self.floating]

    def first(
        self, device: Device, dtype: DType, inputs: tuple[Array, ...]
    ) -> tuple[list[Tensor], list[tuple[Tensor, Array]]]:
        """The floating inputs, and what gradient there is to each, with the direction in which it is looked at."""
        settings = {**self.call.settings, "device": device} if "device" in self.call.settings else self.call.settings
        tensors = [hal.tensor(x, device=device) for x in inputs]
        for i in self.floating:
            tensors[i] = hal.tensor(inputs[i], dtype, device, requires_grad=True)
        result = self.call.op(*tensors, **settings)
        outs = result if isinstance(result, tuple) else (result,)
        pairs = [(o, w) for o, w in zip(outs, self.weights, strict=True) if o.dtype.is_floating and o.requires_grad]
        leaves = [tensors[i] for i in self.floating]
        if not pairs:
            return leaves, []
        incoming = [hal.tensor(w.astype(o.dtype.numpy), device=o.device) for o, w in pairs]
        found = hal.grad([o for o, _ in pairs], leaves, incoming, create_graph=True, allow_unused=True)
        return leaves, [(g, d) for g, d in zip(found, self.directions, strict=True) if g is not None]

    def second(self, device: Device, dtype: DType) -> list[Array]:
        """The second gradient by each floating input; zeros where nothing depends on it."""
        leaves, gradients = self.first(device, dtype, self.call.inputs)
        terms = [
            (g * hal.tensor(d.astype(g.dtype.numpy), device=g.device)).sum() for g, d in gradients if g.requires_grad
        ]
        if not terms:
            return [np.zeros(x.shape) for x in leaves]
        found = hal.grad(terms, leaves, allow_unused=True)
        pairs = zip(found, leaves, strict=True)
        return [np.zeros(x.shape) if g is None else fetch(g).astype(np.float64) for g, x in pairs]

    def along(self, sign: float) -> float:
        """The weighted sum of the exact gradients, a step away from the inputs."""
        moved = list(self.call.inputs)
        for i, direction in zip(self.floating, self.directions, strict=True):
            moved[i] = moved[i].astype(np.float64) + sign * STEP * direction
        _, gradients = self.first(exact_device(), dtypes.float64, tuple(moved))
        return sum(float((fetch(g) * d).sum()) for g, d in gradients)

    def differ(self, exact: list[Array]) -> str:
        """What is wrong with the exact second gradient, by finite differences of the first."""
        want = (self.along(1) - self.along(-1)) / (2 * STEP)
        got = sum(float((h * d).sum()) for h, d in zip(exact, self.directions, strict=True))
        scale = max(1.0, abs(want), sum(float(np.abs(d).sum()) for d in self.directions) * 1e-2)
        if abs(got - want) <= DIFFERENCES * scale:
            return ""
        return f"by the op's record the gradient changes by {got:.9g}, by finite differences by {want:.9g}"


def _fitting(op: Op) -> int | None:
    """The first sample that is smooth and small."""
    for i, sample in enumerate(samples_of(op.name)):
        if sample.smooth and has_floats(sample) and 0 < sum(np.size(x) for x in sample.inputs) <= LARGEST:
            return i
    return None


def _run(device: Device, op: Op, dtype: DType, number: int) -> Outcome:
    call = call_of(op.name, number, dtype, device)
    declined = "" if device.backend.training else f"{device.type} declares that it does not train"
    declined = declined or why_declined(device, call) or foreign_result(device, call)
    if declined:
        return Outcome("declined", detail=declined)
    twice = Twice(call)
    want = twice.second(exact_device(), dtypes.float64)
    problem = twice.differ(want)
    if problem:
        return Outcome("wrong", detail=f"{call}: {problem}")
    with fallback("allow"), report.placement_report() as counted:
        got = twice.second(device, dtype)
    moved = sum(e.bytes for e in counted.fallbacks.values())
    fell = ", ".join(sorted({e.what for e in counted.fallbacks.values()}))
    everything = [*want, *twice.weights, *twice.directions]
    scale = max(1.0, *(float(np.abs(x).max(initial=0.0)) for x in everything))
    error = max(float(np.abs(g - w).max(initial=0.0)) for g, w in zip(got, want, strict=True))
    units = error / (unit_roundoff(dtype) * scale)
    status: Status = "fallback" if fell else "native"
    allowed = ALLOWED + products_cost(device, op, dtype)
    if not units <= allowed:
        status, problem = "wrong", f"{call}: the second gradient is off by {units:.3g} units of rounding of the largest"
    reason = f"{fell} fell back" if fell else ""
    return Outcome(status, units, allowed, "gradient", SOURCE, detail=problem, reason=reason, bytes=moved)


def _case(op: Op, dtype: DType, number: int) -> Case:
    def run(device: Device) -> Outcome:
        return _run(device, op, dtype, number)

    return Case(f"curvature/{op.name}/{dtype.name}", run, op.name, dtype.name, (roundtrip_of(dtype),))


def cases(device: Device) -> Iterator[Case]:
    """Each op that has a gradient, on one sample."""
    for _, op in sorted(ops.TABLE.items()):
        number = _fitting(op) if differentiable(op) else None
        if number is not None:
            yield _case(op, some_float(device), number)


LEVEL = Level("curvature", "gradients of gradients, beside exact ones in float64 and finite differences", 72, cases)
