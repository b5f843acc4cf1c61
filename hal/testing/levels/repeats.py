"""Repetition: the same call on the same data gives the same bits, however often and whatever ran in between."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hal import ops
from hal.device import Device
from hal.dtypes import DType
from hal.op import Op
from hal.policy import fallback
from hal.testing.calls import (
    call_of,
    dtype_for,
    fetch,
    foreign_result,
    has_floats,
    roundtrip_of,
    run_op,
    samples_of,
    why_declined,
)
from hal.testing.case import Case, Level
from hal.testing.checks import Declined, case, same_bits
from hal.testing.guards import Watched

LARGEST = 100_000  # elements of the inputs of a call
TIMES = 4


def _fitting(op: Op, dtype: DType) -> int | None:
    """The sample with most elements: work that is shared out among many is where order is lost."""
    sizes = {}
    for i, sample in enumerate(samples_of(op.name)):
        size = sum(np.size(x) for x in sample.inputs)
        if has_floats(sample) == dtype.is_floating and size <= LARGEST and (sample.inputs or not i):
            sizes[i] = size
    return max(sizes, key=lambda i: sizes[i]) if sizes else None


def _case(op: Op, dtype: DType, number: int) -> Case:
    def check(device: Device) -> str:
        call = call_of(op.name, number, dtype, device)
        declined = why_declined(device, call) or foreign_result(device, call)
        if declined:
            raise Declined(declined)
        first: list[bytes] = []
        for turn in range(TIMES):
            with fallback("allow"):
                results = [fetch(r) for r in run_op(call, Watched(device, call.inputs, upload=turn % 2 > 0).tensors)]
            first = first or [r.tobytes() for r in results]
            for before, now in zip(first, results, strict=True):
                was = np.frombuffer(before, now.dtype).reshape(now.shape)
                problem = same_bits(f"{call}: call {turn + 1} gave other bits than the first", now, was)
                if problem:
                    return problem
        return ""

    return case(f"repeats/{op.name}/{dtype.name}", check, op=op.name, dtype=dtype.name, needs=(roundtrip_of(dtype),))


def cases(device: Device) -> Iterator[Case]:
    """Each op on its largest sample of moderate size, in one floating dtype, or in its own."""
    for _, op in sorted(ops.TABLE.items()):
        dtype = dtype_for(op, device)
        number = _fitting(op, dtype)
        if number is not None:
            yield _case(op, dtype, number)


LEVEL = Level("repeats", "the same call gives the same bits, however often", 48, cases)
