"""Says of a plan what runs where, why, what the alternatives would have cost, and what moves: as text, JSON, a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from hal.errors import GraphError
from hal.graph.graph import COPY, Graph, Group, Node, Value
from hal.graph.memory import is_view
from hal.schedule.machine import Machine, candidates, here
from hal.schedule.timeline import Event, Timeline, crosses, timeline
from hal.source import describe

if TYPE_CHECKING:
    from hal.graph.plan import Plan, Step

TITLES = ("#", "op", "device", "how", "start", "takes", "instead", "buffer", "why", "line")


@dataclass(frozen=True)
class Alternative:
    """What a node would take on another device.

    Attributes:
        seconds: of the node alone; infinite where it cannot run.
        copies: seconds of the copies of its inputs that it would need there.
    """

    seconds: float
    copies: float


@dataclass(frozen=True)
class Row:
    """One node of a plan.

    Attributes:
        index: its place.
        op: its name, or that of its group.
        members: the ops that run as one here.
        device, queue: where it runs; of a copy the link.
        how: `native`, `decomposed`, `fallback`, `fused`, `copy`, `evict`, or `barrier`.
        why: why it runs there, or why it is copied.
        start, seconds: as predicted.
        alternatives: on the other devices.
        moved: bytes that a copy moves.
        buffer: where its results lie.
        inputs, outputs: their specs.
        line: the user's.
        after: places of the nodes that made its inputs.
    """

    index: int
    op: str
    members: tuple[str, ...]
    device: str
    queue: str
    how: str
    why: str
    start: float
    seconds: float
    alternatives: Mapping[str, Alternative]
    moved: int
    buffer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    line: str
    after: tuple[int, ...]


@dataclass(frozen=True)
class PlanReport:
    """What a plan does and why. Printing it gives a table.

    Attributes:
        rows: a row for each node, in the order in which they run.
        seconds: predicted for one call.
        machine: what it was predicted for.
        busy: seconds that each device and link works.
        moved: bytes that each link carries.
        peak: the most bytes that each device holds at once.
        memory: bytes that each device has, where there is a limit.
        bottleneck: the device or link that works longest.
        notes: what else is to say.
    """

    rows: tuple[Row, ...]
    seconds: float
    machine: str
    busy: Mapping[str, float]
    moved: Mapping[str, int]
    peak: Mapping[str, int]
    memory: Mapping[str, float]
    bottleneck: str
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        rows = [TITLES, *(_cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*self.summary(), "", *table])

    __repr__ = __str__

    def summary(self) -> list[str]:
        """A few lines on the whole."""
        kinds = {how: sum(r.how == how for r in self.rows) for how in dict.fromkeys(r.how for r in self.rows)}
        lines = [
            f"{len(self.rows)} steps ({', '.join(f'{n} {how}' for how, n in kinds.items())}), "
            f"predicted {duration(self.seconds)} on {self.machine}; busiest: {self.bottleneck or 'nothing'}"
        ]
        idle = [queue for queue, seconds in self.busy.items() if not seconds and queue not in self.peak]
        for queue, seconds in self.busy.items():
            if queue in idle:
                continue
            share = f"{seconds / self.seconds:.0%}" if self.seconds else "0%"
            carried = f", carries {size(self.moved[queue])}" if queue in self.moved else ""
            held = f", holds at most {size(self.peak[queue])}" if queue in self.peak else ""
            limit = f" of {size(self.memory[queue])}" if queue in self.memory else ""
            lines.append(f"  {queue}: busy {duration(seconds)} ({share}){carried}{held}{limit}")
        if idle:
            lines.append(f"  {', '.join(idle)}: idle")
        return [*lines, *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what cannot run is null."""
        body = asdict(self)
        for row in body["rows"]:
            row["alternatives"] = {
                name: None if not isfinite(a["seconds"]) else a for name, a in row["alternatives"].items()
            }
        return body

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict())

    def html(self) -> str:
        """A page that needs no network: the timeline, the graph, and a table of every step."""
        from hal.schedule.page import page  # reports are mostly printed

        return page(self)

    def explain(self, which: str | int) -> str:
        """All that is known of the steps of an op, by its name or the number of a step.

        Raises:
            GraphError: the plan has no such step.
        """
        found = [
            r for r in self.rows
            if r.index == which or (isinstance(which, str) and which in (r.op, *r.members))
        ]  # fmt: skip
        if not found:
            names = sorted({n for r in self.rows for n in (r.members or (r.op,))})
            raise GraphError(f"the plan has no {which!r}; it has {', '.join(names)}")
        return "\n\n".join(_told(row) for row in found)


def _cells(row: Row) -> tuple[str, ...]:
    instead = ", ".join(f"{name} {_alternative(a)}" for name, a in row.alternatives.items())
    where = row.queue if row.how in ("copy", "evict") else row.device
    return (
        str(row.index), row.op, where, row.how, duration(row.start), duration(row.seconds), instead, row.buffer,
        row.why, row.line,
    )  # fmt: skip


def _alternative(a: Alternative) -> str:
    if not isfinite(a.seconds):
        return "cannot"
    return duration(a.seconds) + (f" + {duration(a.copies)} of copies" if a.copies else "")


def _told(row: Row) -> str:
    lines = [
        f"step {row.index}: {row.op}({', '.join(row.inputs)}) -> {', '.join(row.outputs)}  [{row.line}]",
        f"  runs on {row.queue}: {row.how}, from {duration(row.start)} for {duration(row.seconds)} as predicted",
        f"  why: {row.why}",
    ]
    lines += [f"  on {name}: {_alternative(a)}" for name, a in row.alternatives.items()]
    if row.members:
        lines.append(f"  is {len(row.members)} ops in one: {', '.join(row.members)}")
    if row.moved:
        lines.append(f"  moves {size(row.moved)}")
    return "\n".join([*lines, f"  its result lies {row.buffer}"])


def duration(seconds: float) -> str:
    """Seconds for people."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns" if seconds else "0"


def size(nbytes: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"


def known_machine(graph: Graph) -> Machine:
    """The devices of a graph, and those others of which it is known how fast they are."""
    used = list(dict.fromkeys([v.device for v in graph.inputs] + [n.device for n in graph.nodes]))
    return here(candidates(used, measure=False))


def report_of(plan: Plan, machine: Machine | None = None) -> PlanReport:
    """What a plan does and why.

    Args:
        machine: that its devices are part of (default: the devices that are here and have been measured).
    """
    told = report(plan.graph, machine or known_machine(plan.graph), plan)
    if not plan.end:
        return told
    return replace(told, notes=(f"a part of a function that is split: it ends at {plan.end}", *told.notes))


def report(graph: Graph, machine: Machine, plan: Plan | None = None) -> PlanReport:
    """What a placed graph does on a machine and why.

    Args:
        plan: that was made of it, if one was: then it is known how nodes run and where results lie.
    """
    told = timeline(graph, machine)
    steps: dict[Node, Step] = {} if plan is None else {s.node: s for s in plan.steps}
    reporting = _Reporting(graph, machine, told, plan, steps)
    rows = tuple(reporting.row(i, event) for i, event in enumerate(told.events))
    notes = [*_tried(plan), *_elsewhere(graph)]
    evicted = [r.moved for r in rows if r.how == "evict"]
    if evicted:
        notes.append(f"{len(evicted)} tensors ({size(sum(evicted))}) make room on a full device and wait on the host")
    return PlanReport(
        rows, told.seconds, machine.name, told.busy, told.moved, {str(d): n for d, n in told.peak.items()},
        {str(u.device): u.memory for u in machine.units if u.memory < inf}, told.bottleneck, tuple(notes),
    )  # fmt: skip


def _tried(plan: Plan | None) -> Iterator[str]:
    """Which plans were tried, and what a call of each took."""
    if plan is not None and plan.tried:
        took = [f"{name} {duration(t) if isfinite(t) else 'failed'}" for name, t in plan.tried.items()]
        yield f"tried when it was made: {', '.join(took)}; the first was taken"


def _elsewhere(graph: Graph) -> Iterator[str]:
    """What is elsewhere than its tensors are, between calls and when one begins."""
    for values, told in (
        (graph.inputs, "live on {} between calls, or are brought there when one begins, and not on {}"),
        (graph.outputs, "are left on {} until somebody wants them on {}"),
    ):
        found: dict[str, list[int]] = {}
        for v in dict.fromkeys(v for v in values if v in graph.away):
            found.setdefault(told.format(v.device, graph.away[v]), []).append(v.spec.nbytes)
        for where, sizes in found.items():
            what = "inputs" if values is graph.inputs else "results"
            yield f"{len(sizes)} {what} ({size(sum(sizes))}) {where}"


class _Reporting:
    def __init__(
        self, graph: Graph, machine: Machine, told: Timeline, plan: Plan | None, steps: Mapping[Node, Step]
    ) -> None:
        self.graph, self.machine, self.plan, self.steps = graph, machine, plan, steps
        self.number = {o: i for i, e in enumerate(told.events) for o in e.node.outputs}
        self.consumers = graph.consumers()
        self.results = set(graph.results)
        self.over = set() if plan is None else {graph.updates[old] for old in plan.in_place}
        self.routes = machine.routes()

    def row(self, index: int, event: Event) -> Row:
        node = event.node
        step = self.steps.get(node)
        others = {} if node.op is COPY else self._alternatives(node)
        how = self._how(node, step)
        return Row(
            index, "copy" if node.op is COPY else node.op.name, _members(node), str(node.device), event.queue, how,
            self._why(node, event, others, step, how), event.start, event.seconds,
            others, node.inputs[0].spec.nbytes if crosses(node) else 0, self._buffer(node, step),
            tuple(_spec(x) for x in node.inputs), tuple(_spec(o) for o in node.outputs), describe(node.where),
            tuple(dict.fromkeys(self.number[x] for x in node.inputs if x in self.number)),
        )  # fmt: skip

    def _how(self, node: Node, step: Step | None) -> str:
        if node.op is COPY:
            if not crosses(node):
                return "barrier"
            return "evict" if self._makes_room(node) else "copy"
        if step is not None:
            return step.how
        return "fused" if isinstance(node.op, Group) else "native"

    def _makes_room(self, node: Node) -> bool:
        """Whether a copy takes something to the host only to bring it back later."""
        users = self.consumers[node.outputs[0]]
        back = [u for u in users if crosses(u) and u.device is node.inputs[0].device]
        return bool(back) and node.outputs[0] not in self.results

    def _alternatives(self, node: Node) -> dict[str, Alternative]:
        found = {}
        for place, unit in enumerate(self.machine.units):
            if unit.device is node.device:
                continue
            copies = 0.0
            for x in dict.fromkeys(node.inputs):
                route = self.routes[self.machine.place_of(x.device)][place]
                if route is not None and x not in self.graph.constants:
                    copies += route.seconds(x.spec.nbytes)
            found[str(unit.device)] = Alternative(unit.seconds(node), copies)
        return found

    def _why(self, node: Node, event: Event, others: Mapping[str, Alternative], step: Step | None, how: str) -> str:
        if how in ("copy", "evict", "barrier"):
            users = self.consumers[node.outputs[0]]
            wanted = ", ".join(dict.fromkeys(u.op.name for u in users if u.op is not COPY)) or "the result"
            if how == "evict":
                return f"{node.inputs[0].device} is full; it comes back later"
            return "computed again, and not kept" if how == "barrier" else f"{wanted} on {node.device} needs it"
        reason = f"; {step.reason}" if step is not None and step.reason else ""
        if node.pinned or (isinstance(node.op, Group) and any(n.pinned for n in node.op.graph.nodes)):
            return f"the user's word{reason}"
        able = {name: a for name, a in others.items() if isfinite(a.seconds)}
        if not able:
            return ("no other device can run it" if others else "the only device") + reason
        name, best = min(able.items(), key=lambda item: item[1].seconds + item[1].copies)
        if event.seconds <= min(a.seconds for a in able.values()):
            return f"fastest there{reason}"
        if event.seconds <= best.seconds + best.copies:
            return f"{name} would be faster, but not with the copies{reason}"
        return f"its data is there; by itself it would be faster on {name}{reason}"

    def _buffer(self, node: Node, step: Step | None) -> str:
        out = node.outputs[0]
        nbytes = size(sum(o.spec.nbytes for o in node.outputs))
        if is_view(node) and node.device.backend.views:
            return "in the memory of its input"
        if self.plan is not None and self.over.issuperset(node.outputs):
            return f"over the old contents, {nbytes}"
        if out in self.results:
            return f"in {nbytes} that the call gives"
        if self.plan is not None:
            memory = self.plan.memory.get(node.device)
            if memory is not None and out in memory.offsets:
                return f"in the arena at {memory.offsets[out]:,}, {nbytes}"
        return f"in {nbytes} of its own"


def _members(node: Node) -> tuple[str, ...]:
    return tuple(n.op.name for n in node.op.graph.nodes) if isinstance(node.op, Group) else ()


def _spec(v: Value) -> str:
    return f"{v.spec.dtype.name}{list(v.spec.shape)}"
