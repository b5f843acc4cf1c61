"""Constant folding: nodes whose inputs are all constants run once, when the plan is made."""

from __future__ import annotations

from dataclasses import replace

from hal import ops
from hal.graph.graph import COPY, Graph
from hal.op import Op
from hal.recording import no_grad
from hal.tensor import Tensor

_LARGEST = 1 << 20  # bytes of a folded result: larger ones are cheaper made than kept


def constant_folding(graph: Graph) -> Graph:
    """The graph with the results of nodes that depend on nothing but constants as constants."""
    constants = dict(graph.constants)
    kept = []
    for node in graph.nodes:
        foldable = (
            isinstance(node.op, Op) and node.op is not COPY
            and all(x in constants for x in node.inputs)
            and all(out.spec.nbytes <= _LARGEST for out in node.outputs)
            and all(constants[x].device is node.device for x in node.inputs)
        )  # fmt: skip
        if not foldable or (node.op is ops.full and node.outputs[0].spec.size > 1):  # a fill is as fast as a read
            kept.append(node)
            continue
        assert isinstance(node.op, Op)
        with no_grad():
            result = node.op(*[constants[x].detach() for x in node.inputs], **node.settings)
        results: tuple[Tensor, ...] = result if isinstance(result, tuple) else (result,)
        constants.update(zip(node.outputs, results, strict=True))
    if len(kept) == len(graph.nodes):
        return graph
    return replace(graph, nodes=tuple(kept), constants=constants)
