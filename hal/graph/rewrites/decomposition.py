"""Ops become what they consist of, so that their parts are simplified, grouped and recorded.

Those that a device has no kernel for: a trace has them in parts for the device on which it was made, and `decomposed`
is for the other ones that the graph may be placed on. And those whose kernels are for single calls: `alone`.
"""

from __future__ import annotations

from collections.abc import Callable

from hal.abstract import ABSTRACT, recording_calls
from hal.decision import DECOMPOSED, Decision, decision_for
from hal.device import Device
from hal.errors import DTypeError
from hal.graph.graph import COPY, Graph, Group, Node, Value
from hal.graph.memory import roots
from hal.placement import constant
from hal.recording import no_grad
from hal.tensor import CONSTANT, Tensor

NUMBERS = (bool, int, float, complex)
Constants = dict[Value, Tensor]
Which = Callable[[Decision], bool]


def decomposed(graph: Graph, device: Device) -> Graph:
    """The graph with the ops that `device` would decompose taken apart; itself if there are none."""
    return _taken_apart(graph, lambda decision: decision.how == DECOMPOSED, device)


def alone(graph: Graph) -> Graph:
    """The graph with the ops taken apart whose kernels are for single calls; itself if there are none."""
    return _taken_apart(graph, lambda decision: decision.alone)


alone.changes_rounding = True  # type: ignore[attr-defined]  # a mark on a function


def _taken_apart(graph: Graph, apart: Which, device: Device | None = None) -> Graph:
    constants: Constants = {}
    nodes = [part for node in graph.nodes for part in _parts(node, apart, device, constants)]
    if len(nodes) == len(graph.nodes):
        return graph
    return Graph(graph.inputs, tuple(nodes), graph.outputs, {**graph.constants, **constants}, graph.updates, graph.away)


def _parts(node: Node, apart: Which, device: Device | None, constants: Constants) -> list[Node]:
    """The node, or what it consists of if its decision on a device (default: its own) is one of those to take apart."""
    if node.op is COPY or isinstance(node.op, Group) or node.op.decompose is None:
        return [node]
    specs = tuple(x.spec for x in node.inputs)
    where = device or node.device
    settings = {**node.settings, "device": where} if "device" in node.settings else dict(node.settings)
    try:
        if not apart(decision_for(node.op, where, specs, settings)):
            return [node]
    except DTypeError:
        return [node]
    given = set(node.inputs)
    inputs = [Tensor(None, spec, ABSTRACT, CONSTANT) for spec in specs]
    with recording_calls() as calls, no_grad():
        result = node.op.decompose(*inputs, **{k: v for k, v in node.settings.items() if k != "device"})
    results = result if isinstance(result, tuple) else (result,)
    known = dict(zip(map(id, inputs), node.inputs, strict=True))
    wanted = dict(zip(map(id, results), node.outputs, strict=True))
    numbers: Constants = {}
    made: list[Node] = []
    for call in calls:
        for x in call.operands:
            if id(x) not in known:
                if not isinstance(x.buffer, NUMBERS):
                    return [node]
                value = known[id(x)] = Value(x.spec, node.device)
                numbers[value] = constant(x.buffer, x.spec, node.device)
        outs = tuple(wanted.get(id(x)) or Value(x.spec, node.device) for x in call.results)
        known.update(zip(map(id, call.results), outs, strict=True))
        taken = tuple(known[id(x)] for x in call.operands)
        bound = {**call.settings, "device": node.device} if "device" in call.settings else call.settings
        made.append(Node(call.op, taken, bound, outs, node.where, node.device, node.pinned))
    here = {out for part in made for out in part.outputs}
    root = roots(made)
    shared = any(root.get(v) in given for v in node.outputs)
    if shared or len(wanted) < len(results) or not here.issuperset(node.outputs):
        return [node]  # a kernel gives memory of its own, and these would not
    constants |= numbers
    return [small for part in made for small in _parts(part, apart, device, constants)]
