"""The plan: a placed graph as a flat list of steps with every copy explicit and every buffer assigned. What runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hal.device import Device
from hal.graph.graph import Graph, Node, Value

if TYPE_CHECKING:
    from hal.schedule.machine import Machine
    from hal.schedule.report import PlanReport

timed: Callable[[Plan], Callable[..., Any]] | None = None  # a profile: what runs a plan and notes its steps
How = Literal["native", "decomposed", "fallback", "fused", "copy"]


@dataclass(frozen=True, eq=False)
class Step:
    """One call of the replay.

    Attributes:
        node: what it does; its device, inputs, outputs and the user's line.
        how: by a kernel of the device, in simpler ops, on another device, as one fused group, or as a copy.
        reason: why it does not run natively.
        call: the function that the replay calls with the buffers of the inputs.
        settings: what it is called with by keyword.
        out: whether it takes `out=`.
    """

    node: Node
    how: How
    reason: str
    call: Callable[..., Any]
    settings: Mapping[str, Any]
    out: bool

    @property
    def device(self) -> Device:
        """Where it runs."""
        return self.node.device


@dataclass(frozen=True, eq=False)
class Memory:
    """Where the intermediate results of one device lie.

    Attributes:
        offsets: of each value that lies in the arena, in bytes; values may lie at one place if one is dead in time.
        bytes: the size of the arena.
        bound: the least that any assignment needs: the most bytes of such values that are alive at once.
    """

    offsets: Mapping[Value, int]
    bytes: int
    bound: int


@dataclass(frozen=True, eq=False)
class Plan:
    """A graph with everything decided, and the function that runs it.

    Attributes:
        graph: placed, rewritten and grouped.
        steps: in the order in which they run.
        memory: the arena of each device that has one.
        run: called with the buffers of `graph.inputs`, gives those of `graph.results`. Calls of it must not overlap.
        in_place: the updates whose new value the last step writes straight over the old one; no other input is changed.
        end: of a part of a function that is split: the user's line, and what it asks for there.
        tried: the plans among which it was chosen, itself first, and the seconds that a call of each took.
    """

    graph: Graph
    steps: tuple[Step, ...]
    memory: Mapping[Device, Memory]
    run: Callable[..., tuple[Any, ...]]
    in_place: frozenset[Value]
    end: str = ""
    tried: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        devices = ", ".join(dict.fromkeys(str(step.device) for step in self.steps)) or "no device"
        arenas = sum(memory.bytes for memory in self.memory.values())
        until = f", until {self.end}" if self.end else ""
        return f"<plan: {len(self.steps)} steps on {devices}, {arenas:,} bytes of arena{until}>"

    def report(self, machine: Machine | None = None) -> PlanReport:
        """Per step: its device and why, what the alternatives would have cost, copies, what runs as one, its buffer.

        Printing it gives a table; it also has `to_json()`, `html()` and `explain(op)`.

        Args:
            machine: with speeds other than those of the devices that are here.
        """
        from hal.schedule.report import report_of  # only who asks for a report loads what makes it

        return report_of(self, machine)

    def explain(self, which: str | int) -> str:
        """All that is known of the steps of an op, by its name or the number of a step.

        Raises:
            GraphError: the plan has no such step.
        """
        return self.report().explain(which)
