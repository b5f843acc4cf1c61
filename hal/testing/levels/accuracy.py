"""Functions of one number on every float16 and bfloat16 there is and on stratified larger ones; of two, on pairs."""

from __future__ import annotations

from collections.abc import Iterator

from hal import ops
from hal.decision import decision_for
from hal.device import Device
from hal.dtypes import DType
from hal.errors import DTypeError, SettingError
from hal.op import Op
from hal.spec import Spec
from hal.testing.calls import FLOATS, Call, check_call, roundtrip_of
from hal.testing.case import Case, Level, Outcome
from hal.testing.inputs import looked_at, pairs

PAIRS = 20_000


def elementwise(inputs: int) -> list[Op]:
    """The ops that work element by element on this many floating inputs, and need no settings."""
    found = []
    for _, op in sorted(ops.TABLE.items()):
        needs_settings = set(op.settings) - set(op.defaults)
        if op.kind == "elementwise" and len(op.input_names) == inputs and not needs_settings:
            try:
                op.infer(*(Spec((1,), FLOATS[0]),) * inputs, **op.defaults)
            except (DTypeError, SettingError):  # of integers or bools only, or its defaults mean nothing
                continue
            found.append(op)
    return found


def _one(op: Op, dtype: DType) -> Case:
    def run(device: Device) -> Outcome:
        return check_call(device, Call(op, (looked_at(dtype),), op.bind(1, {})))

    return Case(f"accuracy/{op.name}/{dtype.name}/all", run, op.name, dtype.name, (roundtrip_of(dtype),))


def _two(op: Op, dtype: DType) -> Case:
    def run(device: Device) -> Outcome:
        settings = op.bind(2, {})
        call = Call(op, pairs(dtype, PAIRS, len(op.name), ordinary=False), settings)
        if (
            decision_for(op, device, call.promoted, settings).how != "native"
        ):  # then it is not the device that is judged
            call = Call(op, pairs(dtype, PAIRS, len(op.name), ordinary=True), settings)
        return check_call(device, call)

    return Case(f"accuracy/{op.name}/{dtype.name}/pairs", run, op.name, dtype.name, (roundtrip_of(dtype),))


def cases(device: Device) -> Iterator[Case]:
    """A case for each function and floating dtype of the device."""
    for dtype in FLOATS:
        if dtype in device.backend.dtypes:
            for op in elementwise(1):
                yield _one(op, dtype)
            for op in elementwise(2):
                yield _two(op, dtype)


LEVEL = Level("accuracy", "functions on all 65,536 numbers of 16 bits, on every exponent of larger ones", 45, cases)
