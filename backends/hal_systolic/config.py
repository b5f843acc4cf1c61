"""The machine as a value: its array, buffers, links and units. Frozen, checked when made, echoed in every report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_type_hints

from hal.plugin import ConfigError
from hal_systolic.energy import EnergyTable, process

Dataflow = Literal["ws", "os", "is"]
BYTES = {"int8": 1, "int8xint16": 2, "int16": 2, "bfloat16": 2}  # of an element of the streamed operand
WEIGHT_BYTES = {**BYTES, "int8xint16": 1}  # of an element of the stationary operand
ACCUMULATOR_BYTES = 4  # int32 and float32


@dataclass(frozen=True)
class Sram:
    """A memory on the chip.

    Attributes:
        nbytes: its size; 0 where there is none.
        banks: parts of equal size that are read one at a time: the smaller, the less energy an access takes.
        bytes_per_cycle: what it gives or takes a cycle; 0 is as much as the array wants.
    """

    nbytes: int
    banks: int = 1
    bytes_per_cycle: int = 0


@dataclass(frozen=True)
class Link:
    """A way to memory off the chip. A transfer takes `latency` cycles, and the time of its bursts.

    Attributes:
        bytes_per_s: bandwidth; reads and writes of device memory share it, the two directions of the host link do not.
        latency: cycles before the first byte.
        burst: bytes that move together.
    """

    bytes_per_s: float
    latency: int = 0
    burst: int = 64


@dataclass(frozen=True)
class VectorUnit:
    """What does all that is no matrix product.

    Attributes:
        lanes: elements at a time.
        ops_per_cycle: operations a lane and cycle.
        latency: cycles from the first operand to the first result.
    """

    lanes: int
    ops_per_cycle: float = 1.0
    latency: int = 0


@dataclass(frozen=True)
class Machine:
    """A systolic-array accelerator.

    Attributes:
        name: of the preset, or one of your own.
        rows: processing elements that a partial sum passes.
        cols: processing elements that an activation passes.
        arrays: arrays that work side by side on one product.
        clock_hz: cycles a second.
        dataflow: what stays in the array: weights (`ws`), outputs (`os`) or inputs (`is`).
        weight_buffers: 1, or 2 where the next tile is shifted in while the array works.
        drain: `physical` counts the cycles in which results of `os` leave the array, `none` does not.
        in_dtype: format of the operands: `int8` or `bfloat16`.
        acc_dtype: format of the sums: `int32` or `float32`.
        rates: products a cycle and processing element, by format of the operands.
        acc_group: products that are summed before they are added to the running sum.
        ftz: whether subnormal numbers are flushed to zero.
        training: whether gradients may be recorded here.
        act: buffer of activations (the unified buffer of a TPU v1, the vector memory of its successors).
        weight: buffer of weights; 0 bytes where they share `act`, or come through the FIFO.
        acc: accumulators; with `os` they take the sums that leave the array.
        weight_fifo_tiles: tiles between device memory and the array, which then never pass an SRAM; 0 has no FIFO.
        dram: device memory. With a FIFO it holds weights only, and activations that find no room go to the host.
        host: the link to the host, full duplex.
        vector: the vector unit.
        energy: picojoules of each event.
        idle_w: watts that it takes when it does nothing.
        compat: `scalesim` counts as SCALE-Sim 3.0.0 does, memory never waiting; `none` is a machine with memory.

    Raises:
        ConfigError: it cannot work, and this is why.
    """

    name: str = "custom"
    rows: int = 128
    cols: int = 128
    arrays: int = 1
    clock_hz: float = 1e9
    dataflow: Dataflow = "ws"
    weight_buffers: int = 2
    drain: Literal["physical", "none"] = "physical"
    in_dtype: Literal["int8", "bfloat16"] = "bfloat16"
    acc_dtype: Literal["int32", "float32"] = "float32"
    rates: Mapping[str, float] = field(default_factory=lambda: {"bfloat16": 1.0}, hash=False)
    acc_group: int = 1
    ftz: bool = False
    training: bool = True
    act: Sram = Sram(16 << 20, banks=16)
    weight: Sram = Sram(0)
    acc: Sram = Sram(4 << 20, banks=128)
    weight_fifo_tiles: int = 0
    dram: Link = Link(100e9)
    host: Link = Link(14e9)
    vector: VectorUnit = VectorUnit(1024)
    energy: EnergyTable = process(45)  # noqa: RUF009  # a frozen value
    idle_w: float = 0.0
    compat: Literal["none", "scalesim"] = "none"

    def __post_init__(self) -> None:
        from hal_systolic.validation import check

        check(self)

    @property
    def accumulator_rows(self) -> int:
        """Rows of results that the accumulators hold, one half of which is written while the other is read."""
        return self.acc.nbytes // (self.cols * self.arrays * ACCUMULATOR_BYTES)

    @property
    def peak_macs(self) -> int:
        """Multiplications a cycle at rate 1."""
        return self.rows * self.cols * self.arrays

    @property
    def dram_bytes_per_cycle(self) -> float:
        """Bytes from or to device memory in one cycle."""
        return self.dram.bytes_per_s / self.clock_hz

    @property
    def host_bytes_per_cycle(self) -> float:
        """Bytes over the host link in one cycle, each way."""
        return self.host.bytes_per_s / self.clock_hz

    def cycles_per_row(self, dtype: str) -> float:
        """Cycles from one row of operands entering the array to the next.

        Raises:
            ConfigError: the machine has no rate for this format.
        """
        if dtype not in self.rates:
            raise ConfigError(
                f"{self.name} multiplies {', '.join(self.rates)}, not {dtype}: give it a rate, such as rates.{dtype}=1"
            )
        port = self.act.bytes_per_cycle
        return max(1 / self.rates[dtype], math.ceil(self.rows * BYTES[dtype] / port) if port else 1)

    def tile_bytes(self, dtype: str) -> int:
        """Bytes of the stationary operand that fill the arrays once; edges are padded."""
        return self.peak_macs * WEIGHT_BYTES[dtype]

    def override(self, **changes: Any) -> Machine:
        """This machine with other values. A dot or two underscores go inside: `machine.override(dram__latency=100)`.

        Raises:
            ConfigError: an unknown field, a value of the wrong kind, or a machine that cannot work.
        """
        nested: dict[str, Any] = {}
        for name, value in changes.items():
            outer, _, inner = name.replace("__", ".").partition(".")
            if inner:
                now = getattr(self, outer, None)
                nested.setdefault(outer, dict(now) if isinstance(now, Mapping) else {})[inner] = value
            else:
                nested[outer] = value
        return replace(self, **_checked(self, nested, ""))

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, as in the TOML file that would give this machine."""
        return _plain(self)


def _plain(record: Any) -> dict[str, Any]:
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return {
        name: _plain(value) if is_dataclass(value) else dict(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }


def _checked(record: Any, values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """`values` for the fields of `record`, each of its field's kind; tables become records like the present ones."""
    kinds = get_type_hints(type(record))
    return {name: _value(record, name, kinds, value, path) for name, value in values.items()}


def _value(record: Any, name: str, kinds: Mapping[str, Any], value: Any, path: str) -> Any:
    label = f"{path}{name}"
    if name not in kinds:
        near = get_close_matches(name, list(kinds), n=1)
        meant = f"; did you mean {path}{near[0]}?" if near else ""
        raise ConfigError(f"a machine has no field {label!r}; there are {', '.join(path + k for k in kinds)}{meant}")
    now, kind = getattr(record, name), kinds[name]
    if is_dataclass(now) and not isinstance(now, type):
        if isinstance(value, type(now)):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{label} has parts: set {', '.join(f'{label}.{f.name}' for f in fields(now))}")
        return replace(now, **_checked(now, value, f"{label}."))
    if isinstance(now, Mapping):
        return _rates(value, label)
    if get_args(kind):
        if value not in get_args(kind):
            raise ConfigError(f"{label} must be one of {', '.join(get_args(kind))}, got {value!r}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise ConfigError(f"{label} needs {_NAMES[kind]}, got {value!r}")
    return value


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _rates(value: Any, label: str) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{label} needs a table from formats to products a cycle, got {value!r}")
    for dtype, rate in value.items():
        if dtype not in BYTES or isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 16:
            raise ConfigError(f"{label}.{dtype} needs one of {', '.join(BYTES)} and products a cycle, got {rate!r}")
    return {dtype: float(rate) for dtype, rate in value.items()}
