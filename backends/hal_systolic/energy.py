"""Energy of one event of each kind, in picojoules, and the tables for two processes."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, fields
from pathlib import Path

from hal.plugin import ConfigError


@dataclass(frozen=True)
class EnergyTable:
    """Picojoules an event.

    Attributes:
        mac_int8: one multiplication of 8-bit integers, added to a 32-bit sum.
        mac_int16: one multiplication of 16-bit integers, added to a 32-bit sum.
        mac_bfloat16: one multiplication of bfloat16 numbers, added to a float32 sum.
        hop_bit: one bit that a processing element hands to its neighbour.
        sram_8k: 64 bits from or to a bank of 8 KiB; between the three points energy goes with the root of the size.
        sram_32k: the same for a bank of 32 KiB.
        sram_1m: the same for a bank of 1 MiB, the largest bank there is: larger memories are several.
        dram: 64 bits from or to device memory.
        host: 64 bits over the host link.
        vector_op: one float32 operation of the vector unit.
    """

    mac_int8: float
    mac_int16: float
    mac_bfloat16: float
    hop_bit: float
    sram_8k: float
    sram_32k: float
    sram_1m: float
    dram: float
    host: float
    vector_op: float

    def mac(self, dtype: str) -> float:
        """Picojoules of one multiply-accumulate in the format `dtype` of a work description."""
        if dtype == "int8":
            return self.mac_int8
        if dtype in ("int16", "int8xint16"):
            return self.mac_int16
        return self.mac_bfloat16

    def sram_byte(self, bank_bytes: int) -> float:
        """Picojoules a byte from or to an SRAM bank of this size."""
        points = ((8 << 10, self.sram_8k), (32 << 10, self.sram_32k), (1 << 20, self.sram_1m))
        size = min(max(bank_bytes, 64), 1 << 20)
        (low, at_low), (high, at_high) = points[:2] if size <= points[1][0] else points[1:]
        share = (math.sqrt(size) - math.sqrt(low)) / (math.sqrt(high) - math.sqrt(low))
        return max(at_low + share * (at_high - at_low), at_low * math.sqrt(size / low) if size < low else 0.0) / 8

    def between(self, other: EnergyTable, share: float) -> EnergyTable:
        """The table of a process between two: geometric, `share` of the way to `other`."""
        mine, theirs = vars(self), vars(other)
        return EnergyTable(**{name: mine[name] ** (1 - share) * theirs[name] ** share for name in mine})


# Multiplications, additions and SRAM at 45 nm: Horowitz, ISSCC 2014; DDR3 at the low end of his 1.3 to 2.6 nJ.
# The sum of a multiply-accumulate is kept in 32 bits. There is no bfloat16 at 45 nm: float16's multiplier stands in.
# 7 nm: Jouppi et al., ISCA 2021, Table 2; DRAM is HBM2. Hops and the host link are estimates of ours: a bit kept in a
# flip-flop costs about 1 fJ at 45 nm with half the bits changing, and a serial link about 5 pJ a bit.
# fmt: off
NM45 = EnergyTable(mac_int8=0.3, mac_int16=1.0,  mac_bfloat16=2.0,  hop_bit=0.001,  sram_8k=10.0, sram_32k=20.0,
                   sram_1m=100.0, dram=1300.0, host=320.0, vector_op=0.9)
NM7  = EnergyTable(mac_int8=0.1, mac_int16=0.25, mac_bfloat16=0.59, hop_bit=0.0002, sram_8k=7.5,  sram_32k=8.5,
                   sram_1m=14.0,  dram=250.0,  host=320.0, vector_op=0.38)
# fmt: on


def process(nanometres: float) -> EnergyTable:
    """The table of a process from 45 down to 7 nm, interpolated on a logarithmic scale."""
    table = NM45.between(NM7, min(max(math.log(45 / nanometres) / math.log(45 / 7), 0.0), 1.0))
    if nanometres <= 12:
        return table
    return EnergyTable(**{**vars(table), "dram": NM45.dram})  # memory is DDR3, whatever the process of the chip


def read_table(path: Path, base: EnergyTable) -> EnergyTable:
    """`base` with the constants of a CSV file with the columns `event` and `pj` in their place.

    Raises:
        ConfigError: there is no such file, an event that there is none of, or a value that is no number of picojoules.
    """
    if not path.is_file():
        raise ConfigError(f"there is no table of energies {path}: it is a CSV file with the columns event and pj")
    known = [field.name for field in fields(EnergyTable)]
    values: dict[str, float] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            event, value = str(row.get("event", "")).strip(), str(row.get("pj", "")).strip()
            if event not in known:
                raise ConfigError(f"{path}: there is no event {event!r}; there are {', '.join(known)}")
            try:
                values[event] = float(value)
            except ValueError:
                values[event] = math.nan
            if not 0 <= values[event] < math.inf:
                raise ConfigError(f"{path}: {event} needs picojoules, 0 or more, in the column pj, got {value!r}")
    return EnergyTable(**{**vars(base), **values})
