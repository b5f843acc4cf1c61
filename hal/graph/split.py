"""Splits a trace where Python asks for contents of tensors: what was asked, where, and how often there is another way.

The trace goes on with the true answer. What was recorded before the question is one plan, what comes after it another,
which is good for that answer only.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import ref

from hal.device import Device
from hal.errors import GraphError
from hal.graph.graph import Node, Value
from hal.graph.host import Board, Calculation, Number, answer_key
from hal.source import Line, describe, user_line
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.graph.inputs import Source
    from hal.graph.taken import Taken
    from hal.graph.tracer import Tracer
    from hal.op import Array
    from hal.tensor import Tensor

Fetch = Callable[["Tracer", Sequence[Value]], "list[Array]"]


@dataclass(frozen=True, eq=False)
class Cut:
    """The end of a part of a trace.

    Attributes:
        nodes, sources, constants: how many of each the trace had.
        reads: values whose contents the host has from here on.
        slot: the number on the board that was asked for; None: nothing was, but what comes needs the contents.
        who, line: what asked, and the user's line.
        taken: what the trace took for granted until here.
    """

    nodes: int
    sources: int
    constants: int
    reads: tuple[Value, ...]
    slot: int | None
    who: str
    line: Line | None
    taken: Taken

    def __str__(self) -> str:
        return f"{describe(self.line)}: {self.who}"


@dataclass(frozen=True)
class Path:
    """The beginning of a trace that is known, and which a new one is to repeat.

    Attributes:
        answers: what the host knows after it, from which the new trace goes on.
    """

    nodes: Sequence[Node] = ()
    sources: Sequence[tuple[Value, Source]] = ()
    constants: Sequence[tuple[Value, Tensor]] = ()
    cuts: Sequence[Cut] = ()
    answers: Sequence[Any] = field(default=())


class KeptError(GraphError):
    """A function that is split keeps what it read somewhere else than in its results."""


class StrayedError(GraphError):
    """A function that is split does not do the same when it is traced a second time."""


class Splitter:
    """What a trace knows of the host, if it may be split.

    Attributes:
        board: contents and numbers of the call that is traced.
        steps: how the numbers follow from the contents, one after another.
        cuts: where the trace is split.
        pending: values that Python has a number of, but nobody has looked at.
    """

    def __init__(self, tracer: Tracer, board: Board, path: Path, fetch: Fetch) -> None:
        self.tracer = tracer
        self.board = board
        self.path = path
        self.fetch = fetch
        self.steps: list[Calculation] = []
        self.cuts: list[Cut] = []
        self.pending: dict[Value, None] = {}
        self.asked: set[int] = set()
        self.closed = self.over = False
        self._numbers: list[tuple[ref[Number], str, Line | None]] = []
        board.clear()
        board.values.extend(path.answers)

    def read(self, x: Tensor, who: str) -> Any:
        """The one element of a tensor as a number that is read anew in each call; a bool is asked for at once."""
        value = self._pend(x, who)
        arrays = self.board.arrays
        number = self.note(lambda values: arrays[value].item(), who)
        return number if x.dtype.kind != "bool" else number.asked()

    def contents(self, x: Tensor, who: str) -> Array:
        """The contents of a tensor; a call in which they are others goes another way from here on."""
        value = self._pend(x, who)
        arrays = self.board.arrays
        array: Array = self.note(lambda values: arrays[value], who).asked()
        return array

    def _pend(self, x: Tensor, who: str) -> Value:
        if self.closed:
            raise GraphError(
                f"{who} needs the contents of a tensor at {describe(user_line())} while the gradients of "
                f"{self.tracer.who} are traced: let it run eagerly with hal.compile(..., fallback=True)"
            )
        value = self.tracer.value_of(x)
        self.pending[value] = None
        return value

    def who(self, slot: int) -> str:
        """What asked for the contents that a number comes from."""
        return self._numbers[slot][1]

    def note(self, calculation: Calculation, who: str) -> Number:
        """A number that is calculated anew in each call."""
        self.steps.append(calculation)
        number = Number(self, len(self.steps) - 1)
        self._numbers.append((ref(number), who, user_line()))
        return number

    def value(self, slot: int) -> Any:
        """What a number is in the call that is traced."""
        if slot >= len(self.board.values):
            waiting = [v for v in self.pending if v not in self.board.arrays]
            if waiting:
                self.board.arrays.update(zip(waiting, self.fetch(self.tracer, waiting), strict=True))
        return self.board.value(slot, self.steps)

    def ask(self, slot: int) -> Any:
        """What a number is; the trace is good for this answer only."""
        if self.over:
            raise GraphError(f"a number that {self.who(slot)} gave while {self.tracer.who} was traced has no value now")
        value = self.value(slot)
        if slot not in self.asked:
            self.asked.add(slot)
            self._cut(slot)
        return value

    def operand(self, slot: int, spec: Spec, device: Device) -> Tensor:
        """A number as a 0-d tensor, which is an input of what comes."""
        self.value(slot)
        if self.pending:
            self._cut(None)
        board, steps = self.board, self.steps
        from hal.creation import scalar_array  # makes tensors, and is built on what this file is a part of

        return self.tracer.computed(lambda: scalar_array(board.value(slot, steps), spec), spec, device, (board, slot))

    def _cut(self, slot: int | None) -> None:
        _, who, line = self._numbers[-1 if slot is None else slot]
        tracer = self.tracer
        cut = Cut(
            len(tracer.nodes), len(tracer.sources), len(tracer.constants), tuple(self.pending), slot, who, line,
            tracer.taken(),
        )  # fmt: skip
        if len(self.cuts) < len(self.path.cuts):
            known = self.path.cuts[len(self.cuts)]
            if (known.nodes, known.slot, known.reads) != (cut.nodes, cut.slot, cut.reads):
                self.strayed(line)
            cut = known
        self.cuts.append(cut)
        self.pending = {}

    def check_kept(self) -> None:
        """Raise KeptError if Python has kept a number after the function has returned: a replay would not renew it."""
        self.over = True
        if any(number() is not None for number, _, _ in self._numbers):
            gc.collect()
        for number, who, line in self._numbers:
            if number() is None:
                continue
            raise KeptError(
                f"{self.tracer.who} keeps a number that {who} gave at {describe(line)} beyond its end, where no later "
                "call would renew it: return it, and keep it outside; or let the function run eagerly with "
                "hal.compile(..., fallback=True)"
            )

    # The beginning, which is the same as the time before.

    def known_node(self, node: Node) -> Node:
        """The node of the known path in place of an equal new one; itself beyond that."""
        at = len(self.tracer.nodes)
        if at >= len(self.path.nodes):
            return node
        known = self.path.nodes[at]
        if (known.op, known.inputs, known.device) != (node.op, node.inputs, node.device) or (
            known.settings != node.settings
        ):
            self.strayed(node.where)
        return known

    def known_source(self, value: Value, source: Source) -> Value:
        """The value of the known path in place of a new one."""
        at = len(self.tracer.sources)
        if at >= len(self.path.sources):
            return value
        known, old = self.path.sources[at]
        if known.spec is not value.spec or known.device is not value.device or not old.same(source):
            self.strayed(user_line())
        return known

    def known_constant(self, value: Value, tensor: Tensor) -> Value:
        """The constant of the known path in place of a new one."""
        at = len(self.tracer.constants)
        if at >= len(self.path.constants):
            return value
        known, old = self.path.constants[at]
        if known.spec is not value.spec or known.device is not value.device:
            self.strayed(user_line())
        if old is not tensor and _bytes(old) != _bytes(tensor):
            self.strayed(user_line())
        return known

    def strayed(self, line: Line | None) -> None:
        """Raise StrayedError: Python does not do the same a second time."""
        raise StrayedError(
            f"{self.tracer.who} does something else at {describe(line)} than when it was traced before, though it was "
            "given the same: it cannot be split; let it run eagerly with hal.compile(..., fallback=True)"
        )


def _bytes(x: Tensor) -> bytes:
    return x.device.backend.download(x.buffer, x.spec).tobytes()


def answer_of(cut: Cut, board: Board, steps: list[Calculation]) -> Hashable:
    """What was answered to the question at the end of a part, in this call."""
    return None if cut.slot is None else answer_key(board.value(cut.slot, steps))
