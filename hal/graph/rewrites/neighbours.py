"""Fusion with the neighbours of elementwise ops: the contraction that they follow, the reduction that follows them.

Only where nothing else needs what would stay inside.
"""

from __future__ import annotations

from hal.graph.graph import Graph, Group, Node
from hal.graph.groups import grouped
from hal.graph.rewrites.fusion import may_fuse
from hal.plugin import Backend


def epilogue_fusion(graph: Graph) -> Graph:
    """The graph with contractions in the group of the elementwise ops on their results."""
    made, readers = graph.producers(), graph.consumers()
    leaving = set(graph.results)
    joined: dict[Node, Node] = {}
    gone: set[Node] = set()
    for node in graph.nodes:
        members = _elementwise(node)
        first = None
        for x in node.inputs if members else ():
            source = made.get(x)
            if (
                source is not None and _is(source, "contraction") and source.single and source.device is node.device
                and x.spec.shape == node.outputs[0].spec.shape and x not in leaving
                and _only(readers[x], node) and first is None
            ):  # fmt: skip
                first = source
        if first is not None:
            gone.add(first)
            joined[node] = grouped([first, *members], "epilogue", node.outputs)
    return graph.with_nodes(joined.get(n, n) for n in graph.nodes if n not in gone)


def reduction_fusion(graph: Graph) -> Graph:
    """The graph with elementwise ops in the group of the reduction that takes what they give.

    A backend that runs the group as one adds up in another order than its reduction alone.
    """
    made, readers = graph.producers(), graph.consumers()
    leaving = set(graph.results)
    joined: dict[Node, Node] = {}
    gone: set[Node] = set()
    for node in graph.nodes:
        x = node.inputs[0] if node.inputs else None
        source = made.get(x) if x is not None else None
        if x is None or source is None or not _is(node, "reduction") or not node.single:
            continue
        members = _elementwise(source)
        alone = len(source.outputs) == 1 and x not in leaving and _only(readers[x], node)
        if members and alone and source.device is node.device:
            gone.add(source)
            joined[node] = grouped([*members, node], "reduction", node.outputs)
    return graph.with_nodes(joined.get(n, n) for n in graph.nodes if n not in gone)


reduction_fusion.changes_rounding = True  # type: ignore[attr-defined]  # a mark on a function


def _only(readers: list[Node], node: Node) -> bool:
    return all(reader is node for reader in readers)


def _is(node: Node, kind: str) -> bool:
    fuses = type(node.device.backend).fuse is not Backend.fuse
    return not isinstance(node.op, Group) and node.op.kind == kind and fuses


def _elementwise(node: Node) -> list[Node]:
    """The nodes of an elementwise group, or a single such node; nothing for all others."""
    if isinstance(node.op, Group):
        return list(node.op.graph.nodes) if node.op.kind == "elementwise" else []
    return [node] if may_fuse(node) else []
