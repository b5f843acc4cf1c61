"""How a product is cut to fit a machine: rows at a time, tiles of the stationary operand, and who works on what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hal.plugin import ConfigError
from hal_systolic.config import ACCUMULATOR_BYTES, WEIGHT_BYTES, Machine
from hal_systolic.work import Matmul, Operand

STREAM_SHARE = 1 / 4  # of a buffer that tensors pass through in slices; the rest is for those that stay
SLOTS = 6  # two for each of the three operands of a product


def slot_bytes(machine: Machine) -> int:
    """Bytes of the activation buffer for one slice of an operand that does not stay there."""
    return int(machine.act.nbytes * STREAM_SHARE) // SLOTS // 64 * 64


@dataclass(frozen=True, slots=True)
class Problem:
    """A product as the array sees it: rows of `streamed` pass tiles of `stationary`.

    With `is` the roles of the operands are exchanged, so that m and n are too.
    """

    m: int
    k: int
    n: int
    streamed: Operand
    stationary: Operand
    out: Operand
    dtype: str
    count: int
    passes: int
    halo: int
    epilogue: int
    layer: str

    @property
    def row_bytes(self) -> float:
        """Bytes of the streamed operand for one row of one product; less than k elements in a convolution."""
        return self.streamed.nbytes / (self.count * self.m)


def problem(work: Matmul, machine: Machine) -> Problem:
    """`work` with the roles that the machine's dataflow gives its operands."""
    m, n, a, b = work.m, work.n, work.a, work.b
    if machine.dataflow == "is":
        m, n, a, b = n, m, b, a
        # Tiles of an image have the elements that they hold, also where the strides of a convolution leave some out.
        b = replace(b, nbytes=min(b.nbytes, work.k * n * work.count * WEIGHT_BYTES[work.dtype]))
    return Problem(
        m, work.k, n, a, b, work.out, work.dtype, work.count, work.passes, work.halo, work.epilogue, work.layer
    )


@dataclass(frozen=True, slots=True)
class Tiling:
    """Sizes of the loops: products, blocks of rows, tiles across, runs of tiles down.

    Attributes:
        rows: rows of the streamed operand in one block.
        k_tiles: tiles along k in one run.
        group: products whose rows share a block; more than 1 only where one block has all rows.
        spread: arrays that work side by side across n; the others share the rows.
        streams: which of the streamed operand, the stationary one and the result do not stay in their buffer.
        columns_first: whether all rows pass a run of tiles before the next one, which saves loading it again.
    """

    rows: int
    k_tiles: int
    group: int
    spread: int
    streams: tuple[bool, bool, bool]
    columns_first: bool


@dataclass(frozen=True, slots=True)
class Loops:
    """What a tiling comes to."""

    row_blocks: int
    column_tiles: int
    down_tiles: int
    runs_down: int
    groups: int


def loops(p: Problem, t: Tiling, machine: Machine) -> Loops:
    """How often each loop runs."""
    down = -(-p.k // machine.rows)
    return Loops(
        -(-p.m // t.rows), -(-p.n // (machine.cols * t.spread)), down, -(-down // t.k_tiles), -(-p.count // t.group)
    )


def tilings(p: Problem, machine: Machine, streams: tuple[bool, bool, bool]) -> Iterator[Tiling]:
    """The tilings that fit the machine's buffers: the largest blocks first, then smaller and smaller ones.

    Raises:
        ConfigError: none fits.
    """
    most = _most_rows(p, machine, streams, 2)
    largest = -(-p.m // -(-p.m // most))
    yield _tiling(p, machine, streams, largest)
    seen = {largest}
    if p.m > most:  # all accumulators at once: weights are loaded less often, but nothing is read meanwhile
        whole = _most_rows(p, machine, streams, 1)
        seen.add(rows := -(-p.m // -(-p.m // whole)))
        if rows > most:
            yield _tiling(p, machine, streams, rows)
    for parts in (2, 3, 4, 6, 8, 12, 16):
        rows = -(-p.m // (-(-p.m // most) * parts))
        if rows not in seen and rows >= machine.rows // 2:
            seen.add(rows)
            yield _tiling(p, machine, streams, rows)


def half_of_accumulators(machine: Machine, spread: int) -> int:
    """Rows of results for which there are accumulators while the other half is read."""
    return machine.acc.nbytes // 2 // (machine.cols * spread * ACCUMULATOR_BYTES)


def _most_rows(p: Problem, machine: Machine, streams: tuple[bool, bool, bool], buffers: int) -> int:
    """Rows that the accumulators hold `buffers` times, and a slot the slices of operands that do not stay."""
    spread = min(machine.arrays, -(-p.n // machine.cols))
    most = machine.acc.nbytes // buffers // (machine.cols * spread * ACCUMULATOR_BYTES)
    slot = slot_bytes(machine)
    if streams[0]:
        fits = int((slot - p.halo) / p.row_bytes) if slot > p.halo else 0
        shallow = int(slot / (p.row_bytes * min(1.0, machine.rows / p.k)))  # rows of one tile along k
        most = min(most, fits if fits >= min(p.m, machine.rows) else shallow)
    if streams[2]:
        columns = min(p.n, machine.cols * spread)
        most = min(most, int(slot / (p.out.nbytes / (p.count * p.m * p.n) * columns)))
    if most < 1:
        raise ConfigError(
            f"{p.layer or 'matmul'} ({p.m}, {p.k}) @ ({p.k}, {p.n}): one row is larger than its buffer on "
            f"{machine.name}; a slice may have {slot} bytes, so act.nbytes must be larger"
        )
    return most


def _tiling(p: Problem, machine: Machine, streams: tuple[bool, bool, bool], rows: int) -> Tiling:
    spread = min(machine.arrays, -(-p.n // machine.cols))
    down = -(-p.k // machine.rows)
    k_tiles = down
    slot = slot_bytes(machine)
    if streams[1] and not machine.weight_fifo_tiles:
        lent = machine.weight.nbytes // 4 if machine.weight.nbytes else slot
        tile = machine.rows * machine.cols * spread * WEIGHT_BYTES[p.dtype]
        if tile > lent:
            raise ConfigError(
                f"{p.layer or 'matmul'}: a tile of {tile} bytes is larger than its buffer on {machine.name}, which "
                f"lends {lent} bytes to each of two: the buffer must be larger"
            )
        k_tiles = min(k_tiles, max(lent // tile, 1))
    if streams[0] and rows * p.row_bytes + p.halo > slot:
        k_tiles = min(k_tiles, max(int(slot / (rows * p.row_bytes / down)), 1))
    group = 1
    if rows == p.m and p.count > 1 and k_tiles == down:
        group = max(min(p.count, half_of_accumulators(machine, spread) // rows), 1)
        for streaming, operand in zip(streams, (p.streamed, p.stationary, p.out), strict=True):
            if streaming and operand.nbytes:
                group = max(min(group, slot * p.count // operand.nbytes), 1)
    columns_first = streams[1] and not machine.weight_fifo_tiles
    if columns_first and streams[0]:  # one of the two is brought again and again: let it be the smaller in all
        again = p.stationary.nbytes * (-(-p.m // rows) - 1) - p.streamed.nbytes * (
            -(-p.n // (machine.cols * spread)) - 1
        )
        columns_first = again > 0 and k_tiles == down
    return Tiling(rows, k_tiles, group, spread, streams, columns_first)
