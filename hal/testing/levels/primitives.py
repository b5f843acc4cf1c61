"""The ops that everything else decomposes into, on every sample of their records, in every dtype of the device."""

from __future__ import annotations

from collections.abc import Iterator

from hal import ops
from hal.device import Device
from hal.testing.calls import cases_of
from hal.testing.case import Case, Level


def cases(device: Device) -> Iterator[Case]:
    """Every sample of every primitive."""
    return cases_of("primitives", [op for _, op in sorted(ops.TABLE.items()) if op.is_primitive], device)


LEVEL = Level("primitives", "ops that everything else decomposes into, against their references", 30, cases)
