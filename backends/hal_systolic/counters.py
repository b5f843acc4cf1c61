"""What is counted: cycles by what the array did in them, products, bytes at each level, and energy by component."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from hal_systolic.config import ACCUMULATOR_BYTES, BYTES, WEIGHT_BYTES, Machine
from hal_systolic.stream import Command

# Every cycle of the array is in exactly one column, so that they sum to the whole.
COLUMNS = {
    "active": "rows of operands entered the array",
    "weight_stall": "weights were not there yet",
    "weight_shift": "weights were there, and were being shifted in",
    "input_stall": "operands or results were on their way from or to memory or host",
    "raw_stall": "operands were still being computed by the vector unit",
    "accumulator_stall": "the accumulators were still being read",
    "fill_drain": "the array filled or emptied",
    "vector": "only the vector unit worked",
    "idle": "nothing on the chip worked",
}
COMPONENTS = ("array", "hops", "act", "weight", "acc", "dram", "host", "vector", "idle")


@dataclass
class Counters:
    """Counts of a layer, or of a whole run.

    Attributes:
        cycles: by column.
        macs: useful products.
        slots: products for which there was a place in the array while it was active: the rest of them is padding.
        tiles: tiles of the stationary operand that were loaded; folds with `os`.
        traffic: bytes by level and operand: `("dram read", "weights")`.
        vector_ops: operations of the vector unit.
        energy: picojoules by component.
    """

    cycles: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0.0))
    macs: int = 0
    slots: int = 0
    tiles: int = 0
    traffic: dict[tuple[str, str], int] = field(default_factory=dict)
    vector_ops: float = 0.0
    energy: dict[str, float] = field(default_factory=lambda: dict.fromkeys(COMPONENTS, 0.0))

    @property
    def total_cycles(self) -> float:
        """Cycles in all columns."""
        return sum(self.cycles.values())

    @property
    def joules(self) -> float:
        """Energy of all components."""
        return sum(self.energy.values()) * 1e-12

    @property
    def mapping_efficiency(self) -> float:
        """Share of the active array that did useful products."""
        return self.macs / self.slots if self.slots else 0.0

    def bytes_at(self, level: str) -> int:
        """Bytes at one level, such as `dram read`, of all operands."""
        return sum(count for (name, _), count in self.traffic.items() if name == level)

    def move(self, level: str, operand: str, nbytes: int) -> None:
        """Count bytes."""
        self.traffic[level, operand] = self.traffic.get((level, operand), 0) + nbytes

    def add(self, other: Counters) -> None:
        """Count what `other` counted."""
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if isinstance(mine, dict):
                for key, value in theirs.items():
                    mine[key] = mine.get(key, 0) + value
            else:
                setattr(self, f.name, mine + theirs)


class Accountant:
    """Counts what commands do, whenever they do it."""

    def __init__(self, machine: Machine) -> None:
        energy, self.machine = machine.energy, machine
        self.act_byte = energy.sram_byte(machine.act.nbytes // machine.act.banks)
        self.weight_byte = energy.sram_byte(machine.weight.nbytes // machine.weight.banks)
        self.acc_byte = energy.sram_byte(machine.acc.nbytes // machine.acc.banks)

    def count(self, command: Command, to: Counters) -> None:
        """Add products, bytes and energy of one command."""
        match command.op:
            case "MATMUL":
                self._matmul(command, to)
            case "LOAD_W":
                self._load(command, to)
            case "FETCH_W":
                nbytes = command.tiles * command.nbytes
                to.move("dram read", "weights", nbytes)
                to.energy["dram"] += nbytes / 8 * self.machine.energy.dram
            case "ACT" | "VEC":
                self._vector(command, to)
            case "DMA_IN" | "DMA_OUT" | "HOST_IN" | "HOST_OUT":
                self._transfer(command, to)

    def _matmul(self, command: Command, to: Counters) -> None:
        machine, energy, dtype = self.machine, self.machine.energy, command.what
        sums = command.macs // max(command.rows, 1) if machine.dataflow == "os" else command.rows * command.columns
        products = command.tiles * command.rows * machine.peak_macs
        to.macs += command.macs
        to.slots += products
        to.tiles += command.tiles
        to.move("act read", "activations", command.nbytes)
        written = sums * ACCUMULATOR_BYTES * (1 if machine.dataflow == "os" else command.tiles)
        again = written if command.accumulate else written - sums * ACCUMULATOR_BYTES
        to.move("acc written", "results", written)
        to.move("acc read", "results", again)
        to.energy["array"] += command.macs * energy.mac(dtype)
        bits = 8 * (BYTES[dtype] + (WEIGHT_BYTES[dtype] if machine.dataflow == "os" else ACCUMULATOR_BYTES))
        to.energy["hops"] += command.macs * bits * energy.hop_bit
        to.energy["act"] += command.nbytes * self.act_byte
        to.energy["acc"] += (written + again) * self.acc_byte

    def _load(self, command: Command, to: Counters) -> None:
        machine = self.machine
        shifted = command.tiles * machine.peak_macs * 8
        to.energy["hops"] += shifted * machine.energy.hop_bit
        if machine.weight_fifo_tiles:
            return
        memory = command.reads[0].memory if command.reads else "act"
        to.move(f"{memory} read", "weights", command.nbytes)
        to.energy[memory] += command.nbytes * (self.act_byte if memory == "act" else self.weight_byte)

    def _vector(self, command: Command, to: Counters) -> None:
        ops = command.elements * command.ops
        to.vector_ops += ops
        to.energy["vector"] += ops * self.machine.energy.vector_op
        for verb, ranges in (("read", command.reads), ("written", command.writes)):
            for memory, start, stop in ranges:
                to.move(f"{memory} {verb}", "results" if memory == "acc" else "activations", stop - start)
                to.energy[memory] += (stop - start) * (self.acc_byte if memory == "acc" else self.act_byte)

    def _transfer(self, command: Command, to: Counters) -> None:
        energy = self.machine.energy
        for verb, ranges in (("read", command.reads), ("written", command.writes)):
            for memory, _, _ in ranges:
                to.move(f"{memory} {verb}", command.role, command.nbytes)
                byte = {
                    "dram": energy.dram / 8, "host": energy.host / 8, "act": self.act_byte, "weight": self.weight_byte,
                }[memory]  # fmt: skip
                to.energy[memory] += command.nbytes * byte
