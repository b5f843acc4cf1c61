"""The ops that decompose, and those that only the host has, on every sample of their records, in every dtype."""

from __future__ import annotations

from collections.abc import Iterator

from hal import ops
from hal.device import Device
from hal.testing.calls import cases_of
from hal.testing.case import Case, Level


def cases(device: Device) -> Iterator[Case]:
    """Every sample of every op that is no primitive."""
    return cases_of("composites", [op for _, op in sorted(ops.TABLE.items()) if not op.is_primitive], device)


LEVEL = Level("composites", "all other ops, by kernels or decomposed, against their references", 40, cases)
