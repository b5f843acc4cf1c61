"""Memory of their own: what leaves the graph shares its memory with no input, no constant and no other result.

Where the function itself gave two names of one memory, they may share it here as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from hal import ops
from hal.graph.graph import Graph, Node, Value
from hal.graph.memory import roots

KEPT = -1  # the owner of what is only kept for a backward pass, and handed to nobody


def own_memory(graph: Graph, owners: Sequence[int], fresh: Collection[Value] = ()) -> Graph:
    """The graph with copies where an output or the new contents of state would otherwise be somebody else's memory.

    Args:
        owners: for each output a number that those have in common which may share memory, or `KEPT`.
        fresh: inputs whose memory is nobody else's, and is not needed by anybody when the graph has run.
    """
    root = roots(graph.nodes)
    given = {*graph.inputs, *graph.constants}.difference(fresh)
    nodes = list(graph.nodes)
    taken: dict[Value, int] = {}
    copies: dict[tuple[Value, int], Value] = {}
    lines = {out: node.where for node in nodes for out in node.outputs}

    def own(v: Value, owner: int) -> Value:
        source = root.get(v, v)
        if source not in given and taken.setdefault(source, owner) == owner:
            return v
        if (v, owner) not in copies:
            copies[v, owner] = out = Value(v.spec, v.device)
            settings = {"dtype": v.spec.dtype}
            nodes.append(Node(ops.cast, (v,), settings, (out,), lines.get(v), v.device))
        return copies[v, owner]

    changing = set(graph.updates)
    outputs = []
    for v, owner in zip(graph.outputs, owners, strict=True):
        kept = owner == KEPT and root.get(v, v) not in changing
        outputs.append(v if kept else own(v, owner))
    updates = {old: own(new, -2 - i) for i, (old, new) in enumerate(graph.updates.items())}
    if not copies:
        return graph
    return replace(graph, nodes=tuple(nodes), outputs=tuple(outputs), updates=updates)
