"""What a machine must have to work: each rule with the reason that is given when it is broken."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hal.plugin import ConfigError

if TYPE_CHECKING:
    from hal_systolic.config import Machine

LARGEST_ARRAY = 4096  # rows or columns; beyond it a tile has more cells than any chip


def check(machine: Machine) -> None:
    """Raise the reason why `machine` cannot work, if there is one.

    Raises:
        ConfigError: all reasons that were found.
    """
    reasons = list(_sizes(machine)) or list(_memories(machine))
    if reasons:
        raise ConfigError(f"machine {machine.name!r} cannot work: {'; '.join(reasons)}")


def _sizes(m: Machine) -> Iterator[str]:
    for name, value in (("rows", m.rows), ("cols", m.cols)):
        if not 1 <= value <= LARGEST_ARRAY:
            yield f"{name} must be 1 to {LARGEST_ARRAY}, got {value}"
    for name, value in (("arrays", m.arrays), ("acc_group", m.acc_group), ("vector.lanes", m.vector.lanes)):
        if value < 1:
            yield f"{name} must be 1 or more, got {value}"
    if m.weight_buffers not in (1, 2):
        yield f"weight_buffers must be 1 or 2, got {m.weight_buffers}"
    for name, rate in (
        ("clock_hz", m.clock_hz),
        ("vector.ops_per_cycle", m.vector.ops_per_cycle),
        ("dram.bytes_per_s", m.dram.bytes_per_s),
        ("host.bytes_per_s", m.host.bytes_per_s),
    ):
        if not 0 < rate < math.inf:
            yield f"{name} must be above 0 and finite, got {rate}"
    for name, link in (("dram", m.dram), ("host", m.host)):
        if link.burst < 1 or link.latency < 0:
            yield f"{name} needs bursts of 1 byte or more and a latency of 0 or more, got {link.burst}, {link.latency}"
    for name, sram in (("act", m.act), ("weight", m.weight), ("acc", m.acc)):
        if sram.nbytes < 0 or sram.banks < 1 or sram.bytes_per_cycle < 0:
            yield f"{name} needs 0 bytes or more in 1 bank or more, got {sram.nbytes} in {sram.banks}"
    if m.vector.latency < 0 or m.weight_fifo_tiles < 0 or m.idle_w < 0:
        yield "vector.latency, weight_fifo_tiles and idle_w must be 0 or more"
    if m.in_dtype not in m.rates:
        yield f"rates has no entry for in_dtype {m.in_dtype}, only for {', '.join(m.rates) or 'nothing'}"
    if (m.in_dtype == "int8") is not (m.acc_dtype == "int32"):
        yield f"products of {m.in_dtype} cannot be summed in {m.acc_dtype}: int8 goes with int32, bfloat16 with float32"


def _memories(m: Machine) -> Iterator[str]:
    if m.compat == "scalesim":
        return
    tile = m.tile_bytes(m.in_dtype)
    element = tile // m.peak_macs
    if m.dataflow != "ws" and m.weight_fifo_tiles:
        yield f"a weight FIFO feeds stationary weights, and with {m.dataflow} they are not"
    if m.acc.nbytes < (need := 2 * m.cols * m.arrays * 4):
        yield (
            f"the accumulators ({m.acc.nbytes} bytes) hold no two rows of {m.cols * m.arrays} sums of 4 bytes: "
            f"acc.nbytes must be {need} or more, one row to write and one to read"
        )
    store, label = (m.weight.nbytes // 4, "weight") if m.weight.nbytes else (m.act.nbytes // 24, "act")
    if not m.weight_fifo_tiles and store < tile:
        need = 4 * tile if m.weight.nbytes else 24 * tile
        yield (
            f"a weight tile of {m.rows} x {m.cols * m.arrays} x {element} B = {tile} bytes is larger than its buffer: "
            f"{label} lends {store} bytes to each of two tiles, so {label}.nbytes must be {need} or more"
        )
    row = max(m.rows, m.cols * m.arrays) * 4
    if m.act.nbytes < 96 * row:
        yield f"act ({m.act.nbytes} bytes) is too small for tiles of a few rows: {96 * row} bytes or more are needed"
