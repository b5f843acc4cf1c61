"""Traces a function once: what it computes as a graph, and what else a call of it has to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hal.autocast import autocast
from hal.autodiff import grad_within
from hal.graph.graph import Graph, Node, Value
from hal.graph.host import Board, Calculation, Number
from hal.graph.inputs import GradientOf, Source, State
from hal.graph.rewrites.outputs import KEPT
from hal.graph.split import Cut, Fetch, Path, Splitter
from hal.graph.structure import mapped
from hal.graph.taken import Taken
from hal.graph.tracer import Tracer
from hal.random import Generator
from hal.recording import Node as Recorded
from hal.recording import mode
from hal.tensor import CONSTANT, Storage, Tensor


@dataclass(frozen=True)
class Result:
    """One tensor among the results: number `index` of the graph's outputs, and whether it requires a gradient.

    A result that was there before the call has no number, but is `tensor` itself, or the argument at that place.
    """

    index: int
    tracked: bool
    tensor: Tensor | int | None


@dataclass(frozen=True)
class HostResult:
    """One number among the results, which Python computed of what it read from tensors: its place on the board."""

    slot: int


@dataclass(frozen=True)
class NewGradient:
    """What `.grad` of a leaf (a tensor, or the argument at a place) is after the call: an output, or this."""

    leaf: Tensor | int
    index: int | None
    fixed: Tensor | None


@dataclass(frozen=True)
class Backward:
    """How the gradients of the results follow: a graph, from what the forward graph keeps and the results' gradients.

    Attributes:
        graph: its inputs are the kept values, then a gradient for each of `results`; an output for each of `inputs`.
        kept: how many of the forward graph's outputs, the last ones, are kept for it.
        states: memory whose contents are among what is kept, so that it must not change before the backward pass.
        results: the numbers of the outputs that have gradients.
        inputs: tensors (or places among the arguments) that get gradients.
        used: for each of them, the number of the output that it gets, or None.
    """

    graph: Graph
    kept: int
    states: tuple[Storage, ...]
    results: tuple[int, ...]
    inputs: tuple[Tensor | int, ...]
    used: tuple[int | None, ...]


@dataclass(frozen=True)
class Trace:
    """What one call of the function does, for arguments of these specs.

    Attributes:
        graph: what it computes. Outputs: the results, new gradients of leaves, what the backward pass needs.
        sources: where the graph's inputs come from.
        template: what the function gave, with a `Result` in the place of each tensor.
        gradients: new `.grad`s.
        owners: for each output, a number that those which may share memory have in common.
        taken: what it takes for granted.
        cuts: where Python asked for contents, so that the graph is split there.
        steps: how numbers of the host follow from these contents.
        reads: contents that the host needs only for what is returned: the numbers of outputs, by values.
    """

    graph: Graph
    sources: tuple[Source, ...]
    template: Any
    gradients: tuple[NewGradient, ...]
    backward: Backward | None
    owners: tuple[int, ...]
    taken: Taken
    effects: tuple[Callable[[], Any], ...]
    once: bool
    draws: dict[Generator, int]
    cuts: tuple[Cut, ...]
    steps: list[Calculation]
    reads: dict[Value, int]

    def __repr__(self) -> str:
        return f"<trace of {self.graph!r}>"


@dataclass(frozen=True)
class Splitting:
    """Leave to split what is traced, and what is known of it from before.

    Attributes:
        board: where what Python reads is written.
        fetch: gives contents of values of the trace.
        path: what the function did the time before, up to a question that has another answer now.
    """

    board: Board
    fetch: Fetch
    path: Path


def trace(
    function: Callable[..., Any], args: Any, kwargs: Any, leaves: Sequence[Tensor], who: str,
    splitting: Splitting | None = None,
) -> Trace:  # fmt: skip
    """Run `function` on stand-ins for the tensors in its arguments, and record what it does.

    Args:
        leaves: the tensors in `args` and `kwargs`, in the order in which they come.
        splitting: without it, the function may not ask for contents of tensors.

    Raises:
        GraphError: Python asks for the contents of a tensor.
    """
    tracer = Tracer(who)
    if splitting is not None:
        tracer.splitter = Splitter(tracer, splitting.board, splitting.path, splitting.fetch)
    found = _traced(tracer, function, args, kwargs, leaves)
    if tracer.splitter is not None:
        tracer.splitter.check_kept()
    return found


def _traced(
    tracer: Tracer, function: Callable[..., Any], args: Any, kwargs: Any, leaves: Sequence[Tensor]
) -> Trace:  # fmt: skip
    numbers: dict[int, int] = {}
    for i, x in enumerate(leaves):
        numbers.setdefault(id(x), i)
    with tracer.running():
        made = {key: tracer.stand_in(leaves[i], i) for key, i in numbers.items()}
        given = {_value(x): x for x in made.values()}
        result = function(*mapped(args, lambda x: made[id(x)]), **mapped(kwargs, lambda x: made[id(x)]))
        return _Finish(tracer, made, given).finish(result)


def _value(x: Tensor) -> Value:
    value: Value = x.buffer
    return value


class _Finish:
    """What is read off a tracer when the function has returned, while it still traces."""

    def __init__(self, tracer: Tracer, made: dict[int, Tensor], given: dict[Value, Tensor]) -> None:
        self.tracer = tracer
        self.given = given
        self.outputs: list[Value] = []
        self.owners: list[Any] = []

    def finish(self, result: Any) -> Trace:
        tracer = self.tracer
        tracked: list[tuple[int, Tensor]] = []

        def note(x: Tensor) -> Result:
            if id(x) in tracer.stand_ins:
                return Result(-1, x.tracked, tracer.stand_ins[id(x)])
            if not tracer.is_traced(x) and type(x._buffer) is not Value:
                return Result(-1, x.tracked, x)
            index = self.output(x)
            has_history = x.tracked and x.node is not None and not _freed(x.node)
            if has_history and mode.enabled:
                tracked.append((index, x))
            return Result(index, has_history or (x.tracked and x.node is None), None)

        template = mapped(mapped(result, note), lambda n: HostResult(n.slot), Number)
        gradients = self.gradients()
        updates = self.updates()
        taken = tracer.taken()
        reads = self.reads()
        cut = len(tracer.nodes)
        backward = self.backward(tracked, updates, cut) if tracked else None
        inputs = tuple(tracer.sources)
        forward = Graph(inputs, tuple(tracer.nodes[:cut]), tuple(self.outputs), dict(tracer.constants), updates)
        owners: dict[Any, int] = {}
        return Trace(
            forward, tuple(tracer.sources.values()), template, gradients, backward,
            tuple(KEPT if isinstance(o, Value) else owners.setdefault(o, len(owners)) for o in self.owners),
            taken, tuple(tracer.effects), tracer.once, dict(tracer.draws),
            () if tracer.splitter is None else tuple(tracer.splitter.cuts),
            [] if tracer.splitter is None else tracer.splitter.steps, reads,
        )  # fmt: skip

    def reads(self) -> dict[Value, int]:
        """Let what Python read, and nothing depended on, be outputs; from here on nothing may be read."""
        splitter = self.tracer.splitter
        if splitter is None:
            return {}
        splitter.closed = True
        found = {}
        for value in splitter.pending:
            found[value] = len(self.outputs)
            self.outputs.append(value)
            self.owners.append(value)
        return found

    def output(self, x: Tensor) -> int:
        self.outputs.append(self.tracer.value_of(x))
        self.owners.append(id(x.storage))
        return len(self.outputs) - 1

    def gradients(self) -> tuple[NewGradient, ...]:
        tracer = self.tracer
        found = []
        for slot in tracer.slots.values():
            after, leaf = slot.leaf._grad, tracer.stand_ins.get(id(slot.leaf), slot.leaf)
            if after is None:
                if slot.before is not None or not slot.read:
                    found.append(NewGradient(leaf, None, None))
            elif tracer.is_traced(after) or type(after._buffer) is Value:
                found.append(NewGradient(leaf, self.output(after), None))
            elif slot.before is None or after.storage is not slot.before.storage:
                found.append(NewGradient(leaf, None, after))
        return tuple(found)

    def updates(self) -> dict[Value, Value]:
        tracer = self.tracer
        found = {value: _value(x) for value, x in self.given.items() if x.storage.buffer is not value}
        captured = {source.storage: v for v, source in tracer.sources.items() if isinstance(source, State)}
        for v, source in tracer.sources.items():
            if isinstance(source, GradientOf):
                leaf = source.leaf
                slot = next(s for s in tracer.slots.values() if tracer.stand_ins.get(id(s.leaf), s.leaf) is leaf)
                assert slot.before is not None
                captured[slot.before.storage] = v
        for storage in tracer.written:
            if tracer.contents[storage] is not captured[storage]:
                found[captured[storage]] = tracer.contents[storage]
        return found

    def backward(self, tracked: list[tuple[int, Tensor]], updates: dict[Value, Value], cut: int) -> Backward | None:
        """Trace the gradients of the results that have a history; what they need becomes outputs."""
        tracer = self.tracer
        inputs = list(tracer.boundary.values())
        if not inputs:
            return None
        starts = [Tensor(Value(x.spec, x.device, f"g{i}"), x.spec, x.device, CONSTANT) for i, x in tracked]
        with autocast(enabled=False):  # as for a backward pass outside of its block
            gs = grad_within([x for _, x in tracked], inputs, starts)
        nodes = tuple(tracer.nodes[cut:])
        wanted = [None if g is None else tracer.value_of(g) for g in gs]
        made = {out for node in nodes for out in node.outputs}
        outs = [v for v in wanted if v is not None]
        fresh = {_value(x) for x in starts}
        kept: dict[Value, None] = {}
        needed = live(nodes, outs)
        for v in (*(x for node in needed for x in node.inputs), *outs):
            if v not in made and v not in fresh and v not in tracer.constants:
                kept[v] = None
        numbers = iter(range(len(outs)))
        graph = Graph((*kept, *map(_value, starts)), needed, tuple(outs), constants_of(tracer, needed, outs))
        states = tuple(s.storage for v in kept if isinstance(s := tracer.sources.get(v), State))
        self.outputs += kept
        self.owners += kept  # which go to nobody
        return Backward(
            graph, len(kept), states, tuple(i for i, _ in tracked),
            tuple(tracer.stand_ins.get(id(x), x) for x in inputs),
            tuple(None if v is None else next(numbers) for v in wanted),
        )  # fmt: skip


def _freed(node: Recorded) -> bool:
    """Whether a backward pass was here, or in what this was computed from, so that there will be no other."""
    seen, waiting = {node}, [node]
    while waiting:
        node = waiting.pop()
        if node.released:
            return True
        before = {edge[0] for edge in node.edges if edge is not None and isinstance(edge[0], Recorded)} - seen
        seen |= before
        waiting += before
    return False


def live(nodes: Sequence[Node], outputs: Sequence[Value]) -> tuple[Node, ...]:
    """The nodes that the outputs need."""
    needed, found = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            found.append(node)
    return tuple(reversed(found))


def constants_of(tracer: Tracer, nodes: Sequence[Node], outputs: Sequence[Value]) -> dict[Value, Tensor]:
    used = {x for node in nodes for x in node.inputs} | set(outputs)
    return {v: t for v, t in tracer.constants.items() if v in used}
