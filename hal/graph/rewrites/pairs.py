"""Pairs: a function and its derivative at one value, computed at once where a device has a kernel for both.

A step that trains needs both, far apart. The kernel gives the same bits as the two; the derivative is kept for the
backward pass in the place of what it would be computed from.
"""

from __future__ import annotations

from hal import ops
from hal.decision import decision_for
from hal.graph.graph import Graph, Node, Value

BOTH = {(ops.gelu, ops.gelu_slope): ops.gelu_with_slope}


def pairs(graph: Graph) -> Graph:
    """The graph with one node for two that are a pair of `BOTH`, on the same input with the same settings."""
    instead: dict[Node, Node] = {}
    gone: set[Node] = set()
    for (first, second), both in BOTH.items():
        by_input: dict[tuple[Value, object], Node] = {}
        for node in graph.nodes:
            if node.op is not first and node.op is not second:
                continue
            key = node.inputs[0], tuple(node.settings.items())
            other = by_input.setdefault(key, node)
            if other.op is node.op or other.device is not node.device:
                continue
            specs = tuple(x.spec for x in node.inputs)
            if decision_for(both, node.device, specs, dict(node.settings)).kernel is None:
                continue
            value, slope = (other, node) if other.op is first else (node, other)
            outputs = (*value.outputs, *slope.outputs)
            instead[other] = Node(both, node.inputs, node.settings, outputs, value.where, node.device, value.pinned)
            gone.add(node)
    return graph.with_nodes(instead.get(n, n) for n in graph.nodes if n not in gone) if gone else graph
