"""Joins: a sum of what was padded with zeros to lie side by side is a concatenation.

That is what the backward pass of slices consists of: of a product that was cut into queries, keys and values, say.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from hal import ops
from hal.graph.graph import Graph, Node, Value


class _Parts(NamedTuple):
    """A value that is zero but for some parts along an axis: each with its first and last place."""

    axis: int
    parts: tuple[tuple[int, int, Value], ...]


def joins(graph: Graph) -> Graph:
    """The graph with a concatenation in the place of sums of values that were padded to fill each other's gaps."""
    known: dict[Value, _Parts] = {}
    nodes = []
    for node in graph.nodes:
        found = _padded(node) if node.op is ops.pad else _sum(node, known) if node.op is ops.add else None
        if found is not None:
            known[node.outputs[0]] = found
            if node.op is ops.add and _whole(found, node.outputs[0].spec.shape[found.axis]):
                inputs = tuple(part for _, _, part in found.parts)
                node = replace(node, op=ops.concat, inputs=inputs, settings={"axis": found.axis})
        nodes.append(node)
    return graph.with_nodes(nodes)


joins.changes_rounding = True  # type: ignore[attr-defined]  # of -0, which is 0 with 0 added


def _padded(node: Node) -> _Parts | None:
    padding = node.settings["padding"]
    axes = [axis for axis, (low, high) in enumerate(padding) if low or high]
    if len(axes) != 1 or node.settings["value"] != 0:
        return None
    low, _ = padding[axes[0]]
    return _Parts(axes[0], ((low, low + node.inputs[0].spec.shape[axes[0]], node.inputs[0]),))


def _sum(node: Node, known: dict[Value, _Parts]) -> _Parts | None:
    a, b = (known.get(x) for x in node.inputs)
    if a is None or b is None or a.axis != b.axis or node.inputs[0].spec is not node.inputs[1].spec:
        return None
    parts = tuple(sorted((*a.parts, *b.parts), key=lambda part: part[0]))
    apart = all(first[1] <= second[0] for first, second in pairwise(parts))
    return _Parts(a.axis, parts) if apart else None


def _whole(found: _Parts, size: int) -> bool:
    return sum(stop - start for start, stop, _ in found.parts) == size
