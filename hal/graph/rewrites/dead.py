"""Dead code: nodes whose results nobody needs are left out. Constants too; inputs stay, since callers count on them."""

from __future__ import annotations

from dataclasses import replace

from hal.graph.graph import Graph


def dead_code(graph: Graph) -> Graph:
    """The graph without nodes and constants that no output and no update depends on."""
    needed = set(graph.results)
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    constants = {v: t for v, t in graph.constants.items() if v in needed}
    return replace(graph, nodes=tuple(reversed(kept)), constants=constants)
