"""The scheduler: what runs elsewhere or is copied is counted, with its bytes, and forbidden where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import hal
from hal import ops, report
from hal.decision import decision_for
from hal.device import Device
from hal.errors import CopyError, FallbackError
from hal.op import Op
from hal.policy import copies, fallback
from hal.tensor import Tensor
from hal.testing.calls import Call, call_of, fetch, run_op, why_declined
from hal.testing.case import Case, Level
from hal.testing.checks import Declined, case, exact_device, numbers, same_bits, some_float

# One of each kind, and those that networks are made of.
WATCHED = ("add", "exp", "matmul", "sum", "max", "reshape", "take", "index_add", "softmax", "conv2d", "max_pool2d",
           "layer_norm", "cross_entropy", "attention", "gelu", "sort", "argmax", "cumsum", "adam_step", "lstm_cell",
           "nextafter")  # fmt: skip


def _call(device: Device, name: str) -> Call | None:
    call = call_of(name, 0, some_float(device), device)
    return None if why_declined(device, call) else call


def _tensors(device: Device, call: Call) -> list[Tensor]:
    return [hal.tensor(x, device=device) for x in call.inputs]


def _counted(name: str) -> Case:
    """A call leaves as many entries in the report as its decision says: none, or one with its bytes."""

    def check(device: Device) -> str:
        call = _call(device, name)
        if call is None:
            raise Declined(f"{device.type} declares not all dtypes of {name}")
        decision = decision_for(call.op, device, call.promoted, call.settings)
        tensors = _tensors(device, call)
        with fallback("allow"), report.placement_report() as counted:
            results = run_op(call, tensors)
        entries = [e for e in counted.fallbacks.values() if e.what == name]
        here = [r for r in results if r.device is device]
        if len(here) < len(results) and decision.how != "fallback":
            return f"{call}: said to be {decision.how}, and its result is on {results[0].device}"
        if decision.how != "fallback":
            return f"{call}: said to be {decision.how}, and counted as a fallback" if entries else ""
        moved = sum(s.nbytes for s in call.given) + sum(r.spec.nbytes for r in here)
        if [e.count for e in entries] != [1] or entries[0].bytes != moved:
            return f"{call}: fell back with {moved} bytes, and the report has {entries}"
        if entries[0].source != str(device) or not entries[0].reason:
            return f"{call}: the report does not say from where or why: {entries[0]}"
        return ""

    return case(f"scheduler/counted/{name}", check, op=name)


def _forbidden(name: str) -> Case:
    """Under the policy `error` an op runs here or raises an error that names it; the device is well afterwards."""

    def check(device: Device) -> str:
        call = _call(device, name)
        if call is None:
            raise Declined(f"{device.type} declares not all dtypes of {name}")
        tensors = _tensors(device, call)
        with fallback("allow"), report.placement_report() as counted:
            run_op(call, tensors)
        falls = bool(counted.fallbacks)
        try:
            with fallback("error"):
                run_op(call, tensors)
        except FallbackError as error:
            if not falls:
                return f"{call}: runs here, and is forbidden as a fallback: {error}"
            named = any(e.what in str(error) for e in counted.fallbacks.values())
            return "" if named else f"{call}: the error does not name what falls back: {error}"
        return f"{call}: falls back, and fallback('error') let it" if falls else ""

    return case(f"scheduler/forbidden/{name}", check, op=name)


def _copies(device: Device) -> str:
    a, b = numbers(device, 5, 7), numbers(device, 5, 7, seed=1)
    x, y = hal.tensor(a, device=device), hal.tensor(b, device=exact_device())
    with copies("allow"), fallback("allow"), report.placement_report() as counted:
        z = x + y
    entries = list(counted.copies.values())
    if z.device is not device:
        return f"a sum of tensors on {device} and {y.device} is on {z.device}: the first input should have pulled it"
    if [(e.count, e.bytes) for e in entries] != [(1, b.nbytes)]:
        return f"one tensor of {b.nbytes} bytes was copied, and the report has {entries}"
    with copies("error"):
        try:
            x + y
        except CopyError as error:
            named = str(device) in str(error) and str(y.device) in str(error)
            return "" if named else f"the error does not name both devices: {error}"
    return "copies('error') let tensors of two devices be added"


def _pull(device: Device) -> str:
    """What has axes pulls a lone number to it, and not the other way round."""
    x = hal.tensor(numbers(device, 5), device=device)
    number = hal.tensor(numbers(device)[()], device=exact_device())
    with copies("allow"), fallback("allow"):
        for z in (x * number, number * x):
            if z.device is not device:
                return f"a number on {number.device} pulled a tensor away from {device}"
        return same_bits("scalars on another device", fetch(number * x), fetch(x * fetch(number).item()))


def _syncs(device: Device) -> str:
    x = hal.tensor(numbers(device, 5), device=device)
    with fallback("allow"), report.placement_report() as counted:
        x[0].item()
    waits = sum(e.count for e in counted.syncs.values())
    wanted = 0 if device.backend.host_memory else 1
    return "" if waits == wanted else f"item() was counted {waits} times as a wait for the device, expected {wanted}"


def _default(device: Device) -> str:
    with device:
        made = {"zeros": hal.zeros(3), "tensor": hal.tensor([1.0, 2.0]), "arange": hal.arange(4)}
    for name, x in made.items():
        if x.device is not device and x.dtype in device.backend.dtypes:
            return f"inside `with device:`, hal.{name} made a tensor on {x.device}"
    return ""


def _stays(device: Device) -> str:
    """A chain of ops that run here stays here, constants included."""
    x = hal.tensor(numbers(device, 6, 6), device=device)
    with fallback("allow"), copies("error"), report.placement_report() as counted:
        y = ((x * 2 + 1) @ x).sum(dim=0) / 3 - x[0]
    if counted.copies:
        return f"copies were made where everything is on one device: {list(counted.copies.values())}"
    return "" if y.device is device else f"a chain of ops on {device} ended on {y.device}"


def cases(device: Device) -> Iterator[Case]:
    """Fallbacks, copies, waits, and where results are."""
    for name in WATCHED:
        if isinstance(ops.TABLE.get(name), Op):
            yield _counted(name)
            yield _forbidden(name)
    yield case("scheduler/copies", _copies)
    yield case("scheduler/pull", _pull)
    yield case("scheduler/syncs", _syncs)
    yield case("scheduler/default", _default)
    yield case("scheduler/stays", _stays)


LEVEL = Level("scheduler", "fallbacks, copies and waits are counted, and forbidden where that is asked for", 110, cases)
