"""Elementwise fusion: ops on elements of one shape that feed each other become one group, which a backend runs as one.

A group never needs a result that itself depends on the group, so that it can run at one time. Only backends that
say how they fuse get groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hal.graph.graph import Graph, Group, Node, Value
from hal.graph.groups import grouped
from hal.plugin import Backend

_NEAR = 8  # nodes between two that are joined: what a backward pass needs much later is not computed before it
_PATIENCE = 1000  # units looked at before a join is given up, so that large graphs take no longer for each node


class _Unit:
    """What runs at one time: a node, or a group of them.

    Attributes:
        members: its nodes, by their positions in the graph.
        last: the highest of these.
        needs: the values that it takes from other nodes.
    """

    __slots__ = ("last", "members", "needs")

    def __init__(self, node: Node, position: int, needs: set[Value]) -> None:
        self.members = {position: node}
        self.last = position
        self.needs = needs

    @property
    def nodes(self) -> list[Node]:
        """Its nodes in an order in which they can run."""
        return [self.members[position] for position in sorted(self.members)]


def elementwise_fusion(graph: Graph) -> Graph:
    """The graph with groups of two or more elementwise nodes of one shape on devices that fuse."""
    of: dict[Value, _Unit] = {}
    for position, node in enumerate(graph.nodes):
        unit = _Unit(node, position, {x for x in node.inputs if x in of})
        of.update(dict.fromkeys(node.outputs, unit))
        if may_fuse(node):
            for producer in sorted({of[x] for x in unit.needs}, key=lambda u: -u.last):
                if position - producer.last > _NEAR:
                    break
                if _alike(producer, node) and not _between(unit, producer, of):
                    _merge(unit, producer, of)
    units = list(dict.fromkeys(of[out] for node in graph.nodes for out in node.outputs))
    if all(len(unit.members) == 1 for unit in units):
        return graph
    needed = _needed(graph, of)
    return graph.with_nodes(_in_order(units, needed, of))


def may_fuse(node: Node) -> bool:
    """Whether a node is an elementwise op on a device that fuses."""
    return (
        not isinstance(node.op, Group)
        and node.op.kind == "elementwise"
        and node.single
        and node.outputs[0].spec.ndim > 0
        and type(node.device.backend).fuse is not Backend.fuse
    )


def _alike(unit: _Unit, node: Node) -> bool:
    """Whether a unit consists of elementwise nodes like this one: of its shape, on its device."""
    member = next(iter(unit.members.values()))
    same = member.device is node.device and member.outputs[0].spec.shape == node.outputs[0].spec.shape
    return same and may_fuse(member)


def _between(unit: _Unit, producer: _Unit, of: Mapping[Value, _Unit]) -> bool:
    """Whether a third unit stands between two, taking from one what it gives to the other."""
    return _may_depend((of[x] for x in unit.needs if of[x] is not producer), producer, of) or _may_depend(
        (of[x] for x in producer.needs if of[x] is not unit), unit, of
    )


def _merge(unit: _Unit, producer: _Unit, of: dict[Value, _Unit]) -> None:
    unit.members |= producer.members
    unit.last = max(unit.members)
    for node in producer.members.values():
        of.update(dict.fromkeys(node.outputs, unit))
    unit.needs = {x for x in unit.needs | producer.needs if of[x] is not unit}


def _may_depend(units: Iterable[_Unit], on: _Unit, of: Mapping[Value, _Unit]) -> bool:
    """Whether any of the units needs, directly or not, what `on` computes; also true where that takes long to tell."""
    seen: set[_Unit] = set()
    waiting = list(units)
    while waiting:
        unit = waiting.pop()
        if unit is on or len(seen) > _PATIENCE:
            return True
        if unit not in seen:
            seen.add(unit)
            waiting += {of[x] for x in unit.needs}
    return False


def _needed(graph: Graph, of: Mapping[Value, _Unit]) -> set[Value]:
    """The values that are used outside the unit that makes them."""
    found = set(graph.results)
    for node in graph.nodes:
        unit = of[node.outputs[0]]
        found.update(x for x in node.inputs if of.get(x) is not unit)
    return found


def _in_order(units: list[_Unit], needed: set[Value], of: Mapping[Value, _Unit]) -> list[Node]:
    """A node for each unit, each after those that it needs; otherwise in the order of the graph."""
    found: list[Node] = []
    done: set[_Unit] = set()
    for start in units:
        waiting = [start]
        while waiting:
            unit = waiting[-1]
            missing = {of[x] for x in unit.needs} - done
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
