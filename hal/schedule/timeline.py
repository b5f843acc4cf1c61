"""Predicts when each node of a placed graph starts and ends: a queue for each device and link, each in its order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hal.device import Device
from hal.graph.graph import COPY, Graph, Node, Value
from hal.schedule.machine import Machine


@dataclass(frozen=True)
class Event:
    """A node and when it is expected to run.

    Attributes:
        node: what runs.
        queue: the device or link whose turn it takes.
        start, end: in seconds from the start.
    """

    node: Node
    queue: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.end - self.start


@dataclass(frozen=True)
class Timeline:
    """What a graph is expected to do.

    Attributes:
        events: of each node, in the order of the graph.
        seconds: when the last one ends.
        busy: seconds that each device and link works.
        moved: bytes that each link carries.
        peak: the most bytes that each device holds at once, what is given and constant included.
    """

    events: tuple[Event, ...]
    seconds: float
    busy: Mapping[str, float]
    moved: Mapping[str, int]
    peak: Mapping[Device, int]

    @property
    def bottleneck(self) -> str:
        """The device or link that works longest."""
        return max(self.busy, key=lambda q: self.busy[q], default="")


def crosses(node: Node) -> bool:
    """Whether a node is a copy between two devices."""
    return node.op is COPY and node.inputs[0].device is not node.device


def timeline(graph: Graph, machine: Machine) -> Timeline:
    """When each node runs on this machine, if each queue takes its nodes in the order of the graph."""
    routes = machine.routes()
    done: dict[Value, float] = {}
    free: dict[str, float] = {}
    busy: dict[str, float] = {str(u.device): 0.0 for u in machine.units}
    moved: dict[str, int] = {}
    events = []
    for node in graph.nodes:
        ready = max((done.get(x, 0.0) for x in node.inputs), default=0.0)
        if crosses(node):
            a, b = machine.place_of(node.inputs[0].device), machine.place_of(node.device)
            queue = machine.queue_name(node.inputs[0].device, node.device)
            route, nbytes = routes[a][b], node.inputs[0].spec.nbytes
            assert route is not None
            seconds = route.seconds(nbytes)
            moved[queue] = moved.get(queue, 0) + nbytes
        else:
            queue = str(node.device)
            seconds = machine.units[machine.place_of(node.device)].seconds(node)
            seconds = seconds if seconds < float("inf") else 0.0
        start = max(ready, free.get(queue, 0.0))
        free[queue] = end = start + seconds
        busy[queue] = busy.get(queue, 0.0) + seconds
        done.update(dict.fromkeys(node.outputs, end))
        events.append(Event(node, queue, start, end))
    seconds = max((e.end for e in events), default=0.0)
    return Timeline(tuple(events), seconds, busy, moved, peak_memory(graph))


def peak_memory(graph: Graph) -> dict[Device, int]:
    """The most bytes that are alive at once on each device when the nodes run one by one."""
    last: dict[Value, int] = {}
    for i, node in enumerate(graph.nodes):
        for v in (*node.inputs, *node.outputs):
            last[v] = i
    kept = set(graph.results)
    now: dict[Device, int] = {}
    for v in {*graph.inputs, *graph.constants}:
        now[v.device] = now.get(v.device, 0) + v.spec.nbytes
    given = {*graph.inputs, *graph.constants}
    most = dict(now)
    for i, node in enumerate(graph.nodes):
        for v in node.outputs:
            now[v.device] = now.get(v.device, 0) + v.spec.nbytes
        most[node.device] = max(most.get(node.device, 0), now.get(node.device, 0))
        for v in {*node.inputs, *node.outputs}:
            if last[v] == i and v not in kept and v not in given:
                now[v.device] -= v.spec.nbytes
    return most
