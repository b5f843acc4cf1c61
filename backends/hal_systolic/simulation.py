"""From work to numbers: compile it, run the stream, and what can be read off the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from hal_systolic.compiler import Choose, compile_work
from hal_systolic.config import Machine
from hal_systolic.counters import Counters
from hal_systolic.event import Timeline, simulate_stream
from hal_systolic.stream import Program
from hal_systolic.work import Work


class Interval(NamedTuple):
    """A command on the timeline, in cycles."""

    unit: str
    start: float
    end: float
    op: str
    layer: str
    text: str


@dataclass(frozen=True)
class Simulation:
    """What a machine did with a piece of work.

    Attributes:
        timeline: when each command ran.
    """

    timeline: Timeline

    @property
    def program(self) -> Program:
        """The command stream."""
        return self.timeline.program

    @property
    def machine(self) -> Machine:
        """The machine, whole."""
        return self.program.machine

    @property
    def layers(self) -> dict[str, Counters]:
        """Counts by layer, in the order of their first work."""
        return self.timeline.counters

    @cached_property
    def total(self) -> Counters:
        """Counts of all layers."""
        total = Counters()
        for counters in self.layers.values():
            total.add(counters)
        return total

    @property
    def cycles(self) -> float:
        """Cycles from the first command to the last result."""
        return self.timeline.cycles

    @property
    def seconds(self) -> float:
        """Their time."""
        return self.cycles / self.machine.clock_hz

    @property
    def watts(self) -> float:
        """Mean power above idle."""
        return (self.total.joules - self.total.energy["idle"] * 1e-12) / self.seconds if self.cycles else 0.0

    def intervals(self) -> Iterator[Interval]:
        """The timeline: what each unit did when."""
        t = self.timeline
        for index, command in enumerate(self.program.commands):
            yield Interval(command.unit, t.start[index], t.end[index], command.op, command.layer, f"{index} {command}")

    def measures(self, counters: Counters) -> dict[str, Any]:
        """What reports show of a layer, or of all: ratios, roofline, bytes, energy.

        `utilization_pct` is of the peak at rate 1; `bound` is what the roofline says is the limit.
        """
        machine, cycles = self.machine, counters.total_cycles
        dram = counters.bytes_at("dram read") + counters.bytes_at("dram written")
        compute = counters.macs / machine.peak_macs
        memory = dram / machine.dram_bytes_per_cycle
        attainable = max(compute, memory)
        return {
            "cycles": cycles,
            "seconds": cycles / machine.clock_hz,
            "columns_pct": {name: 100 * value / cycles if cycles else 0.0 for name, value in counters.cycles.items()},
            "columns": dict(counters.cycles),
            "macs": counters.macs,
            "tops": 2 * counters.macs * machine.clock_hz / cycles / 1e12 if cycles else 0.0,
            "utilization_pct": 100 * compute / cycles if cycles else 0.0,
            "mapping_efficiency_pct": 100 * counters.mapping_efficiency,
            "padding_pct": 100 - 100 * counters.mapping_efficiency if counters.slots else 0.0,
            "tiles": counters.tiles,
            "vector_ops": counters.vector_ops,
            "bytes": {f"{level} {operand}": count for (level, operand), count in sorted(counters.traffic.items())},
            "dram_bytes_per_s": dram * machine.clock_hz / cycles if cycles else 0.0,
            "macs_per_dram_byte": counters.macs / dram if dram else None,
            "bound": "memory" if memory > compute else "compute",
            "roofline_pct": 100 * attainable / cycles if cycles else 0.0,
            "energy_j": {name: value * 1e-12 for name, value in counters.energy.items()},
            "joules": counters.joules,
        }

    def as_dict(self) -> dict[str, Any]:
        """Everything but the timeline, ready for JSON: the machine, the total, the layers."""
        return {
            "machine": self.machine.as_dict(),
            "watts_above_idle": self.watts,
            "total": self.measures(self.total),
            "layers": {name: self.measures(counters) for name, counters in self.layers.items()},
        }


def simulate(work: Sequence[Work], machine: Machine, choose: Choose | None = None) -> Simulation:
    """Compile `work` for `machine` and run the stream on the event level.

    Raises:
        ConfigError: a piece of work does not fit the machine.
    """
    return Simulation(simulate_stream(compile_work(work, machine, choose)))
