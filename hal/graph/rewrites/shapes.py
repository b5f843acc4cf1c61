"""Shape-op cleanup: movements that move nothing are left out, and two in a row become one."""

from __future__ import annotations

from dataclasses import replace

from hal import ops
from hal.graph.graph import Graph, Node, Value


def shape_cleanup(graph: Graph) -> Graph:
    """The graph with fewer reshapes, permutations, broadcasts and slices."""
    made: dict[Value, Node] = {}
    same: dict[Value, Value] = {}
    kept = []
    changed = False
    for node in graph.nodes:
        inputs = tuple([same.get(x, x) for x in node.inputs])
        new = node if inputs == node.inputs else replace(node, inputs=inputs)
        merged = _merged(new, made)
        changed = changed or merged is not node
        if _moves_nothing(merged):
            same[node.outputs[0]] = merged.inputs[0]
            changed = True
            continue
        for out in merged.outputs:
            made[out] = merged
        kept.append(merged)
    return graph.with_nodes(kept, same) if changed else graph


def _moves_nothing(node: Node) -> bool:
    if node.op is ops.reshape or node.op is ops.broadcast_to:
        return node.inputs[0].spec is node.outputs[0].spec
    if node.op is ops.permute:
        axes = [a % len(node.settings["axes"]) for a in node.settings["axes"]]
        return axes == sorted(axes)
    if node.op is ops.slice:
        return node.inputs[0].spec is node.outputs[0].spec and all(s == 1 for s in node.settings["step"])
    return False


def _merged(node: Node, made: dict[Value, Node]) -> Node:
    """The node on the input of the movement before it, where the two are one movement."""
    before = made.get(node.inputs[0]) if len(node.inputs) == 1 else None
    if before is None or before.op is not node.op or before.device is not node.device:
        return node
    if node.op is ops.reshape or node.op is ops.broadcast_to:
        return replace(node, inputs=before.inputs)
    if node.op is ops.permute:
        first, second = before.settings["axes"], node.settings["axes"]
        axes = tuple(first[a % len(first)] % len(first) for a in second)
        return replace(node, inputs=before.inputs, settings={**node.settings, "axes": axes})
    return node
