"""Elementwise fusion: ops on elements of one shape that feed each other become one group, which a backend runs as one.

A group never needs a result that itself depends on the group, so that it can run at one time. Only backends that
say how they fuse get groups.
"""

from __future__ import annotations

from collections.abc import Iterable

from hal.graph.graph import Graph, Group, Node, Value
from hal.graph.groups import grouped
from hal.plugin import Backend

_NEAR = 8  # nodes between two that are joined: what a backward pass needs much later is not computed before it
_PATIENCE = 1000  # units looked at before a join is given up, so that large graphs take no longer for each node


class _Unit:
    """What runs at one time: a node, or a group of them.

    Attributes:
        members: its nodes.
        last: the highest position of one in the graph.
        before: the units whose results it takes.
    """

    __slots__ = ("before", "last", "members")

    def __init__(self, node: Node, position: int, before: set[_Unit]) -> None:
        self.members = [node]
        self.last = position
        self.before = before


def elementwise_fusion(graph: Graph) -> Graph:
    """The graph with groups of two or more elementwise nodes of one shape on devices that fuse."""
    units: list[_Unit] = []
    of: dict[Value, _Unit] = {}
    for position, node in enumerate(graph.nodes):
        before = {of[x] for x in node.inputs if x in of}
        unit = _joined(node, position, before) if may_fuse(node) else None
        if unit is None:
            unit = _Unit(node, position, before)
            units.append(unit)
        for out in node.outputs:
            of[out] = unit
    if all(len(unit.members) == 1 for unit in units):
        return graph
    needed = _needed(graph, of)
    return graph.with_nodes(_in_order(units, needed))


def may_fuse(node: Node) -> bool:
    """Whether a node is an elementwise op on a device that fuses."""
    return (
        not isinstance(node.op, Group)
        and node.op.kind == "elementwise"
        and node.single
        and node.outputs[0].spec.ndim > 0
        and type(node.device.backend).fuse is not Backend.fuse
    )


def _joined(node: Node, position: int, before: set[_Unit]) -> _Unit | None:
    """The unit of a producer that the node could join and did, if there is one."""
    shape = node.outputs[0].spec.shape
    for unit in sorted(before, key=lambda u: -u.last):
        if position - unit.last > _NEAR:
            break
        member = unit.members[0]
        if not may_fuse(member) or member.device is not node.device or member.outputs[0].spec.shape != shape:
            continue
        others = before - {unit}
        if not _may_depend(others, unit):
            unit.members.append(node)
            unit.last = position
            unit.before |= others
            return unit
    return None


def _may_depend(units: Iterable[_Unit], on: _Unit) -> bool:
    """Whether any of the units needs, directly or not, what `on` computes; also true where that takes long to tell."""
    seen: set[_Unit] = set()
    waiting = list(units)
    while waiting:
        unit = waiting.pop()
        if unit is on or len(seen) > _PATIENCE:
            return True
        if unit not in seen:
            seen.add(unit)
            waiting += unit.before
    return False


def _needed(graph: Graph, of: dict[Value, _Unit]) -> set[Value]:
    """The values that are used outside the unit that makes them."""
    found = set(graph.results)
    for node in graph.nodes:
        unit = of[node.outputs[0]]
        found.update(x for x in node.inputs if of.get(x) is not unit)
    return found


def _in_order(units: list[_Unit], needed: set[Value]) -> list[Node]:
    """A node for each unit, each after those that it needs; otherwise in the order of the graph."""
    found: list[Node] = []
    done: set[_Unit] = set()
    for start in units:
        waiting = [start]
        while waiting:
            unit = waiting[-1]
            missing = [u for u in unit.before if u not in done and u is not unit]
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
    if len(unit.members) == 1:
        return unit.members[0]
    outputs = tuple(out for node in unit.members for out in node.outputs if out in needed)
    return grouped(unit.members, "elementwise", outputs)
