"""Takes a fused group apart into what can be generated: a contraction first, a chain, a reduction and a chain on it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from hal.codegen.chain import Chain
from hal.codegen.expressions import NoExpression
from hal.codegen.folds import Fold, fold_of
from hal.graph.graph import Group, Node, Value
from hal.op import Op

NUMBERS = 1  # elements of a constant that is written into the source


@dataclass(frozen=True, eq=False)
class Parts:
    """What a group consists of, in the order in which it runs. What is not there is None.

    Attributes:
        first: a node that is no part of the source, a contraction.
        before: the elementwise nodes up to the reduction, or all of them.
        reduction: the node that reduces what `before` gives.
        fold: how it does that.
        after: the elementwise nodes on the reduced values, of which the first input is that of the reduction.
    """

    first: Node | None
    before: Chain
    reduction: Node | None = None
    fold: Fold | None = None
    after: Chain | None = None

    @property
    def axes(self) -> tuple[int, ...]:
        """The reduced axes, in order."""
        assert self.reduction is not None
        axis, rank = self.reduction.settings["axis"], len(self.before.shape)
        if axis is None:
            return tuple(range(rank))
        return tuple(sorted(a % rank for a in (axis if isinstance(axis, tuple) else (axis,))))


def parts_of(group: Group) -> Parts:
    """The parts of a group of the kinds `elementwise`, `reduction` and `epilogue`.

    Raises:
        NoExpression: it has a node, or an arrangement of nodes, that is not generated; the message says which.
    """
    graph = group.graph
    numbers = {}
    for value, tensor in graph.constants.items():
        if value.spec.size != NUMBERS:
            raise NoExpression(f"a constant of {value.spec.shape}")
        numbers[value] = tensor.item()
    if any(v.spec.size == 0 for v in graph.values()):
        raise NoExpression("nothing to compute")
    nodes = list(graph.nodes)
    first = nodes.pop(0) if isinstance(nodes[0].op, Op) and nodes[0].op.kind == "contraction" else None
    at = [i for i, n in enumerate(nodes) if isinstance(n.op, Op) and n.op.kind == "reduction"]
    made = set() if first is None else set(first.outputs)
    if not at:
        inputs = _needed(nodes, graph.outputs, {*graph.inputs, *made}, numbers)
        return Parts(first, Chain(nodes, inputs, graph.outputs, numbers))
    if len(at) > 1 or first is not None:
        raise NoExpression("more than one reduction or contraction")
    reduction = nodes[at[0]]
    assert isinstance(reduction.op, Op)
    (given,), (result,) = reduction.inputs, reduction.outputs
    fold = fold_of(reduction.op, given.spec.dtype, result.spec.dtype)
    if fold is None:
        raise NoExpression(f"{reduction.op.name} is no fold")
    above = _ancestors(nodes, given)
    before = [n for n in nodes if n in above]
    after = [n for n in nodes if n not in above and n is not reduction]
    available = set(graph.inputs)
    chain = Chain(before, _needed(before, (given,), available, numbers), (given,), numbers)
    inputs = [result, *(v for v in _needed(after, graph.outputs, available | {result}, numbers) if v is not result)]
    return Parts(None, chain, reduction, fold, Chain(after, inputs, graph.outputs, numbers, shape=result.spec.shape))


def _needed(
    nodes: list[Node], outputs: tuple[Value, ...], available: set[Value], numbers: dict[Value, object]
) -> list[Value]:
    """The values that nodes take from outside, in the order of their first use."""
    made = {v for n in nodes for v in n.outputs}
    used = [*(x for n in nodes for x in n.inputs), *outputs]
    found = dict.fromkeys(v for v in used if v not in made and v not in numbers)
    missing = [v for v in found if v not in available]
    if missing:
        raise NoExpression(f"{missing[0]!r} is made on the other side of the reduction")
    return list(found)


def _ancestors(nodes: list[Node], value: Value) -> set[Node]:
    """The nodes that a value depends on."""
    found: set[Node] = set()
    wanted = {value}
    for node in reversed(nodes):
        if wanted & set(node.outputs):
            found.add(node)
            wanted |= set(node.inputs)
    return found


def updates_of(group: Group) -> list[Chain]:
    """The nodes of a group of the kind `updates`, a chain each: all of a chain's arrays have its shape or one element.

    Raises:
        NoExpression: a node is not elementwise, or broadcasts.
    """
    chains = []
    for node in group.graph.nodes:
        numbers = {v: t.item() for v, t in group.graph.constants.items() if v in node.inputs}
        chain = Chain([node], list(dict.fromkeys(v for v in node.inputs if v not in numbers)), node.outputs, numbers)
        size = prod(chain.shape)
        if any(v.spec.size not in (1, size) for v in chain.inputs):
            raise NoExpression("an update that broadcasts")
        chains.append(chain)
    return chains
