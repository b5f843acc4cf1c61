"""What kernels do with buffers: each result has memory of its own, and `out=` is written to its ends and no farther."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import hal
from hal import ops
from hal.decision import Decision, decision_for
from hal.device import Device
from hal.dtypes import DType
from hal.op import Array, Op
from hal.plugin import Buffer
from hal.policy import fallback
from hal.recording import no_grad
from hal.spec import Spec
from hal.tensor import Tensor
from hal.testing.accuracy import judge
from hal.testing.calls import (
    Call,
    call_of,
    dtype_for,
    fetch,
    has_floats,
    own_dtype,
    roundtrip_of,
    run_op,
    samples_of,
    stated_by,
    why_declined,
)
from hal.testing.case import Case, Level, Outcome
from hal.testing.guards import GUARD, PATTERN, Watched
from hal.testing.levels.strides import upload
from hal.views import VIEWS

LARGEST = 20_000  # elements of the inputs of a call
CALLS = 4  # of each op


def _fitting(op: Op, dtype: DType) -> list[int]:
    """The first samples with something in them, and one of another size."""
    found = []
    for i, sample in enumerate(samples_of(op.name)):
        sizes = [np.size(x) for x in sample.inputs]
        fits = dtype.is_floating if has_floats(sample) else own_dtype(sample) is dtype and not dtype.is_floating
        if fits and sizes and min(sizes) > 0 and 1 < sum(sizes) <= LARGEST:
            found.append(i)
    return found[:CALLS]


def _rolled(x: Array) -> Array:
    """The same elements in another order: other data of the same spec that is as good as the first."""
    return np.roll(x.reshape(-1), 1).reshape(x.shape)


def _own_memory(op: Op, dtype: DType) -> Case:
    """A result is the same after the next call, and changing it changes nothing else."""

    def run(device: Device) -> Outcome:
        ran = 0
        for i in _fitting(op, dtype):
            call = call_of(op.name, i, dtype, device)
            if why_declined(device, call) or not all(s.dtype in device.backend.dtypes for s in call.results):
                continue
            with fallback("allow"):
                problem = _next_call(device, call) or _change(device, call)
            if problem:
                return Outcome("wrong", detail=f"{call}: {problem}")
            ran += 1
        return Outcome("native") if ran else Outcome("declined", detail=f"{device.type} declares no {dtype.name}")

    return Case(f"buffers/own-memory/{op.name}/{dtype.name}", run, op.name, dtype.name, (roundtrip_of(dtype),))


def _next_call(device: Device, call: Call) -> str:
    watched = Watched(device, call.inputs, upload=True)
    first = run_op(call, watched.tensors)
    before = [fetch(r) for r in first]
    other = Call(call.op, tuple(map(_rolled, call.inputs)), call.settings)
    second = run_op(other, Watched(device, other.inputs, upload=True).tensors)
    for i, (r, was) in enumerate(zip(first, before, strict=True)):
        if fetch(r).tobytes() != was.tobytes():
            return f"result {i} was overwritten by the next call of the op"
    del second
    return watched.what_changed()


def _change(device: Device, call: Call) -> str:
    watched = Watched(device, call.inputs, upload=True)
    results = run_op(call, watched.tensors)
    before = [fetch(r) for r in results]
    if call.op.name in VIEWS or results[0].device is not device:
        return ""
    with no_grad():
        results[0].zero_()
    for i, (r, was) in enumerate(zip(results[1:], before[1:], strict=True)):
        if fetch(r).tobytes() != was.tobytes():
            return f"result {i + 1} changed when result 0 was changed in place: they share memory"
    return watched.what_changed().replace("by the call", "when its result was changed in place")


def _decision(device: Device, call: Call) -> Decision:
    return decision_for(call.op, device, call.promoted, call.settings)


def _written(op: Op, dtype: DType) -> Case:
    """A kernel that takes `out=` fills the buffers that it is given, and only those."""

    def run(device: Device) -> Outcome:
        ran = 0
        for i in _fitting(op, dtype):
            call = call_of(op.name, i, dtype, device)
            if why_declined(device, call) or call.given != call.promoted or not _decision(device, call).out:
                continue
            problem = _write_out(device, call) or _write_into_input(device, call)
            if problem:
                return Outcome("wrong", detail=f"{call}: {problem}")
            ran += 1
        return Outcome("native") if ran else Outcome("declined", detail="no kernel here takes out=")

    return Case(f"buffers/out/{op.name}/{dtype.name}", run, op.name, dtype.name, (roundtrip_of(dtype),))


def _target(device: Device, spec: Spec) -> tuple[Buffer, Array | None, int]:
    """A buffer full of something else; with guard bytes around it where the device can use host memory."""
    block = np.full(spec.nbytes + 3 * GUARD, PATTERN, np.uint8)
    start = GUARD + -block.ctypes.data % GUARD
    inside = block[start : start + spec.nbytes].view(spec.dtype.numpy).reshape(spec.shape)
    inside[...] = np.ones((), spec.dtype.numpy)
    buffer = device.backend.wrap(inside, device)
    if buffer is not None:
        return buffer, block, start
    return device.backend.upload(inside.copy(), device), None, 0


def _write_out(device: Device, call: Call) -> str:
    watched, specs = Watched(device, call.inputs), call.results
    decision = _decision(device, call)
    targets = [_target(device, spec) for spec in specs]
    out = tuple(t[0] for t in targets)
    assert decision.kernel is not None
    decision.kernel(*(t.buffer for t in watched.tensors), **call.settings, out=out if decision.spec is None else out[0])
    arrays = tuple(np.asarray(device.backend.download(b, s)) for b, s in zip(out, specs, strict=True))
    stated = stated_by(device, call.op, call.promoted, call.settings)
    verdict = judge(call.op, call.inputs, call.settings, arrays, specs, stated)
    if not verdict.passed:
        return f"with out=, the buffer does not hold the result: {verdict.detail}"
    for (_, block, start), spec in zip(targets, specs, strict=True):
        if block is not None and ((block[:start] != PATTERN).any() or (block[start + spec.nbytes :] != PATTERN).any()):
            return "with out=, memory beside the buffer was overwritten"
    return watched.what_changed()


def _write_into_input(device: Device, call: Call) -> str:
    """As an optimizer or `x.add_(y)` does it: the result replaces an input."""
    for k, spec in enumerate(call.given):
        if len(call.results) != 1 or call.results[0] is not spec:
            continue
        tensors: list[Tensor] = [upload(x, device) for x in call.inputs]
        with no_grad():
            hal.run_into((tensors[k],), call.op, tuple(tensors), dict(call.settings))
        stated = stated_by(device, call.op, call.promoted, call.settings)
        verdict = judge(call.op, call.inputs, call.settings, (fetch(tensors[k]),), call.results, stated)
        if not verdict.passed:
            return f"written into its own input {k}: {verdict.detail}"
    return ""


def cases(device: Device) -> Iterator[Case]:
    """Two cases for each op, in one floating dtype or its own; the second where a kernel takes `out=`."""
    for _, op in sorted(ops.TABLE.items()):
        samples = samples_of(op.name)
        if not samples or not any(s.inputs for s in samples):
            continue
        dtype = dtype_for(op, device)
        if not _fitting(op, dtype):
            continue
        yield _own_memory(op, dtype)
        if dtype in device.backend.dtypes and any(
            _decision(device, call).out
            for call in (call_of(op.name, i, dtype, device) for i in _fitting(op, dtype))
            if not why_declined(device, call)
        ):
            yield _written(op, dtype)


LEVEL = Level("buffers", "results have memory of their own, out= is filled and nothing beside it", 47, cases)
