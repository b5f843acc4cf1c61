"""The command stream: what the compiler emits, the machine runs and the timeline shows. Commands name their ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from hal_systolic.config import Machine

# Commands run in order on the unit that they belong to, and units wait for each other only where ranges meet.
# fmt: off
UNIT_OF = {
    "DMA_IN":   "dma-in",    # device memory to a buffer
    "DMA_OUT":  "dma-out",   # a buffer to device memory
    "HOST_IN":  "host-in",   # host to a buffer or to device memory
    "HOST_OUT": "host-out",  # a buffer or device memory to the host
    "FETCH_W":  "fetch",     # device memory to the weight FIFO
    "LOAD_W":   "loader",    # FIFO or buffer to the array: a run of tiles of the stationary operand
    "MATMUL":   "matrix",    # the streamed operand through these tiles, into the accumulators
    "ACT":      "vector",    # accumulators through the vector unit to a buffer
    "VEC":      "vector",    # a buffer through the vector unit to a buffer
    "PAUSE":    "host-in",   # nothing starts: the host is busy
}
# fmt: on
UNITS = ("host-in", "dma-in", "fetch", "loader", "matrix", "vector", "dma-out", "host-out")


class Range(NamedTuple):
    """Bytes `start` to `stop` of a memory: act, weight, acc, dram or host."""

    memory: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.memory}[{self.start:#x}:{self.stop:#x}]"


class Command(NamedTuple):
    """One command.

    Attributes:
        op: its name, a key of `UNIT_OF`.
        layer: what it works for.
        reads: the ranges that it reads.
        writes: the ranges that it writes.
        after: the commands that must be done before it, and the memory in which their ranges meet its own.
        tiles: LOAD_W, FETCH_W, MATMUL: how many tiles the run has.
        rows: MATMUL: rows of the streamed operand a tile; with `os`, products a processing element and fold.
        issue: MATMUL: cycles a tile in which rows enter the array.
        columns: MATMUL: columns of results that it has; the rest of the array is padding.
        nbytes: what a transfer moves; FETCH_W: bytes of one tile; LOAD_W, MATMUL: bytes read from a buffer.
        elements: ACT, VEC: elements that pass the vector unit.
        ops: ACT, VEC: operations an element.
        macs: MATMUL: useful products.
        accumulate: MATMUL: whether it adds to what the accumulators hold.
        cycles: PAUSE: how long.
        role: transfers: the operand's part in the work: activations, weights or results.
        what: a word for the reader: the function of a VEC, the operand of a transfer.
    """

    op: str
    layer: str
    reads: tuple[Range, ...] = ()
    writes: tuple[Range, ...] = ()
    after: tuple[tuple[int, str], ...] = ()
    tiles: int = 0
    rows: int = 0
    issue: float = 0.0
    columns: int = 0
    nbytes: int = 0
    elements: int = 0
    ops: float = 0.0
    macs: int = 0
    accumulate: bool = False
    cycles: float = 0.0
    role: str = ""
    what: str = ""

    @property
    def unit(self) -> str:
        """The unit that runs it."""
        return UNIT_OF[self.op]

    def __str__(self) -> str:
        return f"{self.op:8} {', '.join(self._words())}"

    def _words(self) -> Iterator[str]:
        if self.what:
            yield self.what
        if self.writes:
            yield " ".join(map(str, self.writes)) + (" +=" if self.accumulate else " <-")
        if self.reads:
            yield " ".join(map(str, self.reads))
        for name, value in (
            ("tiles", self.tiles), ("rows", self.rows), ("bytes", self.nbytes), ("elements", self.elements),
            ("ops", self.ops), ("cycles", self.cycles),
        ):  # fmt: skip
            if value:
                yield f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"


@dataclass(frozen=True)
class Program:
    """A command stream for one machine.

    Attributes:
        commands: in the order in which the units take them.
        layers: the names of the layers, in the order of their first work.
    """

    machine: Machine
    commands: tuple[Command, ...]
    layers: tuple[str, ...]

    def text(self) -> str:
        """The stream as text: a command a line, with what it waits for."""
        return "\n".join(lines(self.commands))


def lines(commands: Iterable[Command]) -> Iterator[str]:
    """Each command with its number, and a line above wherever another layer begins."""
    layer: str | None = None
    for index, command in enumerate(commands):
        if command.layer != layer:
            layer = command.layer
            yield f"# {layer or 'no layer'}"
        waits = f"  ; after {' '.join(str(i) for i, _ in command.after)}" if command.after else ""
        yield f"{index:6} {command}{waits}"
