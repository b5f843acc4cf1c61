"""Binds the scheduler to graphs: from a graph and a machine to a problem in numbers, and from its answer to a graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from math import inf
from typing import Any

from hal.device import Device
from hal.errors import OutOfMemoryError
from hal.graph.graph import COPY, Graph, Group, Node, Value
from hal.schedule.layout import RUN, DoesNotFit, Layout, makespan
from hal.schedule.machine import Machine
from hal.schedule.problem import NEVER, Datum, Problem, Task
from hal.schedule.search import Placement, place
from hal.tensor import CONSTANT, Tensor

LEAST = 1e-12  # seconds of a task that costs nothing, so that it ends after it starts
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the state that could wait on the host: what is tried
LOST = 1.0  # seconds of a task that no device can run: whoever runs it will say so
Living = Mapping[Value, int]  # places of inputs and results between calls, where their tensors are elsewhere
Movable = Sequence[frozenset[Value]]  # inputs and results that live in one place, whichever it is


@dataclass(frozen=True)
class Placed:
    """A graph on a machine, and how it came there.

    Attributes:
        graph: with its copies.
        machine: where.
        problem: the same in numbers.
        placement: what was chosen, and what else was thought of.
    """

    graph: Graph
    machine: Machine
    problem: Problem
    placement: Placement


def place_on(graph: Graph, machine: Machine, state: Collection[Value] = (), free: int = 0) -> Placed:
    """The graph on a machine that has all of its devices, with its state where it is, or on the host.

    Args:
        state: inputs that may wait on the host between calls, if their device is full.
        free: how many outputs, the first ones, may do so too.

    Raises:
        OutOfMemoryError: something needs more memory at once than its device has, and may run nowhere else.
    """
    binding = Binding(graph, machine)
    problem, living = with_room(binding, binding.movable(state, free), {})
    found = binding.placement(problem)
    return Placed(binding.applied(found.layout, living), machine, problem, found)


def with_room(binding: Binding, movable: Movable, living: Living) -> tuple[Problem, Living]:
    """The problem in which as much of the state waits on the host as is best for where everything is now, if it must.

    What waits takes copies in every call, what stays leaves less memory for what is computed. Of both, little is tried.

    Args:
        living: where state lives now.
    """
    problem, host = binding.problem(living), binding.machine.host
    if not any(t and d != host for d, t in enumerate(problem.tight)):
        return problem, living
    groups = sorted((g for g in movable if all(binding.may_leave(v) for v in g)), key=binding.trouble)
    sizes = [sum(v.spec.nbytes for v in group) for group in groups]
    elsewhere = {v: place for v, place in living.items() if place != host}
    tried = [living]
    for share in SHARES:
        held = accumulate(sizes, initial=0)
        waits = {v: host for g, before in zip(groups, held, strict=False) if before < share * sum(sizes) for v in g}
        tried.append({**elsewhere, **waits})
    seconds = []
    for one in tried:
        problem = binding.problem(one)
        devices = problem.given or tuple(min(range(len(t.seconds)), key=t.seconds.__getitem__) for t in problem.tasks)
        seconds.append(makespan(problem, devices, range(len(problem.tasks))))
    best = min(range(len(tried)), key=seconds.__getitem__) if min(seconds) < inf else len(tried) - 1
    return binding.problem(tried[best]), tried[best]


def is_tight(graph: Graph) -> bool:
    """Whether the memory of a device may not hold everything that a placed graph has there at some time.

    Then the order of its nodes is what keeps it within the limit.
    """
    whole: dict[Device, int] = {}
    for v in (*graph.values(), *graph.outputs):  # what the last call gave may still be held in the next
        whole[v.device] = whole.get(v.device, 0) + v.spec.nbytes
    limits = {d: d.backend.max_memory(d) for d in whole}
    return any(limit is not None and whole[d] > limit for d, limit in limits.items())


def is_training(graph: Graph) -> bool:
    """Whether a graph changes state, as a training step does; devices that only infer take no part in one."""
    return bool(graph.updates)


def moved_to(graph: Graph, device: Device) -> Graph:
    """The graph as if it had been traced with everything on `device`: for planning on devices that are not here."""
    values: dict[Value, Value] = {}

    def of(v: Value) -> Value:
        if v not in values:
            values[v] = Value(v.spec, device, v.name)
        return values[v]

    nodes = []
    for node in graph.nodes:
        if node.op is COPY and node.inputs[0].device is not node.device:
            values[node.outputs[0]] = of(node.inputs[0])
            continue
        inputs, outputs = tuple(map(of, node.inputs)), tuple(map(of, node.outputs))
        settings = _on(node.settings, device)
        nodes.append(replace(node, inputs=inputs, outputs=outputs, settings=settings, device=device, pinned=False))
    constants = {of(v): Tensor(None, v.spec, device, CONSTANT) for v in graph.constants}
    updates = {of(a): of(b) for a, b in graph.updates.items()}
    return Graph(tuple(map(of, graph.inputs)), tuple(nodes), tuple(map(of, graph.outputs)), constants, updates)


def _on(settings: Mapping[str, Any], device: Device) -> Mapping[str, Any]:
    return {**settings, "device": device} if "device" in settings else settings


class Binding:
    """A graph and a machine that has all of its devices."""

    def __init__(self, graph: Graph, machine: Machine) -> None:
        self.graph, self.machine = graph, machine
        self.places = {d: i for i, d in enumerate(machine.devices)}
        self.training = is_training(graph)
        self.nodes: list[Node] = []
        self.pinned: list[bool] = []
        self.inputs = set(graph.inputs)
        self.consumers = graph.consumers()
        self.same: dict[Value, Value] = {}  # results of copies that the trace needed, by what they are copies of
        self._sort_out()
        values = list(graph.inputs) + [o for n in self.nodes for o in n.outputs]
        self.data = {v: i for i, v in enumerate(dict.fromkeys(values))}
        self.values = list(self.data)

    def _sort_out(self) -> None:
        """Keep what computes, and the copies that the user asked for or is given."""
        results = {*self.graph.outputs, *self.graph.updates.values()}
        for node in self.graph.nodes:
            crossing = node.op is COPY and node.inputs[0].device is not node.device
            if crossing and not node.pinned and node.outputs[0] not in results:
                self.same[node.outputs[0]] = self._root(node.inputs[0])
                continue
            self.nodes.append(node)
            self.pinned.append(crossing or node.pinned)

    def _root(self, v: Value) -> Value:
        return self.same.get(v, v)

    # What may live elsewhere.

    def movable(self, state: Collection[Value], free: int) -> Movable:
        """Values that may live anywhere between calls, in groups that do so together.

        What is updated lives where its new contents do.

        Args:
            state, free: see `place_on`.
        """
        outputs = {self._root(v) for v in self.graph.outputs}
        fixed = {self._root(v) for v in self.graph.outputs[free:]}
        groups: dict[Value, set[Value]] = {self._root(v): {self._root(v)} for v in self.graph.outputs[:free]}
        for old, new in self.graph.updates.items():
            groups.setdefault(self._root(new), {self._root(new)}).add(old)
        groups |= {v: {v} for v in self.graph.inputs if v in state and v not in self.graph.updates}
        found = []
        for root, group in groups.items():
            inputs = group & self.inputs
            if root in self.data and root not in fixed and inputs <= set(state) and not inputs & outputs:
                found.append(frozenset(group))
        return found

    def may_leave(self, v: Value) -> bool:
        """Whether the device of a value may be full, so that it would rather wait on the host."""
        place = self.places[v.device]
        return self.machine.units[place].memory < inf and place != self.machine.host

    def trouble(self, group: frozenset[Value]) -> float:
        """Seconds of copies from and to the host for each byte that is saved on the device."""
        seconds, saved = 0.0, 0
        for v in sorted(group, key=self.data.__getitem__):  # in any other order sums may differ in their last bits
            device = self.places[v.device]
            uses = len(self.consumers.get(v, ())) if v in self.inputs else 1
            there, back = self.machine.link(self.machine.host, device), self.machine.link(device, self.machine.host)
            link = there if v in self.inputs else back
            seconds += max(1, uses) * (link.latency + v.spec.nbytes / link.bandwidth)
            saved += v.spec.nbytes
        return seconds / max(saved, 1)

    def lived(self, movable: Movable, where: Mapping[Value, Device]) -> Living:
        """Where groups live of which an input does live there."""
        found: dict[Value, int] = {}
        for group in movable:
            for v in group & where.keys():
                found |= dict.fromkeys(group, self.places[where[v]])
        return {v: place for v, place in found.items() if place != self.places[v.device]}

    def settled(self, devices: Sequence[int], movable: Movable, living: Living) -> Living:
        """Where values live best if tasks run on these devices: where all do that touch any of their group."""
        touched: dict[int, set[int]] = {}
        for task, d in zip(self.tasks, devices, strict=True):
            for x in (*task.inputs, *task.outputs):
                touched.setdefault(x, set()).add(d)
        found: dict[Value, int] = {}
        for group in movable:
            where = set[int]().union(*(touched.get(self.data[v], ()) for v in group))
            place = where.pop() if len(where) == 1 else None
            for v in group:
                found[v] = living.get(v, self.places[v.device]) if place is None else place
        return {v: place for v, place in found.items() if place != self.places[v.device]}

    # Into numbers.

    def problem(self, living: Living) -> Problem:
        """The graph in numbers."""
        results = (*self.graph.outputs, *self.graph.updates.values())
        ends = {self._root(v): self._end(v, living) for v in results}
        data = tuple(
            Datum(
                v.spec.nbytes,
                living.get(v, self.places[v.device]) if v in self.inputs else None,
                ends.get(v) if v not in self.inputs else None,
            )
            for v in self.values
        )
        memory = [u.memory for u in self.machine.units]
        for v in self.graph.outputs:  # what the last call gave may still be held in the next
            memory[self._end(v, living)] -= v.spec.nbytes
        for v in self.graph.constants:
            memory[self.places[v.device]] -= v.spec.nbytes
        given = tuple(self.places[n.device] for n in self.nodes)
        able = all(task.seconds[d] < NEVER for task, d in zip(self.tasks, given, strict=True))
        machine = self.machine
        return Problem(self.tasks, data, tuple(memory), machine.routes(), machine.host, given if able else None)

    def _end(self, v: Value, living: Living) -> int:
        return living.get(self._root(v), self.places[v.device])

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """What the nodes take on each device."""
        return tuple(self._task(n, p) for n, p in zip(self.nodes, self.pinned, strict=True))

    def _task(self, node: Node, pinned: bool) -> Task:
        inputs = tuple(self.data[r] for x in node.inputs if (r := self._root(x)) in self.data)
        outputs = tuple(self.data[o] for o in node.outputs)
        mine = self.places[node.device]
        seconds = [max(u.seconds(node, self.training), LEAST) for u in self.machine.units]
        if pinned:
            seconds = [s if d == mine else NEVER for d, s in enumerate(seconds)]
        if all(s == NEVER for s in seconds):
            seconds[mine] = LOST
        return Task(tuple(seconds), inputs, outputs, self._scratch(node))

    def _scratch(self, node: Node) -> int:
        return sum(o.spec.nbytes for n in node.op.graph.nodes for o in n.outputs) if isinstance(node.op, Group) else 0

    def placement(self, problem: Problem) -> Placement:
        """The best placement that is found.

        Raises:
            OutOfMemoryError: none fits.
        """
        try:
            return place(problem, [str(d) for d in self.machine.devices])
        except DoesNotFit as error:
            raise self._explained(error) from None

    def _explained(self, error: DoesNotFit) -> OutOfMemoryError:
        """What does not fit, in the user's words."""
        from hal.source import describe

        device = self.machine.devices[error.device]
        limit = self.machine.units[error.device].memory
        if error.task < 0:
            return OutOfMemoryError(
                f"the results of a plan need {error.need:,} bytes on {device}, which has {limit:,.0f}: return less, "
                "or let more of it be elsewhere"
            )
        node = self.nodes[error.task]
        return OutOfMemoryError(
            f"{node.op.name} at {describe(node.where)} needs {error.need:,} bytes at once on {device}, which has "
            f"{limit:,.0f}: use smaller batches, or let it run elsewhere"
        )

    # Back into a graph.

    def applied(self, layout: Layout, living: Living) -> Graph:
        """The graph with devices and copies as they were chosen, its nodes in the order of the steps."""
        devices = self.machine.devices
        there: dict[tuple[int, int], Value] = {}
        away: dict[Value, Device] = {}
        given: dict[Value, Value] = {}
        for v in self.graph.inputs:
            given[v] = Value(v.spec, devices[living[v]], v.name) if v in living else v
            there[self.data[v], self.places[given[v].device]] = given[v]
            if v in living:
                away[given[v]] = v.device
        constants: dict[Value, Tensor] = {}
        copied: dict[tuple[Value, Device], Value] = {}
        lines = {self.data[x]: n.where for n in reversed(self.nodes) for x in n.inputs if x in self.data}
        lines |= {self.data[o]: n.where for n in self.nodes for o in n.outputs}
        nodes: list[Node] = []
        for step in layout.steps:
            device = devices[step.device]
            if step.kind != RUN:
                source = there[step.what, step.source]
                new = there[step.what, step.device] = Value(source.spec, device, source.name)
                where = lines.get(step.what)
                nodes.append(Node(COPY, (source,), {"device": device}, (new,), where, device))
                continue
            node = self.nodes[step.what]
            if node.op is COPY and node.inputs[0].device is not node.device and self._root(node.inputs[0]) in self.data:
                there[self.data[node.outputs[0]], step.device] = there[  # what brought its input did what it asks for
                    self.data[self._root(node.inputs[0])], step.device
                ]
                continue
            inputs = []
            for x in node.inputs:
                root = self._root(x)
                if root in self.data:
                    inputs.append(there[self.data[root], step.device])
                else:
                    inputs.append(self._constant(root, device, constants, copied))
            outputs = []
            for o in node.outputs:
                new = o if o.device is device else Value(o.spec, device, o.name)
                there[self.data[o], step.device] = new
                outputs.append(new)
            nodes.append(
                replace(
                    node, inputs=tuple(inputs), outputs=tuple(outputs), settings=_on(node.settings, device),
                    device=device, pinned=self.pinned[step.what],
                )
            )  # fmt: skip

        def result(v: Value) -> Value:
            root = self._root(v)
            if root not in self.data:
                return self._constant(root, v.device, constants, copied)
            found = there[self.data[root], self._end(v, living)]
            if root in living:
                away[found] = v.device
            return found

        results = tuple(result(v) for v in self.graph.outputs)
        updates = {given[old]: result(new) for old, new in self.graph.updates.items()}
        return Graph(tuple(given.values()), tuple(nodes), results, constants, updates, away)

    def _constant(
        self, v: Value, device: Device, constants: dict[Value, Tensor], copied: dict[tuple[Value, Device], Value]
    ) -> Value:
        """A constant on a device: it is sent there once, when the plan is made, and not in every call."""
        key = (v, device)
        if key not in copied:
            tensor = self.graph.constants[v]
            if device is v.device:
                copied[key] = v
            else:
                copied[key] = Value(v.spec, device, v.name)
                tensor = _sent(tensor, device)
            constants[copied[key]] = tensor
        return copied[key]


def _sent(tensor: Tensor, device: Device) -> Tensor:
    if tensor.buffer is None:  # of a graph that is only thought about
        return Tensor(None, tensor.spec, device, CONSTANT)
    from hal.recording import no_grad
    from hal.transfer import moved

    with no_grad():
        return moved(tensor, device)
