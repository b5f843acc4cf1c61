"""The timeline of a simulation in Chrome's trace format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Source: "Trace Event Format", the Chromium project.
"""

from __future__ import annotations

from typing import Any

from hal_systolic.simulation import Simulation
from hal_systolic.stream import UNITS


def trace(s: Simulation) -> dict[str, Any]:
    """A track for each unit, an event for each command, in microseconds of the machine's clock."""
    microsecond = s.machine.clock_hz / 1e6  # in cycles
    numbers = {unit: i for i, unit in enumerate(UNITS)}
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": f"systolic: {s.machine.name}"}}
    ]
    for unit, number in numbers.items():
        events.append({"ph": "M", "name": "thread_name", "pid": 0, "tid": number, "args": {"name": unit}})
        events.append({"ph": "M", "name": "thread_sort_index", "pid": 0, "tid": number, "args": {"sort_index": number}})
    for interval in s.intervals():
        events.append({
            "ph": "X", "pid": 0, "tid": numbers[interval.unit], "cat": interval.op,
            "name": f"{interval.op} {interval.layer}".rstrip(),
            "ts": interval.start / microsecond, "dur": (interval.end - interval.start) / microsecond,
            "args": {"command": interval.text, "cycles": f"{interval.start:.0f} to {interval.end:.0f}"},
        })  # fmt: skip
    machine = s.machine.as_dict()
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"machine": machine, "cycles": s.cycles}}
