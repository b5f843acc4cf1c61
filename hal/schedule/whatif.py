"""Plans for devices that are not here: where a model would run, how long a step would take, what would limit it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hal.errors import OutOfMemoryError
from hal.graph.graph import Graph
from hal.graph.plan import Plan
from hal.schedule.machine import Machine, machine_from
from hal.schedule.placing import Placed, moved_to, place_on
from hal.schedule.report import PlanReport, report, size
from hal.schedule.timeline import timeline


def what_if(plan: Plan | Graph, machine: Machine | str | Path) -> PlanReport:
    """What a plan would do on another machine: predicted time, memory, traffic, and what limits it.

    Parameters and other state are where that is best: on one of the devices of each kind, or on the host; what a device
    has no room for waits on the host.

    Args:
        plan: of a compiled function (`compiled.plans[-1]`), or its graph.
        machine: a preset's name, a TOML file, or a machine.

    Raises:
        ConfigError: no such preset or file, or something in it makes no sense.
        OutOfMemoryError: the model fits nowhere on it.
    """
    graph = plan if isinstance(plan, Graph) else plan.graph
    on = machine if isinstance(machine, Machine) else machine_from(machine)
    best: tuple[float, Placed, str] | None = None
    failure: OutOfMemoryError | None = None
    for device in {u.device.type: u.device for u in reversed(on.units)}.values():
        try:
            moved = moved_to(graph, device)
            found = place_on(moved, on, moved.inputs, len(moved.outputs))
        except OutOfMemoryError as error:
            failure = error
            continue
        seconds = timeline(found.graph, on).seconds
        if best is None or seconds < best[0]:
            best = seconds, found, str(device)
    if best is None:
        assert failure is not None
        raise failure
    _, found, home = best
    told = report(found.graph, on)
    state = sum(v.spec.nbytes for v in found.graph.inputs)
    note = f"inputs, parameters and state ({size(state)}) lie on {home}"
    return replace(told, notes=(*told.notes, note))
