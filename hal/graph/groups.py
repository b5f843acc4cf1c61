"""Makes one node of several."""

from __future__ import annotations

from hal.graph.graph import Graph, Group, GroupKind, Node, Value


def grouped(members: list[Node], kind: GroupKind, outputs: tuple[Value, ...] | None = None) -> Node:
    """One node for several, with their inputs from outside and, if not told otherwise, all their results.

    Inside, inputs and outputs are the same values as outside.
    """
    made = {out for node in members for out in node.outputs}
    inputs = tuple(dict.fromkeys(x for node in members for x in node.inputs if x not in made))
    outs = outputs if outputs is not None else tuple(out for node in members for out in node.outputs)
    names = list(dict.fromkeys(node.op.name for node in members))
    name = f"{kind}_{'_'.join(names[:4])}" + ("_and_more" if len(names) > 4 else "")
    group = Group(name, kind, Graph(inputs, tuple(members), outs))
    return Node(group, inputs, {}, outs, members[0].where, members[0].device)
