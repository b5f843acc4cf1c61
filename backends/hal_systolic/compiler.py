"""The compiler: work descriptions in, a command stream out. It cuts, places, double-buffers, and computes hazards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

from hal_systolic.blocks import Product
from hal_systolic.config import Machine
from hal_systolic.hazards import Hazards
from hal_systolic.residency import ALIGNMENT, Residency, Resident
from hal_systolic.stream import UNIT_OF, Command, Program, Range
from hal_systolic.tiling import STREAM_SHARE, Problem, Tiling, problem
from hal_systolic.work import Matmul, Operand, Pause, Transfer, Vector, Work

HOST_PARTS = 8  # of an input that comes from the host

Choose = Callable[[Problem, Machine, tuple[bool, bool, bool], tuple[bool, bool]], Tiling]


def compile_work(work: Sequence[Work], machine: Machine, choose: Choose | None = None) -> Program:
    """The command stream that does `work` on `machine`, in that order.

    A tensor that the work reads first lies in memory off the chip; one that it writes and never reads again is written
    back there; one that is used up is dropped. What fits stays on the chip from one piece of work to the next.

    Args:
        choose: decides on the tiling of a product, told which operands pass in slices (streamed, stationary, result),
            and which are not on the chip yet; the default takes the cheapest by the cost model.

    Raises:
        ConfigError: a piece of work does not fit the machine at all.
    """
    if machine.compat == "scalesim":
        return _without_memory(work, machine)
    return Compiler(work, machine, choose or _cheapest).program()


def _cheapest(p: Problem, machine: Machine, streams: tuple[bool, bool, bool], cold: tuple[bool, bool]) -> Tiling:
    from hal_systolic.cost import cheapest

    return cheapest(p, machine, streams, cold)


def _operands(work: Work) -> tuple[tuple[Operand, ...], tuple[Operand, ...]]:
    """What a piece of work reads, and what it writes."""
    match work:
        case Matmul():
            return (work.a, work.b), (work.out,)
        case Vector():
            return work.inputs, work.outputs
        case Transfer():
            return ((), (work.operand,)) if work.to_device else ((work.operand,), ())
    return (), ()


class Compiler:
    """The state of one compilation: the stream so far, what lies where, and which half of the accumulators is next."""

    def __init__(self, work: Sequence[Work], machine: Machine, choose: Choose) -> None:
        self.work, self.machine, self.choose = work, machine, choose
        self.commands: list[Command] = []
        self.hazards = Hazards()
        self.layer = ""
        self.step = 0
        self.uses: dict[int, list[int]] = {}
        self.reads: dict[int, list[int]] = {}
        self.sizes: dict[int, int] = {}  # of the largest view of a tensor that the work takes
        for step, piece in enumerate(work):
            inputs, outputs = _operands(piece)
            for operand in (*inputs, *outputs):
                self.uses.setdefault(operand.key, []).append(step)
                self.sizes[operand.key] = max(self.sizes.get(operand.key, 0), operand.nbytes)
            for operand in inputs:
                self.reads.setdefault(operand.key, []).append(step)
        stream = int(machine.act.nbytes * STREAM_SHARE)
        self.act = Residency("act", stream, machine.act.nbytes, self.uses)
        self.weight = Residency("weight", machine.weight.nbytes // 2, machine.weight.nbytes, self.uses)
        self.homes: dict[tuple[int, str], int] = {}
        self.ends: dict[str, int] = {}
        self.newest: dict[int, str] = {}  # memory off the chip that has a tensor which the work itself wrote
        self.operands: dict[int, Operand] = {}
        self.half = 0  # of the accumulators, for the next block of results

    def program(self) -> Program:
        """Compile all of the work."""
        names: dict[str, None] = {}
        for step, piece in enumerate(self.work):
            self.step, self.layer = step, piece.layer
            names[piece.layer] = None
            inputs, outputs = _operands(piece)
            self.operands.update({operand.key: operand for operand in (*inputs, *outputs)})
            match piece:
                case Matmul():
                    self._matmul(piece)
                case Vector():
                    self._vector(piece)
                case Transfer():
                    self._transfer(piece)
                case Pause():
                    everything = tuple((i, "") for i in self._last_of_units())
                    self.commands.append(Command("PAUSE", self.layer, after=everything, cycles=piece.cycles))
            for operand in dict.fromkeys((*inputs, *outputs)):
                self._retire(operand)
        return Program(self.machine, tuple(self.commands), tuple(names))

    # --- commands -----------------------------------------------------------------------------------------------------

    def emit(self, op: str, reads: tuple[Range, ...] = (), writes: tuple[Range, ...] = (), **fields: Any) -> None:
        """Add a command, with what it must wait for."""
        after = self.hazards.after(len(self.commands), UNIT_OF[op], reads, writes)
        self.commands.append(Command(op, self.layer, reads, writes, after, **fields))

    def _last_of_units(self) -> list[int]:
        last = {command.unit: i for i, command in enumerate(self.commands)}
        return sorted(last.values())

    # --- memory off the chip ------------------------------------------------------------------------------------------

    def _home(self, operand: Operand) -> str:
        """Where a tensor lies off the chip: with a weight FIFO, device memory is for weights."""
        if operand.key in self.newest:
            return self.newest[operand.key]
        return "host" if self.machine.weight_fifo_tiles and not operand.weight else "dram"

    def off_chip(self, operand: Operand, memory: str, low: int, high: int) -> Range:
        """Where bytes of a tensor lie in device memory or on the host; a place is given when first asked for."""
        place = (operand.key, memory)
        if place not in self.homes:
            self.homes[place] = self.ends.get(memory, 0)
            self.ends[memory] = self.homes[place] + ceil(max(self.sizes[operand.key], 1) / ALIGNMENT) * ALIGNMENT
        start = self.homes[place]
        return Range(memory, start + low, start + high)

    def load(self, operand: Operand, low: int, high: int, target: Range) -> None:
        """Bring bytes of a tensor into a buffer."""
        home = self._home(operand)
        source = self.off_chip(operand, home, low, high)
        op = "HOST_IN" if home == "host" else "DMA_IN"
        role = "weights" if operand.weight else "activations"
        self.emit(op, (source,), (target,), nbytes=high - low, role=role, what=f"t{operand.key}")

    def store(self, operand: Operand, low: int, high: int, source: Range, home: str | None = None) -> None:
        """Write bytes of a tensor back, to where it lies or to `home`."""
        home = home or self._home(operand)
        target = self.off_chip(operand, home, low, high)
        op = "HOST_OUT" if home == "host" else "DMA_OUT"
        self.emit(op, (source,), (target,), nbytes=high - low, role="results", what=f"t{operand.key}")
        self.newest[operand.key] = home

    def _evict(self, resident: Resident) -> None:
        """Write a tensor back, if it is wanted again or is a result."""
        if resident.dirty:
            source = Range("act", resident.start, resident.start + resident.loaded)
            self.store(self.operands[resident.key], 0, resident.loaded, source)
            resident.dirty = False

    def _retire(self, operand: Operand) -> None:
        """Drop a tensor that no later work uses; a result that nothing read is written back first."""
        uses, reads = self.uses[operand.key], self.reads.get(operand.key, [-1])
        if uses[-1] > self.step:
            return
        resident = self.act.get(operand.key)
        if resident is not None and reads[-1] < self.step:
            self._evict(resident)
        self.act.drop(operand.key)
        self.weight.drop(operand.key)

    # --- slices of operands -------------------------------------------------------------------------------------------

    def _place(self, operand: Operand, locked: frozenset[int], *, output: bool = False) -> Resident | None:
        """Room for all of a tensor in the activation buffer, if there is any; a result is there as a whole."""
        resident = self.act.get(operand.key)
        if resident is None:
            resident = self.act.place(operand.key, self.sizes[operand.key], self.step, locked, self._evict)
        if resident is not None and output:
            resident.loaded, resident.dirty = max(resident.loaded, operand.nbytes), True
            self.weight.drop(operand.key)
        return resident

    def resident_slice(self, store: Residency, resident: Resident, operand: Operand, low: int, high: int) -> Range:
        """Bytes of a tensor that stays in a buffer; what is not there yet is loaded, up to `high`."""
        if high > resident.loaded:
            target = Range(store.memory, resident.start + resident.loaded, resident.start + high)
            self.load(operand, resident.loaded, high, target)
            resident.loaded = high
        return Range(store.memory, resident.start + low, resident.start + high)

    # --- products -----------------------------------------------------------------------------------------------------

    def _matmul(self, work: Matmul) -> None:
        p = problem(work, self.machine)
        if not (p.m and p.k and p.n and p.count):
            return
        locked = frozenset((p.streamed.key, p.stationary.key, p.out.key))
        out = self._place(p.out, locked, output=True)
        streamed = self._place(p.streamed, locked)
        stationary = self._stationary(p.stationary, locked)
        streams = (streamed is None, stationary is None, out is None)
        cold = (
            streamed is None or streamed.loaded < streamed.nbytes,
            stationary is None or stationary[1].loaded < stationary[1].nbytes,
        )
        tiling = self.choose(p, self.machine, streams, cold)
        Product(self, p, tiling, streamed, stationary, out).emit()

    def _stationary(self, operand: Operand, locked: frozenset[int]) -> tuple[Residency, Resident] | None:
        """Where the stationary operand stays: nowhere if it comes through the FIFO."""
        if self.machine.weight_fifo_tiles:
            resident = self.act.get(operand.key)
            if resident is not None and resident.dirty:  # it must pass the memory that the FIFO reads
                source = Range("act", resident.start, resident.start + operand.nbytes)
                self.store(operand, 0, operand.nbytes, source, "dram")
            elif self._home(operand) == "host":
                source = self.off_chip(operand, "host", 0, operand.nbytes)
                target = self.off_chip(operand, "dram", 0, operand.nbytes)
                self._move("HOST_IN", source, target, operand, "weights")
                self.newest[operand.key] = "dram"
            return None
        in_act = self.act.get(operand.key)
        if in_act is not None:
            return self.act, in_act
        store = self.weight if self.machine.weight.nbytes else self.act
        resident = store.get(operand.key)
        if resident is None:
            resident = store.place(operand.key, self.sizes[operand.key], self.step, locked, self._evict)
        return (store, resident) if resident is not None else None

    # --- the vector unit ----------------------------------------------------------------------------------------------

    def _vector(self, work: Vector) -> None:
        inputs, outputs = dict.fromkeys(work.inputs), dict.fromkeys(work.outputs)
        locked = frozenset(operand.key for operand in (*inputs, *outputs))
        placed: dict[int, Resident | None] = {o.key: self._place(o, locked) for o in inputs}
        placed.update({o.key: self._place(o, locked, output=o not in inputs) for o in outputs})
        passing = [o for o in dict.fromkeys((*inputs, *outputs)) if placed[o.key] is None]
        room = int(self.machine.act.nbytes * STREAM_SHARE)
        parts = ceil(2 * sum(o.nbytes + 2 * ALIGNMENT for o in passing) / room) if passing else 1
        loading = any(r is not None and r.loaded < r.nbytes for r in placed.values())
        parts = max(parts, min(4, ceil(work.elements / 4096)) if passing or loading else 1)
        offsets, at = {}, 0
        for operand in passing:
            size = ceil(ceil(operand.nbytes / parts) / ALIGNMENT) * ALIGNMENT
            offsets[operand.key], at = (at, size), at + 2 * size
        for part in range(parts):
            reads, writes = [], []
            for operand in dict.fromkeys((*inputs, *outputs)):
                low, high = operand.nbytes * part // parts, operand.nbytes * (part + 1) // parts
                resident = placed[operand.key]
                if resident is None:
                    start = offsets[operand.key][0] + part % 2 * offsets[operand.key][1]
                    span = Range("act", start, start + high - low)
                    if operand in inputs:
                        self.load(operand, low, high, span)
                else:
                    span = self.resident_slice(self.act, resident, operand, low, high)
                if operand in inputs:
                    reads.append(span)
                if operand in outputs:
                    writes.append(span)
            elements = work.elements * (part + 1) // parts - work.elements * part // parts
            self.emit("VEC", tuple(reads), tuple(writes), elements=elements, ops=work.ops, what=work.op)
            for operand, span in zip(outputs, writes, strict=True):
                if placed[operand.key] is None:
                    low, high = operand.nbytes * part // parts, operand.nbytes * (part + 1) // parts
                    self.store(operand, low, high, span)
        for operand in outputs:
            resident = placed[operand.key]
            if resident is not None:
                resident.dirty = True
            self.weight.drop(operand.key)

    # --- the host -----------------------------------------------------------------------------------------------------

    def _transfer(self, work: Transfer) -> None:
        operand, resident = work.operand, self.act.get(work.operand.key)
        on_host = self.off_chip(operand, "host", 0, operand.nbytes)
        if work.to_device:
            self.act.drop(operand.key)
            self.weight.drop(operand.key)
            self.newest.pop(operand.key, None)
            if self._home(operand) == "host":  # with a weight FIFO, activations go to their buffer at once
                self._read_host(operand)
            else:
                in_dram = self.off_chip(operand, "dram", 0, operand.nbytes)
                self._move("HOST_IN", on_host, in_dram, operand, "weights" if operand.weight else "activations")
                self.newest[operand.key] = "dram"
        elif resident is not None and resident.loaded >= operand.nbytes:
            source = Range("act", resident.start, resident.start + operand.nbytes)
            self._move("HOST_OUT", source, on_host, operand, "results")
            resident.dirty = False
        elif self._home(operand) == "dram":
            in_dram = self.off_chip(operand, "dram", 0, operand.nbytes)
            self._move("HOST_OUT", in_dram, on_host, operand, "results")

    def _read_host(self, operand: Operand) -> None:
        """Bring a tensor from the host into the activation buffer, in parts that can be used as they come."""
        resident = self._place(operand, frozenset((operand.key,)))
        if resident is None:
            return
        for part in range(HOST_PARTS):
            self.resident_slice(self.act, resident, operand, 0, operand.nbytes * (part + 1) // HOST_PARTS)

    def _move(self, op: str, source: Range, target: Range, operand: Operand, role: str) -> None:
        self.emit(op, (source,), (target,), nbytes=operand.nbytes, role=role, what=f"t{operand.key}")


def _without_memory(work: Sequence[Work], machine: Machine) -> Program:
    """The stream of a machine whose memory is never waited for: one run of equal folds for each product."""
    commands = []
    for piece in work:
        if isinstance(piece, Matmul):
            p = problem(piece, machine)
            os = machine.dataflow == "os"
            down = ceil((p.m if os else p.k) / machine.rows)
            tiles = down * ceil(p.n / machine.cols) * p.count * p.passes
            rows = p.k if os else p.m
            if not os:
                commands.append(Command("LOAD_W", piece.layer, tiles=tiles))
            commands.append(
                Command("MATMUL", piece.layer, tiles=tiles, rows=rows, issue=float(rows), macs=piece.macs, what=p.dtype)
            )
    return Program(machine, tuple(commands), tuple(dict.fromkeys(piece.layer for piece in work)))
