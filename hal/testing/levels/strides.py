"""Strided inputs: every op on views of larger tensors, transposed, backwards, with gaps, or stretched."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from hal import dtypes, ops, report
from hal.device import Device
from hal.dtypes import DType
from hal.op import Array, Op
from hal.policy import fallback
from hal.recording import no_grad
from hal.spec import Spec
from hal.tensor import CONSTANT, Tensor
from hal.testing.accuracy import Verdict, judge
from hal.testing.calls import (
    Call,
    call_of,
    dtype_for,
    fetch,
    foreign_result,
    has_floats,
    outcome_of,
    own_dtype,
    roundtrip_of,
    run_op,
    samples_of,
    stated_by,
    why_declined,
)  # fmt: skip
from hal.testing.case import Case, Level, Outcome

LARGEST = 2000  # elements of the inputs of a call; more of them say nothing new about strides
CALLS = 5  # of each op and form


def upload(array: Array, device: Device) -> Tensor:
    """A tensor of a row-by-row copy of `array`."""
    spec = Spec(array.shape, dtypes.of(array.dtype))
    return Tensor(device.backend.upload(np.array(array, order="C"), device), spec, device, CONSTANT)


def _transposed(x: Array, device: Device) -> Tensor:
    axes = tuple(reversed(range(x.ndim)))
    return ops.permute(upload(x.transpose(axes), device), axes=axes)


def _backwards(x: Array, device: Device) -> Tensor:
    base = upload(x[(slice(None, None, -1),) * x.ndim], device)
    return ops.slice(base, start=tuple(n - 1 for n in x.shape), stop=(-1,) * x.ndim, step=(-1,) * x.ndim)


def _with_gaps(x: Array, device: Device) -> Tensor:
    """Every second element of a tensor whose others are not to be touched, from the second on."""
    wide = np.full(tuple(2 * n + 3 for n in x.shape), 77, np.int8).astype(x.dtype)
    wide[tuple(slice(1, 2 * n + 1, 2) for n in x.shape)] = x
    stop = tuple(2 * n + 1 for n in x.shape)
    return ops.slice(upload(wide, device), start=(1,) * x.ndim, stop=stop, step=(2,) * x.ndim)


def _inside(x: Array, device: Device) -> Tensor:
    """The middle of a larger tensor: an offset, and rows that are farther apart than they are long."""
    wide = np.full(tuple(n + 5 for n in x.shape), 77, np.int8).astype(x.dtype)
    wide[tuple(slice(2, n + 2) for n in x.shape)] = x
    stop = tuple(n + 2 for n in x.shape)
    return ops.slice(upload(wide, device), start=(2,) * x.ndim, stop=stop, step=(1,) * x.ndim)


def _stretched(x: Array, device: Device) -> Tensor:
    return ops.broadcast_to(upload(x[:1], device), shape=x.shape)


FORMS: dict[str, Callable[[Array, Device], Tensor]] = {
    "transposed": _transposed,
    "backwards": _backwards,
    "with-gaps": _with_gaps,
    "inside": _inside,
    "stretched": _stretched,
}


def _fitting(op: Op, form: str, dtype: DType) -> list[int]:
    """The samples that mean something in this form: small ones with an input of some axes."""
    found = []
    for i, sample in enumerate(samples_of(op.name)):
        shapes = [np.shape(x) for x in sample.inputs]
        if has_floats(sample) != dtype.is_floating or not shapes or sum(map(np.size, sample.inputs)) > LARGEST:
            continue
        if dtype.is_floating or own_dtype(sample) is dtype:
            least = 2 if form == "transposed" else 1
            if any(len(s) >= least and 0 not in s for s in shapes):
                found.append(i)
    return found[:CALLS]


def _formed(call: Call, form: str) -> Call:
    """The call with inputs as the form makes them: stretched ones repeat their first row."""
    if form != "stretched":
        return call
    return Call(call.op, tuple(np.broadcast_to(x[:1], x.shape) if x.ndim else x for x in call.inputs), call.settings)


def _run(device: Device, call: Call, form: str) -> Outcome:
    declined = why_declined(device, call) or foreign_result(device, call)
    if declined:
        return Outcome("declined", detail=declined)
    with fallback("allow"), no_grad():
        tensors = [FORMS[form](x, device) if x.ndim and x.size else upload(x, device) for x in call.inputs]
        bases = [(t.parent, fetch(t.parent)) for t in tensors if t.parent is not None]
        with report.placement_report() as counted:
            results = run_op(call, tensors)
            arrays = tuple(fetch(r) for r in results)
    stated = stated_by(device, call.op, call.promoted, call.settings)
    verdict = judge(call.op, call.inputs, call.settings, arrays, call.results, stated)
    for base, before in bases:
        if fetch(base).tobytes() != before.tobytes():
            return Outcome("wrong", detail=f"{call} on {form} inputs changed the memory that they are views of")
    if not verdict.passed and _same_when_dense(device, call, arrays):
        verdict = Verdict(0, 0, "exact")  # not the strides are at fault: other levels say what is
    return outcome_of(device, call, verdict, counted)


def _same_when_dense(device: Device, call: Call, arrays: tuple[Array, ...]) -> bool:
    """Whether the device gives the same bits for the same numbers, row by row."""
    with fallback("allow"):
        dense = [fetch(r) for r in run_op(call, [upload(x, device) for x in call.inputs])]
    return [x.tobytes() for x in dense] == [x.tobytes() for x in arrays]


def _case(op: Op, dtype: DType, form: str) -> Case:
    def run(device: Device) -> Outcome:
        worst: Outcome | None = None
        for i in _fitting(op, form, dtype):
            outcome = _run(device, _formed(call_of(op.name, i, dtype, device), form), form)
            if outcome.failed:
                return Outcome(**{**outcome.__dict__, "detail": f"{form} inputs: {outcome.detail}"})
            if worst is None or worst.status == "declined" or _size(outcome) > _size(worst):
                worst = outcome
        assert worst is not None
        return worst

    return Case(f"strides/{op.name}/{dtype.name}/{form}", run, op.name, dtype.name, (roundtrip_of(dtype),))


def _size(outcome: Outcome) -> float:
    return outcome.error / outcome.allowed if outcome.allowed else outcome.error


def cases(device: Device) -> Iterator[Case]:
    """Each op and form, in one floating dtype, or in the op's own where its samples have no floats."""
    for _, op in sorted(ops.TABLE.items()):
        samples = samples_of(op.name)
        if not samples or not samples[0].inputs:
            continue
        dtype = dtype_for(op, device)
        for form in FORMS:
            if _fitting(op, form, dtype):
                yield _case(op, dtype, form)


LEVEL = Level("strides", "every op on views: transposed, backwards, with gaps, inside others, stretched", 62, cases)
