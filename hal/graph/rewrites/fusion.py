"""Elementwise fusion: ops on elements of one shape that feed each other become one group, which a backend runs as one.

A group never needs a result that itself depends on the group, so that it can run at one time. Only backends that
say how they fuse get groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter

from hal.device import Device
from hal.graph.graph import Graph, Group, Node, Value
from hal.graph.groups import grouped
from hal.plugin import Backend

_NEAR = 8  # nodes between two that are joined: what a backward pass needs much later is not computed before it
_MOST = 128  # nodes in a group: so many gain what there is to gain, and a kernel of them is compiled in time


class _Unit:
    """What runs at one time: a node, or a group of them. Nodes are known by their positions in the graph.

    Attributes:
        members: its nodes.
        last: the highest of their positions.
        kind: what is equal for units that may be joined; None for those that may not.
        needs: the nodes outside whose results it takes.
        users: the nodes outside that take its results.
    """

    __slots__ = ("kind", "last", "members", "needs", "users")

    def __init__(self, node: Node, position: int, needs: set[int]) -> None:
        self.members = {position: node}
        self.last = position
        self.kind: tuple[Device, tuple[int, ...]] | None = None
        if may_fuse(node):
            self.kind = node.device, node.outputs[0].spec.shape
        self.needs = needs
        self.users: set[int] = set()

    @property
    def nodes(self) -> list[Node]:
        """Its nodes in an order in which they can run."""
        return [self.members[position] for position in sorted(self.members)]


def elementwise_fusion(graph: Graph) -> Graph:
    """The graph with groups of two or more elementwise nodes of one shape on devices that fuse."""
    at: list[_Unit] = []  # the unit of each node
    made: dict[Value, int] = {}
    for position, node in enumerate(graph.nodes):
        unit = _Unit(node, position, {made[x] for x in node.inputs if x in made})
        for source in unit.needs:
            at[source].users.add(position)
        at.append(unit)
        made.update(dict.fromkeys(node.outputs, position))
        if unit.kind is not None:
            for producer in sorted({at[source] for source in unit.needs}, key=lambda u: -u.last):
                if position - producer.last > _NEAR:
                    break
                if _alike(unit, producer) and not _way(unit, producer, at) and not _way(producer, unit, at):
                    unit = _merged(unit, producer, at)
    units = list(dict.fromkeys(at))
    if len(units) == len(at):
        return graph
    return graph.with_nodes(_in_order(units, _needed(graph, at, made), at))


def may_fuse(node: Node) -> bool:
    """Whether a node is an elementwise op on a device that fuses."""
    return (
        not isinstance(node.op, Group)
        and node.op.kind == "elementwise"
        and node.single
        and node.outputs[0].spec.ndim > 0
        and type(node.device.backend).fuse is not Backend.fuse
    )


def _alike(a: _Unit, b: _Unit) -> bool:
    return a.kind == b.kind and len(a.members) + len(b.members) <= _MOST


def _merged(a: _Unit, b: _Unit, at: list[_Unit]) -> _Unit:
    """The larger of two units with the members of the other: so no node changes its unit often."""
    small, large = sorted((a, b), key=lambda u: len(u.members))
    large.members |= small.members
    large.last = max(a.last, b.last)
    for position in small.members:
        at[position] = large
    for its, others in ((large.needs, small.needs), (large.users, small.users)):
        its.difference_update(small.members)
        its.update(position for position in others if at[position] is not large)
    return large


def _way(first: _Unit, second: _Unit, at: Sequence[_Unit]) -> bool:
    """Whether third units lead from one to another, each taking from the one before.

    It is looked for from both ends, a step here and a step there, until one of them has seen all that it leads to:
    in a graph of any size that is soon, where a unit has few users or stands on little.
    """
    down = _reached(first, second, at, attrgetter("users"))
    up = _reached(second, first, at, attrgetter("needs"))
    return any(below is second or above is first for below, above in zip(down, up, strict=False))


def _reached(start: _Unit, other: _Unit, at: Sequence[_Unit], near: Callable[[_Unit], set[int]]) -> Iterator[_Unit]:
    """The units that can be reached from one, once for each connection; not by one from there to the other."""
    seen = {start}
    waiting = [iter([position for position in near(start) if at[position] is not other])]
    while waiting:
        position = next(waiting[-1], None)
        if position is None:
            waiting.pop()
            continue
        unit = at[position]
        yield unit
        if unit not in seen:
            seen.add(unit)
            waiting.append(iter(near(unit)))


def _needed(graph: Graph, at: Sequence[_Unit], made: Mapping[Value, int]) -> set[Value]:
    """The values that are used outside the unit that makes them."""
    found = set(graph.results)
    for position, node in enumerate(graph.nodes):
        found.update(x for x in node.inputs if x in made and at[made[x]] is not at[position])
    return found


def _in_order(units: list[_Unit], needed: set[Value], at: Sequence[_Unit]) -> list[Node]:
    """A node for each unit, each after those that it needs; otherwise in the order of the graph."""
    found: list[Node] = []
    done: set[_Unit] = set()
    for start in units:
        waiting = [start]
        while waiting:
            unit = waiting[-1]
            missing = {at[source] for source in unit.needs} - done
            if unit in done:
                waiting.pop()
            elif missing:
                waiting += sorted(missing, key=lambda u: -u.last)
            else:
                waiting.pop()
                done.add(unit)
                found.append(_node_of(unit, needed))
    return found


def _node_of(unit: _Unit, needed: set[Value]) -> Node:
    nodes = unit.nodes
    if len(nodes) == 1:
        return nodes[0]
    outputs = tuple(out for node in nodes for out in node.outputs if out in needed)
    return grouped(nodes, "elementwise", outputs)
