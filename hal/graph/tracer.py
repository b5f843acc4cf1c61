"""The tracer: stands where kernels would run, and records what they would have been called with.

Tensors that are made in a trace have a `Value` for a buffer. Those that were there before are not touched: what the
function would write into them is kept in a table beside them (`contents`), as a value, and becomes an update of the
graph. So a trace has no effects, and in-place changes, views and histories all work as they do eagerly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hal import tracing
from hal.device import Device, chosen
from hal.errors import GraphError
from hal.graph.graph import COPY, Node, Value
from hal.graph.inputs import Argument, Computed, GradientOf, Source, State
from hal.graph.taken import Taken
from hal.op import Array, Op
from hal.placement import is_constant
from hal.recording import mode, next_order, record
from hal.source import Line, describe, user_line
from hal.spec import Spec
from hal.tensor import CONSTANT, Origin, Storage, Tensor
from hal.views import strides, strides_as

if TYPE_CHECKING:
    from hal.decision import Decision
    from hal.graph.split import Splitter
    from hal.random import Generator
    from hal.recording import Node as Recorded


@dataclass
class Slot:
    """The `.grad` of a leaf in a trace: what it was before, and whether the function looked at that."""

    leaf: Tensor
    before: Tensor | None
    read: bool


_one_at_a_time = threading.RLock()


class Tracer:
    """One trace, of one function, in one thread.

    Attributes:
        nodes: what was recorded so far.
        sources: the graph's inputs, and where each comes from.
        constants: values that are the same in every call.
        contents: what is, at this point of the function, in the memory of tensors that were there before.
        tensors: tensors that were there before, with the memory and the switch for gradients that they had.
        effects, guards, attributes, once: see `hal.tracing`.
        draws: how far each generator has moved on.
        splitter: what may be asked of the host, if the function may be split there.
        parts: the devices of the parts of a model that run at this point and were placed by `hal.place`.
    """

    def __init__(self, who: str) -> None:
        self.who = who
        self.thread = threading.get_ident()
        self.suspended = 0
        self.nodes: list[Node] = []
        self.sources: dict[Value, Source] = {}
        self.constants: dict[Value, Tensor] = {}
        self.contents: dict[Storage, Value] = {}
        self.written: dict[Storage, tuple[Tensor, int]] = {}
        self.tensors: dict[int, tuple[Tensor, Storage, bool]] = {}
        self.slots: dict[int, Slot] = {}
        self.stand_ins: dict[int, int] = {}
        self.boundary: dict[tuple[Any, int], Tensor] = {}
        self.splitter: Splitter | None = None
        self.once = False
        self.effects: list[Callable[[], Any]] = []
        self.guards: list[tuple[Callable[[], Hashable], Hashable]] = []
        self.attributes: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        self.draws: dict[Generator, int] = {}
        self.parts: list[Device] = []
        self._views: dict[int, tuple[Value, Value, Tensor]] = {}
        self._numbers: dict[tuple[Any, ...], Tensor] = {}
        self._histories: list[tuple[Tensor, Any, int, bool]] = []
        self._pinned: set[Recorded] = set()  # whose gradients are pinned as well
        self._start = next_order()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Trace what this thread does inside the block; afterwards everything is as it was."""
        with _one_at_a_time:
            yield from self._run()

    def _run(self) -> Iterator[None]:
        outer, tracing.tracer = tracing.tracer, self  # one that is suspended, inside of `eagerly`
        lines, mode.lines = mode.lines, True
        try:
            yield
        finally:
            tracing.tracer = outer
            mode.lines = lines
            for storage, (_, version) in self.written.items():
                storage.version = version
            for slot in self.slots.values():
                slot.leaf._grad = slot.before
            for tensor, node, index, tracked in reversed(self._histories):
                tensor.node, tensor.index, tensor.tracked = node, index, tracked

    # Values of tensors.

    def is_traced(self, x: Tensor) -> bool:
        """Whether `x` has memory that exists in the trace only."""
        return type(x.storage.buffer) is Value

    def stand_in(self, x: Tensor, index: int) -> Tensor:
        """What the function is given in place of its argument `x`."""
        value = self._input(Value(x.spec, x.device, f"x{index}"), Argument(index))
        out = Tensor(value, x.spec, x.device, x.origin)
        out.tracked = x.tracked
        out._grad = x._grad
        self.stand_ins[id(out)] = index
        return out

    def value_of(self, x: Tensor) -> Value:
        """What is in the memory of `x` at this point of the function."""
        storage = x.storage
        if type(storage.buffer) is Value:
            return x.buffer
        if x.parent is not None:
            return self._view(x)
        if type(x._buffer) is Value:  # the result of a recorded view, which autodiff made again
            return x._buffer
        found = self.contents.get(storage)
        if found is None:
            found = self.contents[storage] = self._capture(x)
        elif id(x) not in self.tensors and not is_constant(x):
            self.tensors[id(x)] = (x, storage, x.tracked)
        return found

    def _capture(self, x: Tensor, source: Source | None = None) -> Value:
        if is_constant(x):
            return self._constant(x)
        if type(x.storage.buffer) is type(None):
            raise GraphError(f"{self.who} uses a tensor that has no contents")
        if source is None:
            self.tensors[id(x)] = (x, x.storage, x.tracked)
        return self._input(Value(x.spec, x.device), source or State(x.storage))

    def _input(self, value: Value, source: Source) -> Value:
        if self.splitter is not None:
            value = self.splitter.known_source(value, source)
        self.sources[value] = source
        return value

    def _constant(self, x: Tensor) -> Value:
        value = Value(x.spec, x.device)
        if self.splitter is not None:
            value = self.splitter.known_constant(value, x)
        self.constants[value] = x
        return value

    def _record(self, node: Node) -> tuple[Value, ...]:
        if self.splitter is not None:
            node = self.splitter.known_node(node)
        self.nodes.append(node)
        return node.outputs

    def _view(self, x: Tensor) -> Value:
        root = x
        while root.parent is not None:
            root = root.parent
        now = self.value_of(root)
        known = self._views.get(id(x))
        if known is not None and known[0] is now:
            return known[1]
        from hal import dispatch
        from hal.recording import no_grad

        op, settings = x.made_by
        with no_grad():
            value = self.value_of(dispatch.run(op, (x.parent,), dict(settings)))
        self._views[id(x)] = (now, value, x)
        return value

    # What happens instead of running.

    def emit(self, op: Op, device: Device, args: tuple[Tensor, ...], decision: Decision) -> Any:
        """Record a call of `op`, and answer with tensors that stand for its results."""
        inputs = tuple([self.value_of(x) for x in args])
        where = self._line()
        pinned = not args or self._asked(device)
        made = tuple([Value(s, device) for s in decision.specs])
        values = self._record(Node(op, inputs, decision.settings, made, where, device, pinned))
        origin = args[0].origin if args else Origin(1, where)
        outs = tuple([Tensor(v, v.spec, device, origin) for v in values])
        if decision.view:
            self._link(outs[0], values[0], args[0], op, decision.settings)
        if decision.records and mode.enabled and any(x.tracked for x in args):
            record(op, args, outs, decision.settings)
            if pinned:
                self._pinned.update(out.node for out in outs if out.node is not None)
        return outs if decision.spec is None else outs[0]

    def _asked(self, device: Device) -> bool:
        """Whether the user wants in so many words that what is recorded now runs on `device`."""
        if device is chosen() or (self.parts and self.parts[-1] is device):
            return True
        return mode.gradient_of in self._pinned and mode.gradient_of.outs[0][3] is device

    def _link(self, out: Tensor, value: Value, parent: Tensor, op: Op, settings: dict[str, Any]) -> None:
        if op.name == "reshape" and strides_as(parent.shape, strides(parent), out.shape) is None:
            return
        out.storage = parent.storage
        out._generation = parent.storage.generation
        out.parent, out.made_by, out.seen = parent, (op, settings), parent.node
        if not self.is_traced(parent):
            root = parent
            while root.parent is not None:
                root = root.parent
            self._views[id(out)] = (self.value_of(root), value, out)

    def recorded(self, inputs: tuple[Tensor, ...]) -> None:
        """Note the tensors that a recorded operation took from outside: gradients of the function end there."""
        for x in inputs:
            if x.tracked:
                if x.node is None:
                    self.boundary.setdefault((x, 0), x)
                elif x.node.order < self._start:
                    self.boundary.setdefault((x.node, x.index), x)

    def _line(self) -> Line | None:
        of = mode.gradient_of
        return of.line if of is not None and of.line is not None else user_line(3)

    def copy(self, x: Tensor, device: Device, asked: bool = False) -> Value:
        """Record a copy of `x` to another device; whether the user asked for it decides if it may be left out."""
        source = self.value_of(x)
        made = (Value(x.spec, device),)
        return self._record(Node(COPY, (source,), {"device": device}, made, self._line(), device, asked))[0]

    def barrier(self, x: Tensor) -> Tensor:
        """`x` under another name, so that what is computed from it is computed again and not shared."""
        return Tensor(self.copy(x, x.device), x.spec, x.device, x.origin)

    def constant(self, array: Array, spec: Spec, device: Device) -> Value:
        """What the function uploads while it is traced is the same in every call."""
        return self._constant(Tensor(device.backend.upload(array, device), spec, device, CONSTANT))

    def computed(self, compute: Callable[[], Array], spec: Spec, device: Device, key: Any) -> Tensor:
        """A tensor whose contents Python computes anew before each call."""
        known = (key, spec, device)
        if known not in self._numbers:
            value = self._input(Value(spec, device), Computed(compute, spec, device))
            self._numbers[known] = Tensor(value, spec, device, CONSTANT)
        return self._numbers[known]

    def random_state(self, generator: Generator, count: int, spec: Spec, device: Device, origin: Origin) -> Tensor:
        """The state of a generator from which each call draws `count` times 64 bits, and after which it goes on."""
        offset = self.draws.get(generator, 0)
        self.draws[generator] = offset + count
        out = self.computed(lambda: generator.state_after(offset), spec, device, (generator, offset))
        out.origin = origin
        return out

    def store(self, target: Tensor, value: Tensor) -> None:
        """Let `value` be what is in the memory of `target`, which is no view."""
        storage, new = target.storage, self.value_of(value)
        if type(storage.buffer) is Value:
            storage.buffer = new
            storage.version += 1
            storage.generation += 1
            return
        self.value_of(target)  # it was there before, so that it is an input
        self.written.setdefault(storage, (target, storage.version))
        self.contents[storage] = new
        storage.version += 1

    def make_room(self) -> None:
        """Let what was there before wait on the host, since a device is too full for what is made now."""
        from hal.schedule.waiting import make_room  # most devices never are

        make_room(x for x, _, _ in self.tensors.values())

    def remember(self, x: Tensor) -> None:
        """Note the history of a tensor that was there before, which is about to get another one."""
        if not self.is_traced(x):
            self._histories.append((x, x.node, x.index, x.tracked))

    # Gradients of leaves.

    def grad_read(self, leaf: Tensor) -> None:
        """The function looks at `leaf.grad`."""
        if id(leaf) in self.slots or (self.is_traced(leaf) and id(leaf) not in self.stand_ins):
            return
        before = leaf._grad
        self.slots[id(leaf)] = Slot(leaf, before, True)
        if before is not None and before.parent is None and before.storage not in self.contents:
            source = GradientOf(self.stand_ins.get(id(leaf), leaf))
            self.contents[before.storage] = self._capture(before, source)

    def grad_write(self, leaf: Tensor) -> None:
        """The function sets `leaf.grad`."""
        if id(leaf) not in self.slots and (not self.is_traced(leaf) or id(leaf) in self.stand_ins):
            self.slots[id(leaf)] = Slot(leaf, leaf._grad, False)

    # Contents.

    def known_contents(self, x: Tensor) -> Tensor | None:
        """The constant that `x` is, if it is one."""
        if is_constant(x):
            return x
        value = x._buffer if type(x._buffer) is Value else self.contents.get(x.storage)
        return self.constants.get(value) if value is not None else None

    def look(self, x: Tensor, who: str) -> Splitter:
        """What gives Python the contents of a tensor while there are none: by splitting the function there.

        Raises:
            GraphError: it may not be split.
        """
        if self.splitter is not None:
            return self.splitter
        raise GraphError(
            f"{who} needs the contents of a tensor, shape {x.shape}, while {self.who} is traced at "
            f"{describe(user_line())}: what a compiled function does cannot depend on them; return the tensor and "
            "look at it outside, choose with hal.where, have the function split there with hal.compile(..., "
            "split=True), or let it run eagerly with hal.compile(..., fallback=True)"
        )

    def taken(self) -> Taken:
        """What was taken for granted so far."""
        return Taken(
            tuple(self.tensors.values()), tuple(self.attributes.values()),
            tuple((self.stand_ins.get(id(s.leaf), s.leaf), s.before) for s in self.slots.values() if s.read),
            tuple(self.guards),
        )  # fmt: skip
