"""Algebra: calls whose result is one of their inputs, or a cheaper call, for every value the inputs can have.

The rules of `EXACT` keep every bit, NaNs, infinities and signed zeros included. Those of `ROUNDING` may change the sign
of a zero or the last bit.
"""

from __future__ import annotations

from collections.abc import Callable

from hal import ops
from hal.graph.graph import Graph, Group, Node, Value
from hal.tensor import Tensor

Constants = dict[Value, float]
Rule = Callable[[Node, Constants], Value | None]


def _right(value: float) -> Rule:
    def rule(node: Node, constants: Constants) -> Value | None:
        return node.inputs[0] if constants.get(node.inputs[1]) == value else None

    return rule


def _either(value: float) -> Rule:
    def rule(node: Node, constants: Constants) -> Value | None:
        a, b = node.inputs
        return a if constants.get(b) == value else b if constants.get(a) == value else None

    return rule


def _same_dtype(node: Node, constants: Constants) -> Value | None:
    return node.inputs[0] if node.inputs[0].spec is node.outputs[0].spec else None


def _same_branches(node: Node, constants: Constants) -> Value | None:
    return node.inputs[1] if node.inputs[1] is node.inputs[2] else None


def _same_inputs(node: Node, constants: Constants) -> Value | None:
    return node.inputs[0] if node.inputs[0] is node.inputs[1] else None


# fmt: off
EXACT: dict[str, Rule] = {
    "mul":     _either(1.0),
    "div":     _right(1.0),
    "sub":     _right(0.0),   # of +0: x - 0 is x, -0 included
    "pow":     _right(1.0),
    "cast":    _same_dtype,
    "where":   _same_branches,
    "maximum": _same_inputs,
    "minimum": _same_inputs,
    "bitwise_and": _same_inputs,
    "bitwise_or":  _same_inputs,
    "logical_and": _same_inputs,
    "logical_or":  _same_inputs,
}
ROUNDING: dict[str, Rule] = {
    "add": _either(0.0),      # -0 + 0 is +0
}
# fmt: on


def algebra(graph: Graph) -> Graph:
    """The graph without calls that give one of their inputs, bit for bit."""
    return _simplified(graph, EXACT)


def rounding_algebra(graph: Graph) -> Graph:
    """The graph without calls that give one of their inputs, but for the sign of a zero."""
    return _simplified(graph, ROUNDING)


rounding_algebra.changes_rounding = True  # type: ignore[attr-defined]  # a mark on a function


def _simplified(graph: Graph, rules: dict[str, Rule]) -> Graph:
    constants = {v: c for v, t in graph.constants.items() if (c := _number(v, t)) is not None}
    same: dict[Value, Value] = {}
    made = graph.producers()
    kept = []
    for node in graph.nodes:
        rule = None if isinstance(node.op, Group) else rules.get(node.op.name)
        found = None if rule is None else rule(node, constants)
        before = made.get(node.inputs[0]) if node.op is ops.neg else None
        if before is not None and before.op is ops.neg:
            found = before.inputs[0]
        out = node.outputs[0]
        if found is not None and found.spec is out.spec and found.device is out.device:
            same[out] = found
        else:
            kept.append(node)
    return graph.with_nodes(kept, same) if same else graph


def _number(v: Value, tensor: Tensor) -> float | None:
    """The one number that a constant holds; None for -0, which is no neutral element of a subtraction."""
    if v.spec.size != 1 or v.spec.dtype.kind == "complex":
        return None
    value = float(tensor.detach().item())
    return None if value == 0 and str(value).startswith("-") else value
