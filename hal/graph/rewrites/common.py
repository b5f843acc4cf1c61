"""Common subexpressions: what is computed twice from the same values is computed once.

Random ops take the state of their generator as an input, so equal calls of them give equal numbers as well. A copy to
the device where a value already is separates: it is how recomputation is asked for (`hal.checkpoint`).
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from hal.graph.graph import COPY, Graph, Group, Node, Value
from hal.interop import host_array
from hal.tensor import Tensor

_SMALL = 1024  # bytes up to which the contents of constants are compared


def common_subexpressions(graph: Graph) -> Graph:
    """The graph with one node for equal calls on equal inputs, and one constant for equal contents."""
    same: dict[Value, Value] = {}
    constants: dict[Hashable, Value] = {}
    for v, tensor in graph.constants.items():
        first = constants.setdefault(_contents(v, tensor), v)
        if first is not v:
            same[v] = first
    seen: dict[Hashable, Node] = {}
    kept = []
    for node in graph.nodes:
        inputs = tuple([same.get(x, x) for x in node.inputs])
        if isinstance(node.op, Group) or (node.op is COPY and inputs[0].device is node.device):
            kept.append(node)
            continue
        key = (node.op, inputs, tuple(map(_exactly, node.settings.items())), node.device)
        first_node = seen.setdefault(key, node)
        if first_node is node:
            kept.append(node)
        else:
            same.update(zip(node.outputs, first_node.outputs, strict=True))
    return graph.with_nodes(kept, same) if same else graph


def _exactly(setting: tuple[str, object]) -> Hashable:
    """A setting as it must be equal: 0.0 and -0.0 and 0 are one key otherwise."""
    name, value = setting
    return name, type(value), repr(value) if isinstance(value, float) else value


def _contents(v: Value, tensor: Tensor) -> Hashable:
    if v.spec.nbytes > _SMALL:
        return id(tensor)
    return v.spec, v.device, np.ascontiguousarray(host_array(tensor, "comparing constants")).tobytes()
