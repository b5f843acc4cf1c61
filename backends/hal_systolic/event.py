"""The event level: a command stream through one clock for each unit. Start and end of every command, and every wait."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from math import ceil

from hal_systolic.config import Link, Machine
from hal_systolic.counters import Accountant, Counters
from hal_systolic.runs import Feeder, run
from hal_systolic.stream import UNITS, Command, Program


@dataclass(frozen=True)
class Timeline:
    """When each command ran.

    Attributes:
        start: by command, the cycle in which its unit took it.
        end: by command, the cycle in which its unit was free again.
        done: by command, the cycle from which its results can be used.
        cycles: when all was done.
        counters: by layer.
    """

    program: Program
    start: list[float]
    end: list[float]
    done: list[float]
    cycles: float
    counters: dict[str, Counters]


def pipeline(machine: Machine) -> int:
    """Cycles from the last operand entering the array to the last sum leaving it."""
    return machine.rows + machine.cols - 2


def transfer_cycles(nbytes: int, link: Link, clock_hz: float) -> tuple[float, float]:
    """Cycles before the first byte of a transfer, and those in which bytes move."""
    return link.latency, ceil(nbytes / link.burst) * link.burst * clock_hz / link.bytes_per_s


def load_cycles(machine: Machine, dtype_bytes: int = 1) -> int:
    """Cycles to shift a tile into the array: one row a cycle, or as fast as the weight buffer gives them."""
    port = machine.weight.bytes_per_cycle
    return machine.rows * (ceil(machine.cols * machine.arrays * dtype_bytes / port) if port else 1)


def vector_cycles(elements: int, ops: float, machine: Machine) -> float:
    """Cycles in which elements enter the vector unit; results are there `latency` later."""
    return ceil(elements / machine.vector.lanes) * ops / machine.vector.ops_per_cycle


def simulate_stream(program: Program) -> Timeline:
    """Run a command stream.

    A command starts when its unit has finished the one before, what it waits for is done, and there is bandwidth.
    """
    return _Clocks(program).run()


class _Channel:
    """The bandwidth of device memory, which reads and writes share: two in-order queues fill each other's gaps."""

    def __init__(self) -> None:
        self._starts: tuple[list[float], list[float]] = ([], [])
        self._ends: tuple[list[float], list[float]] = ([], [])

    def reserve(self, side: int, ready: float, cycles: float) -> float:
        """The first time from `ready` on at which the other side leaves `cycles` free; they are taken."""
        starts, ends = self._starts[1 - side], self._ends[1 - side]
        at, i = ready, bisect_right(ends, ready)
        while i < len(starts) and starts[i] < at + cycles:
            at, i = max(at, ends[i]), i + 1
        self._starts[side].append(at)
        self._ends[side].append(at + cycles)
        return at


class _Clocks:
    def __init__(self, program: Program) -> None:
        self.program, self.machine = program, program.machine
        machine = self.machine
        self.pipeline, self.load = pipeline(machine), load_cycles(machine)
        self.free: dict[str, float] = dict.fromkeys(UNITS, 0.0)
        self.channel = _Channel()
        depth = max(machine.weight_fifo_tiles, 1)
        self.feeder = Feeder(0.0, 0.0, 0.0, deque([0.0] * depth))
        self.start: list[float] = []
        self.end: list[float] = []
        self.done: list[float] = []
        self.counters: dict[str, Counters] = {layer: Counters() for layer in program.layers}
        self.busy: dict[str, list[int]] = {unit: [] for unit in UNITS}  # what runs while the array waits, in order
        self.drained = 0.0  # when the last sums have left the array
        self.first = True  # no rows have entered the array yet
        self.fetch_index = self.load_index = -1

    def run(self) -> Timeline:
        account = Accountant(self.machine).count
        handlers = {
            "DMA_IN": self._dma, "DMA_OUT": self._dma, "HOST_IN": self._host, "HOST_OUT": self._host,
            "FETCH_W": self._weights, "LOAD_W": self._weights, "MATMUL": self._matmul,
            "ACT": self._vector, "VEC": self._vector, "PAUSE": self._pause,
        }  # fmt: skip
        for index, command in enumerate(self.program.commands):
            handlers[command.op](index, command)
            account(command, self.counters[command.layer])
        cycles = max(self.done, default=0.0)
        self._wait(self.free["matrix"], cycles, self.program.commands[-1].layer if self.done else "")
        seconds = 1 / self.machine.clock_hz
        for counted in self.counters.values():
            counted.energy["idle"] = self.machine.idle_w * counted.total_cycles * seconds * 1e12
        return Timeline(self.program, self.start, self.end, self.done, cycles, self.counters)

    def _ready(self, command: Command) -> float:
        done = self.done
        return max([done[i] for i, _ in command.after], default=0.0)

    def _record(self, start: float, end: float, done: float) -> None:
        self.start.append(start)
        self.end.append(end)
        self.done.append(done)

    # --- transfers and the vector unit --------------------------------------------------------------------------------

    def _dma(self, index: int, command: Command) -> None:
        unit = "dma-in" if command.op == "DMA_IN" else "dma-out"
        latency, moving = transfer_cycles(command.nbytes, self.machine.dram, self.machine.clock_hz)
        ready = max(self.free[unit], self._ready(command))
        moved = self.channel.reserve(command.op == "DMA_OUT", ready + latency, moving)
        self.free[unit] = end = moved + moving
        self._record(moved - latency, end, end)
        self.busy[command.unit].append(index)

    def _host(self, index: int, command: Command) -> None:
        unit = command.unit
        latency, moving = transfer_cycles(command.nbytes, self.machine.host, self.machine.clock_hz)
        start = max(self.free[unit], self._ready(command))
        self.free[unit] = end = start + latency + moving
        self._record(start, end, end)
        self.busy[command.unit].append(index)

    def _vector(self, index: int, command: Command) -> None:
        start = max(self.free["vector"], self._ready(command))
        self.free["vector"] = end = start + vector_cycles(command.elements, command.ops, self.machine)
        self._record(start, end, end + self.machine.vector.latency)
        self.busy[command.unit].append(index)

    def _pause(self, index: int, command: Command) -> None:
        start = max(self._ready(command), max(self.done, default=0.0))
        end = start + command.cycles
        self._wait(self.free["matrix"], start, command.layer)
        self.counters[command.layer].cycles["idle"] += command.cycles
        self.free.update(dict.fromkeys(UNITS, end))
        f = self.feeder
        f.fetched, f.loaded, f.switched = max(f.fetched, end), max(f.loaded, end), max(f.switched, end)
        self._record(start, end, end)

    # --- the array ----------------------------------------------------------------------------------------------------

    def _weights(self, index: int, command: Command) -> None:
        """Fetches and loads are timed together with the rows that they are for."""
        if command.op == "FETCH_W":
            self.fetch_index = index
        else:
            self.load_index = index
        self._record(0.0, 0.0, 0.0)

    def _matmul(self, index: int, command: Command) -> None:
        machine, free = self.machine, self.free["matrix"]
        rows, last, where = free, -1, ""
        for i, memory in command.after:
            other = self.program.commands[i]
            if other.op != "MATMUL" and self.done[i] > rows:  # sums follow each other through the array in order
                rows, last, where = self.done[i], i, memory
        if last >= 0:
            self._wait_for_rows(free, rows, last, where, command.layer)
        columns = self.counters[command.layer].cycles
        columns["active"] += command.tiles * command.issue
        if machine.dataflow == "os":
            over = self.pipeline + (machine.rows - 1 if machine.drain == "physical" else 0)
            end = rows + command.tiles * (command.issue + over)
            columns["fill_drain"] += command.tiles * over
            self.free["matrix"] = self.drained = end
            self._record(rows, end, end)
            return
        self._run(command, rows, columns)

    def _run(self, command: Command, rows: float, columns: dict[str, float]) -> None:
        """Pass a run of tiles, whose fetches and loads stand before it in the stream."""
        machine, commands = self.machine, self.program.commands
        weights, fetchable, fetch = 0.0, 0.0, 0.0
        if machine.weight_fifo_tiles:
            fetcher = commands[self.fetch_index]
            fetchable = self._ready(fetcher)
            latency, fetch = transfer_cycles(fetcher.nbytes, machine.dram, machine.clock_hz)
            fetchable += latency
        else:
            weights = self._ready(commands[self.load_index])
        single = machine.weight_buffers == 1
        if single:
            weights = max(weights, self.drained)
        r = run(
            self.feeder, command.tiles, command.issue, fetch, self.load, self.pipeline if single else -1.0,
            weights=weights, rows=rows, fetchable=fetchable,
        )  # fmt: skip
        late = r.start - rows
        if self.first:  # there was nothing that could have hidden it
            columns["fill_drain"] += late
        else:
            shifted = min(late, self.load)
            columns["weight_shift"] += shifted
            columns["weight_stall"] += late - shifted
        drains = min(r.stall, (command.tiles - 1) * self.pipeline) if single else 0.0
        columns["fill_drain"] += drains
        columns["weight_shift"] += r.shift
        columns["weight_stall"] += r.stall - drains
        self.first = False
        if machine.weight_fifo_tiles:
            self._place(self.fetch_index, *r.fetch)
        self._place(self.load_index, *r.load)
        self.free["matrix"], self.drained = r.issued, r.issued + self.pipeline
        self._record(r.start, r.issued, self.drained)

    def _place(self, index: int, start: float, end: float) -> None:
        self.start[index], self.end[index], self.done[index] = start, end, end

    # --- what the array waited for ------------------------------------------------------------------------------------

    def _wait_for_rows(self, start: float, end: float, last: int, memory: str, layer: str) -> None:
        """Say in which column the cycles go in which the array waited for command `last`, which used `memory` too."""
        columns, op = self.counters[layer].cycles, self.program.commands[last].op
        if op in ("DMA_IN", "HOST_IN") or (op == "ACT" and self._held_up(last)):
            columns["input_stall"] += end - start
        elif memory == "acc":
            columns["accumulator_stall"] += end - start
        elif op == "ACT":
            filled = min(max(self.drained - start, 0.0), end - start)
            columns["fill_drain"] += filled
            columns["raw_stall"] += end - start - filled
        else:
            self._wait(start, end, layer)

    def _held_up(self, index: int) -> bool:
        """Whether a command could only start when a transfer was done: its results had no room before."""
        commands, start = self.program.commands, self.start[index]
        return any(
            commands[i].unit != "matrix" and commands[i].unit != "vector" and self.done[i] >= start
            for i, _ in commands[index].after
        )

    def _wait(self, start: float, end: float, layer: str) -> None:
        """Divide cycles in which there was no product to do: the array empties, the vector unit works, data moves."""
        if end <= start:
            return
        own = self.counters[layer].cycles
        drained = min(max(self.drained, start), end)
        own["fill_drain"] += drained - start
        start = drained
        vector = self._during(("vector",), start, end)
        moving = self._during(("dma-in", "host-in", "dma-out", "host-out"), start, end)
        vector_free = self._cover([(start, end)], vector, "vector")
        for low, high in self._cover(vector_free, moving, "input_stall"):
            own["idle"] += high - low

    def _during(self, units: tuple[str, ...], start: float, end: float) -> list[tuple[float, float, str]]:
        """What these units did between two times, and for which layer."""
        found = []
        for unit in units:
            for index in reversed(self.busy[unit]):
                if self.done[index] <= start:
                    break
                low, high = max(self.start[index], start), min(self.done[index], end)
                if low < high:
                    found.append((low, high, self.program.commands[index].layer))
        return found

    def _cover(
        self, spans: list[tuple[float, float]], intervals: list[tuple[float, float, str]], column: str
    ) -> list[tuple[float, float]]:
        """Count in `column` what `intervals` cover of `spans`; return the rest of these."""
        for low, high, layer in sorted(intervals):
            rest = []
            for start, end in spans:
                covered_low, covered_high = max(low, start), min(high, end)
                if covered_low >= covered_high:
                    rest.append((start, end))
                    continue
                self.counters[layer].cycles[column] += covered_high - covered_low
                if start < covered_low:
                    rest.append((start, covered_low))
                if covered_high < end:
                    rest.append((covered_high, end))
            spans = rest
        return spans
