"""Calls of ops as cases: which samples in which dtypes, how a call is run and judged, and how it ran."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from hal import dtypes, ops, report
from hal.decision import calls_of, decision_for
from hal.device import Device
from hal.dtypes import DType
from hal.op import Array, Op, Sample, Tolerance
from hal.policy import fallback
from hal.recording import no_grad
from hal.spec import Spec
from hal.tensor import Tensor
from hal.testing.accuracy import Verdict, cast_inputs, judge, specs_of, unit_roundoff
from hal.testing.case import Case, Outcome, Status
from hal.testing.checks import some_float
from hal.testing.guards import Watched

FLOATS = (dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16)


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an op: host inputs of their final dtypes, and all settings."""

    op: Op
    inputs: tuple[Array, ...]
    settings: dict[str, Any]

    @property
    def given(self) -> tuple[Spec, ...]:
        """The specs of the inputs as they are."""
        return tuple(Spec(x.shape, dtypes.of(x.dtype)) for x in self.inputs)

    @property
    def promoted(self) -> tuple[Spec, ...]:
        """The specs of the inputs as the op wants them."""
        return specs_of(self.op, self.inputs, self.settings)

    @property
    def results(self) -> tuple[Spec, ...]:
        """The specs of the results."""
        inferred = self.op.infer(*self.promoted, **self.settings)
        return inferred if isinstance(inferred, tuple) else (inferred,)

    def __str__(self) -> str:
        settings = [f"{k}={v!r}" for k, v in self.settings.items()]
        return f"{self.op.name}({', '.join([*map(repr, self.given), *settings])})"


def samples_of(name: str) -> tuple[Sample, ...]:
    """The samples of an op, the same ones every time."""
    return _drawn(ops.TABLE[name])


@cache  # a hundred megabytes, since every level asks for them
def _drawn(op: Op) -> tuple[Sample, ...]:
    return tuple(op.samples(np.random.default_rng(0)))


def has_floats(sample: Sample) -> bool:
    """Whether the sample can be drawn in each of the floating types."""
    return not sample.exact and any(np.asarray(x).dtype.kind == "f" for x in sample.inputs)


def own_dtype(sample: Sample) -> DType:
    """For a sample whose dtypes are its own: the one under which it is listed."""
    if sample.inputs:
        return dtypes.of(np.asarray(sample.inputs[0]).dtype)
    found = sample.settings.get("dtype", dtypes.DEFAULT_INT)
    return dtypes.dtype(found)


def dtype_for(op: Op, device: Device) -> DType:
    """In which an op is called by a level that calls it in one: a floating one of the device, or its own."""
    samples = samples_of(op.name)
    return some_float(device) if any(map(has_floats, samples)) else own_dtype(samples[0])


def call_of(name: str, number: int, dtype: DType, device: Device) -> Call:
    """A sample of an op, drawn in a dtype, for a device."""
    op, sample = ops.TABLE[name], samples_of(name)[number]
    inputs = tuple(np.array(x, order="C") for x in cast_inputs(sample, dtype))
    settings = op.bind(len(inputs), sample.settings)
    if "device" in settings:
        settings["device"] = device
    return Call(op, inputs, settings)


def cases_of(level: str, chosen: list[Op], device: Device) -> Iterator[Case]:
    """Each op, in each dtype, on each of its samples; one declined case for a dtype that the device does not have."""
    for op in chosen:
        samples = samples_of(op.name)
        floating = [i for i, sample in enumerate(samples) if has_floats(sample)]
        for dtype in FLOATS:
            numbers = floating if dtype in device.backend.dtypes else floating[:1]
            for i in numbers:
                yield _case(level, op, dtype, i)
        for i, sample in enumerate(samples):
            if not has_floats(sample):
                yield _case(level, op, own_dtype(sample), i)


def _case(level: str, op: Op, dtype: DType, number: int) -> Case:
    def run(device: Device) -> Outcome:
        return check_call(device, call_of(op.name, number, dtype, device))

    return Case(f"{level}/{op.name}/{dtype.name}/{number}", run, op.name, dtype.name, (roundtrip_of(dtype),))


def roundtrip_of(dtype: DType) -> str:
    """The id of the case without which no other in this dtype means anything."""
    return f"memory/roundtrip/{dtype.name}"


def why_declined(device: Device, call: Call) -> str:
    """Why a device need not run a call: it cannot hold the inputs, or only the host has the op; empty if it must."""
    for spec in call.given:
        if spec.dtype not in device.backend.dtypes:
            return f"{device.type} declares no {spec.dtype.name}"
    if call.op.host_only and call.op not in device.backend.kernels:
        return f"{call.op.name} is done by the host: {call.op.host_only}"
    return ""


def foreign_result(device: Device, call: Call) -> str:
    """Why a call leaves the device with its result; empty if the device has the dtype of every result."""
    missing = [s.dtype.name for s in call.results if s.dtype not in device.backend.dtypes]
    return f"{device.type} declares no {missing[0]}" if missing else ""


def fetch(x: Tensor) -> Array:
    """The contents of a tensor, exactly as its backend gives them."""
    return np.asarray(x.device.backend.download(x.buffer, x.spec))


def run_op(call: Call, tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """The results of a call, without recording gradients."""
    with no_grad():
        result = call.op(*tensors, **call.settings)
    return result if isinstance(result, tuple) else (result,)


def check_call(device: Device, call: Call) -> Outcome:
    """Run a call on guarded inputs and judge it by the reference."""
    declined = why_declined(device, call)
    if declined:
        return Outcome("declined", detail=declined)
    watched = Watched(device, call.inputs)
    with fallback("allow"), report.placement_report() as counted:
        results = run_op(call, watched.tensors)
        arrays = tuple(fetch(r) for r in results)
    wrong_spec = [f"{r.spec} where {s} was inferred" for r, s in zip(results, call.results, strict=True) if r.spec != s]
    if wrong_spec:
        return Outcome("wrong", detail=f"{call}: the result is {wrong_spec[0]}")
    stated = stated_by(device, call.op, call.promoted, call.settings)
    verdict = judge(call.op, call.inputs, call.settings, arrays, call.results, stated)
    changed = watched.what_changed()
    if changed:
        return Outcome("wrong", detail=f"{call}: {changed}")
    return outcome_of(device, call, verdict, counted)


def outcome_of(device: Device, call: Call, verdict: Verdict, counted: report.Report) -> Outcome:
    """The outcome of a call that was judged: its status says how it ran, and whether that was as decided."""
    status, reason, detail = how_it_ran(device, call, counted)
    stated = stated_by(device, call.op, call.promoted, call.settings)
    allowed, source = float(verdict.allowed), (stated or call.op.tolerance).source
    passed = verdict.passed
    decomposed = decision_for(call.op, device, call.promoted, call.settings).how == "decomposed"
    if decomposed and not passed and verdict.unit in ("ulp", "norm"):
        allowed, source = allowed + inherited(device, call), f"{source}, and what its parts are allowed"
        passed = verdict.error <= allowed
    if not passed:
        status, detail = "wrong", f"{call}: {verdict.detail}"
    moved = sum(e.bytes for e in counted.fallbacks.values())
    return Outcome(
        status, float(verdict.error), allowed, verdict.unit, source,
        bits_at(call, verdict), detail, float(verdict.ulps), verdict.histogram, reason, moved,
    )  # fmt: skip


def stated_by(device: Device, op: Op, specs: tuple[Spec, ...], settings: dict[str, Any]) -> Tolerance | None:
    """What the device states about the accuracy of what it runs itself for a call; None where the record holds."""
    decision = decision_for(op, device, specs, settings)
    return None if decision.how == "fallback" else device.backend.tolerance(op, decision.specs[0].dtype)


@lru_cache(maxsize=4096)
def states_its_own(op: Op, device: Device, specs: tuple[Spec, ...], settings: tuple[tuple[str, Any], ...]) -> bool:
    """Whether the device states an accuracy of its own for an op, or for one of those that it decomposes it into."""
    decision = decision_for(op, device, specs, dict(settings))
    if decision.how != "decomposed":
        return stated_by(device, op, specs, dict(settings)) is not None
    parts = calls_of(op, specs, dict(settings))
    return any(states_its_own(p.op, device, p.inputs, tuple(p.settings.items())) for p in parts)


def how_it_ran(device: Device, call: Call, counted: report.Report) -> tuple[Status, str, str]:
    """How the device ran a call that it decided on before: status, why not natively, and what is wrong about it."""
    decision = decision_for(call.op, device, call.promoted, call.settings)
    fell = {e.what for e in counted.fallbacks.values()}
    listed = ", ".join(sorted(fell))
    foreign = [s.dtype.name for s in (*call.promoted, *call.results) if s.dtype not in device.backend.dtypes]
    if foreign:
        return "declined", decision.reason, f"{device.type} declares no {foreign[0]}"
    if decision.how == "fallback":
        return "fallback", decision.reason, ""
    if decision.how == "decomposed":
        if not fell:
            return "decomposed", decision.reason, ""
        return "fallback", f"{decision.reason}; of what it decomposes into, {listed} fell back", ""
    if fell and fell <= {"cast"} and call.given != call.promoted:
        return "fallback", f"its inputs are cast to {call.promoted[0].dtype.name}, and cast fell back", ""
    if fell:
        return "wrong", "", f"{call}: said to be native, and {listed} fell back"
    return "native", "", ""


@lru_cache(maxsize=4096)
def _inherited(op: Op, device: Device, specs: tuple[Spec, ...], settings: tuple[tuple[str, Any], ...]) -> float:
    result = op.infer(*specs, **dict(settings))
    dtype = (result[0] if isinstance(result, tuple) else result).dtype
    if op.decompose is None or dtype not in FLOATS:
        return 0.0
    total = 0.0
    for part in calls_of(op, specs, dict(settings)):
        spec = part.result[0] if isinstance(part.result, tuple) else part.result
        if spec.dtype not in FLOATS:
            continue
        limit = stated_by(device, part.op, part.inputs, part.settings) or part.op.tolerance
        if limit.unit == "terms":
            continue
        share = unit_roundoff(spec.dtype) / unit_roundoff(dtype)  # a part in a wider type weighs less
        total += share * float(getattr(limit, spec.dtype.name))
        if part.op.decompose is not None and decision_for(part.op, device, part.inputs, part.settings).how != "native":
            total += share * _inherited(part.op, device, part.inputs, tuple(part.settings.items()))
    return total


def inherited(device: Device, call: Call) -> float:
    """What the error of a decomposed call may grow by: the sum of what the records of its parts allow.

    Source: the rule of WGSL ("inherited from") and of WebNN's tests: a composition may be off by what its parts are.
    """
    return _inherited(call.op, device, call.promoted, tuple(call.settings.items()))


def bits_at(call: Call, verdict: Verdict) -> tuple[str, ...]:
    """The inputs of an elementwise op at the largest error, as hexadecimal bits."""
    if call.op.kind != "elementwise" or verdict.at is None or not call.inputs:
        return ()
    shape = np.broadcast_shapes(*(x.shape for x in call.inputs))
    if len(shape) != len(verdict.at):
        return ()
    return tuple(bits(np.broadcast_to(x, shape)[verdict.at]) for x in call.inputs)


def bits(value: Any) -> str:
    """One element as hexadecimal bits, the most significant first."""
    return "0x" + np.asarray(value).tobytes()[::-1].hex()  # numbers lie with the least significant byte first
