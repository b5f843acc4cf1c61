"""Optimizer steps over many parameters at once: they become one group, the last node of the graph.

The steps of different parameters are independent of each other, so a backend can take them in one go; and as the last
node, the group may write parameters and state straight over the old ones: nothing can fail after it.
"""

from __future__ import annotations

from hal.graph.graph import Graph, Node
from hal.graph.groups import grouped

STEPS = ("sgd_step", "sgd_momentum_step", "adam_step", "rmsprop_step", "adagrad_step")


def optimizer_updates(graph: Graph) -> Graph:
    """The graph with all optimizer steps of a device whose results nothing else needs in one group at the end."""
    read = {x for node in graph.nodes for x in node.inputs}
    groups: dict[object, list[Node]] = {}
    for node in graph.nodes:
        if node.op.name in STEPS and not read.intersection(node.outputs):
            groups.setdefault(node.device, []).append(node)
    chosen = {id(node) for members in groups.values() for node in members}
    if not chosen:
        return graph
    nodes = [node for node in graph.nodes if id(node) not in chosen]
    nodes += [grouped(members, "updates") for members in groups.values()]
    return graph.with_nodes(nodes)
