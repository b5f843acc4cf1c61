"""Binds the scheduler to graphs: from a graph and a machine to a problem in numbers, and from its answer to a graph."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from math import inf
from typing import Any

from hal import config
from hal.device import Device
from hal.errors import OutOfMemoryError
from hal.graph.graph import COPY, Graph, Group, Node, Value
from hal.schedule.layout import RUN, DoesNotFit, makespan
from hal.schedule.machine import Machine, candidates, here
from hal.schedule.problem import NEVER, Datum, Problem, Task
from hal.schedule.search import Placement, place
from hal.tensor import CONSTANT, Tensor

LEAST = 1e-12  # seconds of a task that costs nothing, so that it ends after it starts
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the state that could wait on the host: what is tried
LOST = 1.0  # seconds of a task that no device can run: whoever runs it will say so


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


def placed(
    graph: Graph, devices: Iterable[Device] | None = None, state: Collection[Value] = (), free: int = 0
) -> Graph:
    """The graph on the devices where it ends first. On one device alone it is given back as it is.

    Args:
        devices: that may be used (default: those of the policy, or all that are here).
        state: inputs that may wait on the host between calls, if their device is full.
        free: how many outputs, the first ones, may do so too.

    Raises:
        OutOfMemoryError: something needs more memory at once than its device has, and may run nowhere else.
    """
    from hal.policy import placement

    used = [v.device for v in (*graph.inputs, *graph.constants)] + [n.device for n in graph.nodes]
    allowed = devices if devices is not None else placement.devices()
    found = candidates(used) if allowed is None else list(dict.fromkeys([*used, *allowed]))
    if len(found) == 1 and found[0].backend.max_memory(found[0]) is None:
        return graph
    result = place_on(graph, here(found), state, free)
    if config.logs("placement"):
        told = ", ".join(f"{c.name} {1e3 * c.seconds:.3g} ms" for c in result.placement.choices)
        print(f"hal: placed {len(graph.nodes)} nodes: {result.placement.name}, of {told}", file=sys.stderr)
    return result.graph


def place_on(graph: Graph, machine: Machine, state: Collection[Value] = (), free: int = 0) -> Placed:
    """The graph on a machine that has all of its devices.

    Args:
        state, free: see `placed`.

    Raises:
        OutOfMemoryError: something needs more memory at once than its device has, and may run nowhere else.
    """
    binding = _Binding(graph, machine)
    problem = binding.problem()
    if any(t and d != machine.host for d, t in enumerate(problem.tight)):
        problem = _with_room(binding, binding.movable(state, free))
    try:
        found = place(problem, [str(d) for d in machine.devices])
    except DoesNotFit as error:
        raise binding.explained(error) from None
    return Placed(binding.applied(found), machine, problem, found)


def _with_room(binding: _Binding, movable: list[frozenset[Value]]) -> Problem:
    """The problem in which as much of the state waits on the host as is best for where everything is now.

    What waits takes copies in every call, what stays leaves less memory for what is computed. Of both, little is tried.
    """
    best: tuple[float, set[Value]] = (inf, {v for group in movable for v in group})
    sizes = [sum(v.spec.nbytes for v in group) for group in movable]
    for share in SHARES:
        held = accumulate(sizes, initial=0)
        away = {v for group, before in zip(movable, held, strict=False) if before < share * sum(sizes) for v in group}
        problem = binding.problem(away)
        devices = problem.given or tuple(min(range(len(t.seconds)), key=t.seconds.__getitem__) for t in problem.tasks)
        seconds = makespan(problem, devices, range(len(problem.tasks)))
        if seconds < best[0]:
            best = seconds, away
    return binding.problem(best[1])


def is_tight(graph: Graph) -> bool:
    """Whether the memory of a device may not hold everything that a placed graph has there at some time.

    Then the order of its nodes is what keeps it within the limit.
    """
    whole: dict[Device, int] = {}
    for v in graph.values():
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


class _Binding:
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
        self.away: Collection[Value] = ()

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

    # What may wait.

    def movable(self, state: Collection[Value], free: int) -> list[frozenset[Value]]:
        """Values that may wait on the host, in groups that do so together: those first that save most for their copies.

        What is updated waits with its new contents. On the device it would take the memory of both.
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
            stays = root in fixed or not inputs <= set(state) or inputs & outputs or root not in self.data
            if not stays and all(self._may_leave(v) for v in group):
                found.append(frozenset(group))
        return sorted(found, key=self._trouble)

    def _may_leave(self, v: Value) -> bool:
        place = self.places[v.device]
        return self.machine.units[place].memory < inf and place != self.machine.host

    def _trouble(self, group: frozenset[Value]) -> float:
        """Seconds of copies for each byte that is saved on the device."""
        seconds, saved = 0.0, 0
        for v in sorted(group, key=self.data.__getitem__):  # in any other order sums may differ in their last bits
            device = self.places[v.device]
            uses = len(self.consumers.get(v, ())) if v in self.inputs else 1
            there, back = self.machine.link(self.machine.host, device), self.machine.link(device, self.machine.host)
            link = there if v in self.inputs else back
            seconds += max(1, uses) * (link.latency + v.spec.nbytes / link.bandwidth)
            saved += v.spec.nbytes
        return seconds / max(saved, 1)

    # Into numbers.

    def problem(self, away: Collection[Value] = ()) -> Problem:
        """The graph in numbers.

        Args:
            away: inputs and results that wait on the host between calls.
        """
        self.away = away
        ends = {self._root(v): self._end(v) for v in (*self.graph.outputs, *self.graph.updates.values())}
        data = tuple(
            Datum(
                v.spec.nbytes,
                (self.machine.host if v in away else self.places[v.device]) if v in self.inputs else None,
                ends.get(v) if v not in self.inputs else None,
            )
            for v in self.values
        )
        tasks = tuple(self._task(n, p) for n, p in zip(self.nodes, self.pinned, strict=True))
        memory = [u.memory for u in self.machine.units]
        for v in self.graph.outputs:  # what the last call gave may still be held in the next
            memory[self._end(v)] -= v.spec.nbytes
        for v in self.graph.constants:
            memory[self.places[v.device]] -= v.spec.nbytes
        given = tuple(self.places[n.device] for n in self.nodes)
        able = all(task.seconds[d] < NEVER for task, d in zip(tasks, given, strict=True))
        return Problem(tasks, data, tuple(memory), self.machine.routes(), self.machine.host, given if able else None)

    def _end(self, v: Value) -> int:
        return self.machine.host if self._root(v) in self.away else self.places[v.device]

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

    def explained(self, error: DoesNotFit) -> OutOfMemoryError:
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

    def applied(self, found: Placement) -> Graph:
        """The graph with devices and copies as they were chosen, its nodes in the order of the steps."""
        devices = self.machine.devices
        there: dict[tuple[int, int], Value] = {}
        away: dict[Value, Device] = {}
        given: dict[Value, Value] = {}
        for v in self.graph.inputs:
            given[v] = Value(v.spec, devices[self.machine.host], v.name) if v in self.away else v
            there[self.data[v], self.places[given[v].device]] = given[v]
            if v in self.away:
                away[given[v]] = v.device
        constants: dict[Value, Tensor] = {}
        copied: dict[tuple[Value, Device], Value] = {}
        lines = {self.data[x]: n.where for n in reversed(self.nodes) for x in n.inputs if x in self.data}
        lines |= {self.data[o]: n.where for n in self.nodes for o in n.outputs}
        nodes: list[Node] = []
        for step in found.layout.steps:
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
            found = there[self.data[root], self._end(v)]
            if root in self.away:
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
