"""The cost of a piece of work in closed form: what a scheduler asks, thousands of times, before it decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, inf
from typing import Any

from hal.plugin import ConfigError
from hal_systolic.config import BYTES, WEIGHT_BYTES, Link, Machine
from hal_systolic.event import load_cycles, pipeline, transfer_cycles, vector_cycles
from hal_systolic.tiling import Loops, Problem, Tiling, half_of_accumulators, loops, problem, slot_bytes, tilings
from hal_systolic.work import Matmul, Operand, Transfer, Vector


@dataclass(frozen=True, slots=True)
class Cost:
    """What a piece of work costs on a machine.

    Attributes:
        cycles: from its first command to its last result, when nothing else runs.
        latency_s: the same in seconds.
        exposed_cycles: of these, cycles that memory adds to what array and vector unit need.
        sram_bytes: bytes that the array reads from buffers.
        dram_bytes: bytes from and to device memory.
        energy_j: dynamic energy, without idle power.
        fits: whether the work fits the machine at all.
    """

    cycles: float
    latency_s: float
    exposed_cycles: float
    sram_bytes: float
    dram_bytes: float
    energy_j: float
    fits: bool = True


def cost(
    work: Matmul | Vector | Transfer, machine: Machine, *, on_chip: bool = False, tiling: Tiling | None = None
) -> Cost:
    """What `work` costs; what was asked before is remembered.

    Args:
        on_chip: whether its operands lie in the activation buffer, and its results may stay there.
        tiling: of a product; the default is the cheapest.
    """
    if isinstance(work, Matmul):
        a, b, out = work.a.nbytes, work.b.nbytes, work.out.nbytes
        shape = (work.m, work.k, work.n, a, b, out, work.dtype, work.count, work.passes, work.halo, work.epilogue)
        return _product_cost(shape, machine, on_chip, tiling)
    if isinstance(work, Vector):
        return vector_cost(work, machine, on_chip=on_chip)
    cycles = sum(transfer_cycles(work.operand.nbytes, machine.host, machine.clock_hz))
    energy = work.operand.nbytes / 8 * machine.energy.host * 1e-12
    return Cost(cycles, cycles / machine.clock_hz, cycles, 0.0, 0.0, energy)


@lru_cache(maxsize=1 << 16)
def _product_cost(shape: tuple[Any, ...], machine: Machine, on_chip: bool, tiling: Tiling | None) -> Cost:
    """The cost of a product, which is the same whatever its operands are called."""
    m, k, n, a, b, out, *rest = shape
    work = Matmul(m, k, n, Operand(0, a), Operand(1, b), Operand(2, out), *rest)
    p = problem(work, machine)
    try:
        chosen = tiling or cheapest(p, machine, where(work, machine, on_chip), (not on_chip, not on_chip))
    except ConfigError:
        return Cost(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, fits=False)
    return matmul_cost(p, chosen, machine, on_chip=on_chip)


def forget() -> None:
    """Forget all costs that were asked for."""
    _product_cost.cache_clear()


def tiles(work: Matmul, machine: Machine, *, on_chip: bool = False) -> Iterator[Tiling]:
    """The tilings of a product that fit the machine, for `cost(..., tiling=)`.

    Raises:
        ConfigError: none fits.
    """
    yield from tilings(problem(work, machine), machine, where(work, machine, on_chip))


def where(work: Matmul, machine: Machine, on_chip: bool) -> tuple[bool, bool, bool]:
    """Which operands of a product pass the buffer in slices, if nothing else lies in it."""
    p = problem(work, machine)
    room = machine.act.nbytes - 6 * slot_bytes(machine)
    out = p.out.nbytes > room
    room -= 0 if out else p.out.nbytes
    streamed = p.streamed.nbytes > room or not on_chip
    store = machine.weight.nbytes // 2 if machine.weight.nbytes else room - (0 if streamed else p.streamed.nbytes)
    stationary = p.stationary.nbytes > store or not on_chip or machine.weight_fifo_tiles > 0
    return streamed, stationary, out


def cheapest(
    p: Problem, machine: Machine, streams: tuple[bool, bool, bool], cold: tuple[bool, bool] = (True, True)
) -> Tiling:
    """The tiling with the fewest cycles; of equal ones the first.

    Args:
        streams: which of streamed operand, stationary one and result pass the buffer in slices.
        cold: which of the two operands are not on the chip yet.

    Raises:
        ConfigError: none fits.
    """
    best, fewest, worse = None, inf, 0
    for tiling in tilings(p, machine, streams):
        cycles, _ = product_cycles(p, tiling, machine, cold=cold)
        if cycles < fewest:
            best, fewest, worse = tiling, cycles, 0
        elif (worse := worse + 1) == 3:
            break  # blocks are too small by now, and become smaller still
    assert best is not None
    return best


def vector_cost(work: Vector, machine: Machine, *, on_chip: bool = False) -> Cost:
    """What work of the vector unit costs: its operations, or its bytes, whichever take longer."""
    compute = vector_cycles(work.elements, work.ops, machine) + machine.vector.latency
    nbytes = sum(o.nbytes for o in {*work.inputs, *work.outputs})
    energy = work.elements * work.ops * machine.energy.vector_op
    if on_chip:
        return Cost(compute, compute / machine.clock_hz, 0.0, 0.0, 0.0, energy * 1e-12)
    link = machine.host if machine.weight_fifo_tiles else machine.dram
    latency, moving = transfer_cycles(nbytes, link, machine.clock_hz)
    cycles = max(compute, moving) + min(compute, moving) / 4 + 2 * latency
    energy += nbytes / 8 * (machine.energy.host if machine.weight_fifo_tiles else machine.energy.dram)
    return Cost(cycles, cycles / machine.clock_hz, cycles - compute, 0.0, float(nbytes), energy * 1e-12)


def product_cycles(
    p: Problem, t: Tiling, machine: Machine, *, cold: tuple[bool, bool] = (True, True)
) -> tuple[float, float]:
    """Cycles of a product under a tiling, and those that it would take if memory were never waited for.

    Every loop is a chain through transfer, array and vector unit, which work at the same time on different blocks: it
    takes the sum of one block of each, and for each further block what the slowest of them needs.

    Args:
        cold: whether the streamed and the stationary operand must be brought from memory once, where they then stay.
    """
    n = loops(p, t, machine)
    groups, blocks, columns = n.groups, n.row_blocks, n.column_tiles
    group = p.count / groups
    width = p.n / columns
    rows = p.m / blocks
    per_row = machine.cycles_per_row(p.dtype)
    issue = ceil(rows / max(machine.arrays // t.spread, 1)) * per_row
    load, drain = load_cycles(machine), pipeline(machine)
    tiles = n.down_tiles * group * p.passes
    if machine.dataflow == "os":
        over = drain + (machine.rows - 1 if machine.drain == "physical" else 0)
        folds = ceil(issue / per_row / machine.rows) * group * p.passes
        array, first, tail = folds * (p.k * per_row + n.runs_down * over), 0.0, 0.0
    elif machine.weight_buffers == 1:
        array, first, tail = tiles * (issue + drain + load), 0.0, 0.0
    else:
        array, first, tail = tiles * max(issue, load), load, drain
    act = vector_cycles(int(rows * group * width), max(p.epilogue, 1), machine)
    latency = machine.vector.latency
    block = max(array, act, (array + act + tail + latency) / 2)  # the accumulators have two halves
    if t.rows > half_of_accumulators(machine, t.spread):
        block = array + act + tail + latency
    count = groups * blocks * columns
    ideal = first + (count - 1) * block + array + tail + act + latency
    if machine.weight_fifo_tiles:
        tile_bytes = machine.rows * machine.cols * t.spread * WEIGHT_BYTES[p.dtype]
        fetch = sum(transfer_cycles(tile_bytes, machine.dram, machine.clock_hz))
        last = issue + tail + act + latency + load
        return _through_fifo(p, t, machine, cold[0], ideal, fetch * tiles * count, fetch, last)
    alone = first + array + tail + act + latency
    return _with_transfers(p, t, machine, cold, (group, rows), (ideal, block, alone))


def _through_fifo(
    p: Problem, t: Tiling, machine: Machine, cold: bool, ideal: float, fetches: float, fetch: float, last: float
) -> tuple[float, float]:
    """Weights come by their own way; the other operands over the host link, each direction on its own."""
    n = loops(p, t, machine)
    slices = n.groups * n.row_blocks
    into = _moves(p.streamed.nbytes, slices, machine.host, machine) if cold or t.streams[0] else 0.0
    out = _moves(p.out.nbytes, slices * n.column_tiles, machine.host, machine) if t.streams[2] else 0.0
    head = into / slices
    compute = max(head, fetch) + ideal
    return max(compute, fetches + last, into + ideal / slices, head + ideal / slices + out) + out / slices, ideal


def _moves(nbytes: float, times: int, link: Link, machine: Machine) -> float:
    latency, moving = transfer_cycles(ceil(nbytes / times), link, machine.clock_hz)
    return times * (latency + moving)


def _brought_again(t: Tiling, n: Loops) -> bool:
    """Whether slices of the streamed operand do not stay in their two slots for the next tile of columns."""
    return t.streams[0] and (n.runs_down > 1 or (t.columns_first and n.row_blocks > 2))


def _with_transfers(
    p: Problem, t: Tiling, machine: Machine, cold: tuple[bool, bool], sizes: tuple[float, float],
    compute: tuple[float, float, float],
) -> tuple[float, float]:  # fmt: skip
    """Operands and results share the bandwidth of device memory."""
    n, (ideal, block, alone) = loops(p, t, machine), compute
    outer, inner = (n.column_tiles, n.row_blocks) if t.columns_first else (n.row_blocks, n.column_tiles)
    group, rows = sizes
    slice_bytes = rows * group * p.row_bytes + (p.halo if n.row_blocks > 1 else 0)
    panel_bytes = p.stationary.nbytes * group / p.count / n.column_tiles
    out_bytes = p.out.nbytes / (n.groups * n.row_blocks * n.column_tiles)
    cut = n.runs_down
    streamed = _moves(slice_bytes, cut if t.streams[0] else 1, machine.dram, machine)
    panel = _moves(panel_bytes, cut, machine.dram, machine)
    out = _moves(out_bytes, 1, machine.dram, machine) if t.streams[2] else 0.0
    again_a = _brought_again(t, n)
    again_b = t.streams[1] and (not t.columns_first or cut > 1)
    first_a, first_b = cold[0] or t.streams[0], cold[1] or t.streams[1]
    head = streamed * first_a + panel * first_b
    if t.columns_first:
        first = (inner - 1) * (streamed * (first_a or again_a) + panel * again_b)
        later = inner * (streamed * again_a + panel * again_b) + (0.0 if again_b else panel * first_b)
    else:
        first = (inner - 1) * (panel * first_b + streamed * again_a)
        later = inner * (panel * again_b + streamed * again_a) + (0.0 if again_a else streamed * first_a)
    span = inner * block
    begin = max(span, first + inner * out)
    rest = max(span, later + inner * out)
    phases = n.groups * outer
    cycles = head + begin + (phases - 1) * rest + alone - block + out
    if first_b and not t.streams[1]:  # each group begins with operands of its own
        cycles += (n.groups - 1) * max(begin - rest, 0.0)
    return max(cycles, ideal), ideal


def matmul_cost(p: Problem, t: Tiling, machine: Machine, *, on_chip: bool = False) -> Cost:
    """What a product costs under a tiling."""
    cold = (not on_chip, not on_chip)
    cycles, ideal = product_cycles(p, t, machine, cold=cold)
    n = loops(p, t, machine)
    macs = p.count * p.m * p.k * p.n
    streamed = macs / p.n * n.column_tiles * BYTES[p.dtype] * p.passes
    stationary = macs / p.m * n.row_blocks * WEIGHT_BYTES[p.dtype] * p.passes
    dram, energy = 0.0, machine.energy
    if machine.weight_fifo_tiles:
        dram = (
            n.row_blocks * n.column_tiles * n.down_tiles * p.count * p.passes * machine.rows * machine.cols * t.spread
        )
    else:
        if t.streams[1] or not on_chip:
            kept = not t.streams[1] or (t.columns_first and n.runs_down == 1)
            dram += p.stationary.nbytes * (1 if kept else n.row_blocks)
        if t.streams[0] or not on_chip:
            dram += p.streamed.nbytes * (n.column_tiles if _brought_again(t, n) else 1)
        dram += p.out.nbytes if t.streams[2] else 0
    sums = 4 * (2 * n.down_tiles * p.passes) * p.count * p.m * p.n
    act_byte = energy.sram_byte(machine.act.nbytes // machine.act.banks)
    picojoules = (
        macs * (energy.mac(p.dtype) + 40 * energy.hop_bit)
        + (streamed + stationary) * act_byte
        + sums * energy.sram_byte(machine.acc.nbytes // machine.acc.banks)
        + dram / 8 * energy.dram
    )
    return Cost(cycles, cycles / machine.clock_hz, cycles - ideal, streamed + stationary, dram, picojoules * 1e-12)
