"""The graph: ops to run, as values, on no device yet or placed on some. What is traced, rewritten, placed and planned.

Values and nodes are compared by identity and never change; a rewrite makes a new graph of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from hal.device import Device
from hal.errors import GraphError
from hal.op import Array, Cost, Op, Sample
from hal.source import Line
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


class Value:
    """One array that the graph computes or is given.

    Attributes:
        spec: its shape and dtype.
        name: what people call it, if anything: an argument's or a parameter's name. Not unique.
        device: where it was when it was traced; of an input or constant: where it is.
    """

    __slots__ = ("device", "name", "spec")

    def __init__(self, spec: Spec, device: Device, name: str = "") -> None:
        self.spec = spec
        self.device = device
        self.name = name

    def __repr__(self) -> str:
        return f"<value {self.name or 'unnamed'}: {self.spec.dtype.name}{list(self.spec.shape)} on {self.device}>"


@dataclass(frozen=True, eq=False)
class Node:
    """One op of a graph, or a group of them that a backend runs as one.

    Attributes:
        op: what to run. `COPY` is a copy to another device; a `Group` is a graph of its own.
        inputs, outputs: values; a node with one output has a tuple of one.
        settings: all settings of the op, defaults filled in.
        where: the user's line.
        device: where it runs.
        pinned: whether the user chose that device in so many words (`.to()`, `with hal.device()`), so that a placer
            must leave it there.
    """

    op: Op | Group
    inputs: tuple[Value, ...]
    settings: Mapping[str, Any]
    outputs: tuple[Value, ...]
    where: Line | None
    device: Device
    pinned: bool = False

    @property
    def single(self) -> bool:
        """Whether its kernel gives one buffer rather than a tuple."""
        return isinstance(self.op, Op) and len(self.outputs) == 1 and not _gives_tuple(self)

    @property
    def cost(self) -> Cost:
        """Operations and bytes, as the op's record tells; of a group, the operations of all and the bytes outside."""
        if isinstance(self.op, Group):
            return self.op.cost
        outs = tuple(o.spec for o in self.outputs)
        out = outs[0] if self.single else outs
        return self.op.cost(*(x.spec for x in self.inputs), out=out, **self.settings)

    def __repr__(self) -> str:
        return f"<node {self.op.name} on {self.device}>"


def _gives_tuple(node: Node) -> bool:
    """Whether an op with one result nevertheless answers with a tuple, as a variadic one may."""
    assert isinstance(node.op, Op)
    return isinstance(node.op.infer(*(x.spec for x in node.inputs), **node.settings), tuple)


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in an order in which they can run, between inputs and outputs.

    Attributes:
        inputs: given on every call: arguments, parameters and other state, numbers that change with every call.
        nodes: each after those whose results it takes.
        outputs: what the call gives; inputs and constants may be among them, and one value may be so twice.
        constants: values that are the same on every call.
        updates: inputs whose memory gets a new value when everything has succeeded, with that value.
        away: inputs that are taken, and results that are left, elsewhere than on the device of their tensors: that one.
    """

    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    constants: Mapping[Value, Tensor] = field(default_factory=dict)
    updates: Mapping[Value, Value] = field(default_factory=dict)
    away: Mapping[Value, Device] = field(default_factory=dict)

    def text(self, *, lines: bool = False) -> str:
        """The graph for people and tests: a line for each node. `hal.graph.text.parse` reads it.

        Args:
            lines: say behind each node where the user wrote it.
        """
        from hal.graph.text import text_of  # text is built on graphs

        return text_of(self, lines)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<graph: {len(self.nodes)} nodes, {len(self.inputs)} inputs, {len(self.outputs)} outputs>"

    @property
    def results(self) -> tuple[Value, ...]:
        """All values that must have been computed in the end: outputs, and new contents of state."""
        return (*self.outputs, *self.updates.values())

    @property
    def device(self) -> Device | None:
        """The one device that everything is on; None if there are several, or nothing."""
        devices = {n.device for n in self.nodes} | {v.device for v in self.inputs}
        return devices.pop() if len(devices) == 1 else None

    def producers(self) -> dict[Value, Node]:
        """The node that makes each computed value."""
        return {out: node for node in self.nodes for out in node.outputs}

    def consumers(self) -> dict[Value, list[Node]]:
        """The nodes that take each value, a node once for each time that it does."""
        found: dict[Value, list[Node]] = {v: [] for v in self.values()}
        for node in self.nodes:
            for x in node.inputs:
                found[x].append(node)
        return found

    def values(self) -> Iterator[Value]:
        """All values: inputs, constants, and what nodes make, in their order."""
        yield from self.inputs
        yield from self.constants
        for node in self.nodes:
            yield from node.outputs

    def with_nodes(self, nodes: Iterable[Node], substitute: Mapping[Value, Value] | None = None) -> Graph:
        """This graph with other nodes.

        Args:
            substitute: values to replace wherever they are used (also by what was substituted for a substitute).
        """
        if not substitute:
            return replace(self, nodes=tuple(nodes))

        def of(v: Value) -> Value:
            while v in substitute:
                v = substitute[v]
            return v

        changed = []
        for node in nodes:
            inputs = tuple(of(x) for x in node.inputs)
            changed.append(node if inputs == node.inputs else replace(node, inputs=inputs))
        return replace(
            self,
            nodes=tuple(changed),
            outputs=tuple(of(v) for v in self.outputs),
            updates={k: of(v) for k, v in self.updates.items()},
        )

    def check(self) -> None:
        """Raise GraphError if a node takes what is not there yet, or a value is made twice."""
        known: set[Value] = {*self.inputs, *self.constants}
        for node in self.nodes:
            for x in node.inputs:
                if x not in known:
                    raise GraphError(f"{node.op.name} takes {x!r}, which no earlier node makes")
            for out in node.outputs:
                if out in known:
                    raise GraphError(f"{node.op.name} makes {out!r}, which is there already")
                known.add(out)
        for v in self.results:
            if v not in known:
                raise GraphError(f"the graph gives {v!r}, which no node makes")
        for v in self.updates:
            if v not in self.inputs:
                raise GraphError(f"the graph changes {v!r}, which is not an input")


GroupKind = Literal["elementwise", "reduction", "epilogue", "updates"]


@dataclass(frozen=True, eq=False)
class Group:
    """Several nodes that run as one, in the place of an op.

    Attributes:
        name: for people: the kind and the ops, such as `chain(mul, add, tanh)`.
        kind: `elementwise`: each element of the results by itself (after broadcasting); `reduction`: the same, and
            then a reduction of the one thing that they give; `epilogue`: a contraction, then elementwise ops on what
            it gives; `updates`: optimizer steps, each node independent of the others.
        graph: the nodes; its inputs and outputs are those of the node in their order. It has no updates.
    """

    name: str
    kind: GroupKind
    graph: Graph

    @property
    def cost(self) -> Cost:
        """The operations of all nodes, and the bytes that go in and out of the group."""
        outside = [*self.graph.inputs, *self.graph.constants, *self.graph.outputs]
        return Cost(sum(n.cost.flops for n in self.graph.nodes), sum(v.spec.nbytes for v in outside))


def _copied(x: Spec, *, device: Device) -> Spec:
    return x


def _itself(x: Array, *, device: Device) -> Array:
    return x


def _no_samples(rng: Any) -> Iterator[Sample]:
    return iter(())


COPY = Op(
    "copy_to", _copied, _itself, _no_samples, kind="movement", host_only="moves data and computes nothing",
    no_gradient="to_device has one of its own", doc="A copy of x in the memory of another device.",
)  # fmt: skip

Rewrite = Callable[[Graph], Graph]
