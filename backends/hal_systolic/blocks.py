"""The loops of one product: blocks of rows, tiles of columns, runs of tiles along k, and the slices that each needs."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from hal_systolic.config import ACCUMULATOR_BYTES, BYTES, WEIGHT_BYTES
from hal_systolic.residency import Residency, Resident
from hal_systolic.stream import Range
from hal_systolic.tiling import Problem, Tiling, loops, slot_bytes
from hal_systolic.work import Operand

if TYPE_CHECKING:
    from hal_systolic.compiler import Compiler


class Product:
    """One product under one tiling.

    Attributes:
        c: the compiler, whose stream and buffers it uses.
    """

    def __init__(
        self,
        compiler: Compiler,
        p: Problem,
        tiling: Tiling,
        streamed: Resident | None,
        stationary: tuple[Residency, Resident] | None,
        out: Resident | None,
    ) -> None:
        self.c, self.p, self.t = compiler, p, tiling
        self.machine = compiler.machine
        self.loops = loops(p, tiling, self.machine)
        self.streamed, self.stationary, self.out = streamed, stationary, out
        self.width = self.machine.cols * tiling.spread
        self.slot = slot_bytes(self.machine)
        self.held: dict[str, dict[int, tuple[int, int]]] = {"streamed": {}, "stationary": {}}  # slices in the slots
        self.weights = f"t{p.stationary.key}"
        self.turn = {"streamed": 0, "stationary": 0, "out": 0}

    def emit(self) -> None:
        count, rows = self.p.count, self.t.rows
        for group in range(self.loops.groups):
            products = (group * self.t.group, min((group + 1) * self.t.group, count))
            blocks = [(m, min(m + rows, self.p.m)) for m in range(0, self.p.m, rows)]
            columns = range(self.loops.column_tiles)
            if self.t.columns_first:
                for column in columns:
                    for block in blocks:
                        self._block(products, block, column)
            else:
                for block in blocks:
                    for column in columns:
                        self._block(products, block, column)

    def _block(self, products: tuple[int, int], block: tuple[int, int], column: int) -> None:
        """All of k for one block of rows and one tile of columns: runs of tiles, then the way out."""
        p, t, machine = self.p, self.t, self.machine
        first, last = products
        rows, group = block[1] - block[0], last - first
        columns = min(self.width, p.n - column * self.width)
        nbytes, half = rows * group * self.width * ACCUMULATOR_BYTES, machine.acc.nbytes // 2
        if nbytes > half:
            self.c.half = 0
        acc = Range("acc", self.c.half * half, self.c.half * half + nbytes)
        self.c.half = 1 - self.c.half
        sharing = max(machine.arrays // t.spread, 1)
        issue = ceil(rows / sharing) * machine.cycles_per_row(p.dtype)
        for down in range(0, self.loops.down_tiles, t.k_tiles):
            tiles = min(t.k_tiles, self.loops.down_tiles - down)
            depth = min((down + tiles) * machine.rows, p.k) - down * machine.rows
            streamed = self._streamed(products, block, down, tiles)
            stationary = self._stationary(products, column, down, tiles)
            work = tiles * group * p.passes
            streamed_bytes = rows * depth * group * p.passes * BYTES[p.dtype]
            loaded = depth * columns * group * p.passes * WEIGHT_BYTES[p.dtype]
            operands: tuple[Range, ...] = (streamed,)
            if machine.weight_fifo_tiles:
                tile = machine.rows * self.width * WEIGHT_BYTES[p.dtype]
                self.c.emit("FETCH_W", (stationary,), tiles=work, nbytes=tile, role="weights", what=self.weights)
                self.c.emit("LOAD_W", tiles=work, nbytes=loaded)
            elif machine.dataflow == "os":
                down_folds = ceil(ceil(rows / sharing) / machine.rows)
                work, operands = down_folds * group * p.passes, (streamed, stationary)
                issue, streamed_bytes = depth * machine.cycles_per_row(p.dtype), streamed_bytes + down_folds * loaded
            else:
                self.c.emit("LOAD_W", (stationary,), tiles=work, nbytes=loaded, what=self.weights)
            self.c.emit(
                "MATMUL", operands, (acc,), tiles=work, rows=depth if machine.dataflow == "os" else rows, issue=issue,
                columns=columns, nbytes=streamed_bytes, macs=rows * depth * columns * group, accumulate=down > 0,
                what=p.dtype,
            )  # fmt: skip
        out = self._out(products, block, column)
        self.c.emit("ACT", (acc,), (out,), elements=rows * group * columns, ops=float(max(p.epilogue, 1)))
        if self.out is None:
            low, high = self._out_bytes(products, block, column)
            self.c.store(p.out, low, high, out)

    def _streamed(self, products: tuple[int, int], block: tuple[int, int], down: int, tiles: int) -> Range:
        """The rows that pass the array: all of k where they stay, or k fits a slot."""
        p = self.p
        each = p.streamed.nbytes / p.count
        low = int(products[0] * each + block[0] * each / p.m)
        high = int((products[1] - 1) * each + block[1] * each / p.m)
        high = min(high + (p.halo if block[1] < p.m else 0), p.streamed.nbytes)
        if self.streamed is not None:
            return self.c.resident_slice(self.c.act, self.streamed, p.streamed, low, high)
        if self.loops.runs_down > 1:
            share = (high - low) / self.loops.down_tiles
            low, high = int(low + down * share), int(low + (down + tiles) * share)
        return self._slot("streamed", p.streamed, low, high, "act", 0, self.slot)

    def _stationary(self, products: tuple[int, int], column: int, down: int, tiles: int) -> Range:
        """Tiles of the stationary operand, which lies in panels of a tile's width."""
        p = self.p
        each = p.stationary.nbytes / p.count
        panel = each / self.loops.column_tiles
        low = int(products[0] * each + column * panel + down * panel / self.loops.down_tiles)
        high = (products[1] - 1) * each + column * panel + (down + tiles) * panel / self.loops.down_tiles
        high = min(ceil(high), p.stationary.nbytes)
        if self.stationary is not None:
            store, resident = self.stationary
            return self.c.resident_slice(store, resident, p.stationary, low, high)
        if self.machine.weight_fifo_tiles:
            return self.c.off_chip(p.stationary, "dram", low, high)
        if self.machine.weight.nbytes:
            return self._slot("stationary", p.stationary, low, high, "weight", 0, self.machine.weight.nbytes // 4)
        return self._slot("stationary", p.stationary, low, high, "act", 2 * self.slot, self.slot)

    def _out_bytes(self, products: tuple[int, int], block: tuple[int, int], column: int) -> tuple[int, int]:
        """The bytes of a block of results: rows lie together, and in them the tiles of columns."""
        p = self.p
        each = p.out.nbytes / p.count
        if products[1] - products[0] > 1:
            low, size = products[0] * each, (products[1] - products[0]) * each
        else:
            low, size = products[0] * each + block[0] * each / p.m, (block[1] - block[0]) * each / p.m
        before, after = column * self.width / p.n, min((column + 1) * self.width / p.n, 1.0)
        return int(low + before * size), int(low + after * size)

    def _out(self, products: tuple[int, int], block: tuple[int, int], column: int) -> Range:
        low, high = self._out_bytes(products, block, column)
        if self.out is not None:
            return Range("act", self.out.start + low, self.out.start + high)
        start = (4 + self._turn("out")) * self.slot
        return Range("act", start, start + high - low)

    def _turn(self, which: str) -> int:
        self.turn[which] = 1 - self.turn[which]
        return self.turn[which]

    def _slot(self, which: str, operand: Operand, low: int, high: int, memory: str, base: int, size: int) -> Range:
        """A slice in one of two slots: the one that has it already, else the one not used last."""
        held = self.held[which]
        for turn, span in held.items():
            if span == (low, high):
                return Range(memory, base + turn * size, base + turn * size + high - low)
        turn = self._turn(which)
        held[turn] = (low, high)
        target = Range(memory, base + turn * size, base + turn * size + high - low)
        self.c.load(operand, low, high, target)
        return target
