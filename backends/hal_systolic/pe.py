"""The PE level: every register of every processing element, one clock edge at a time, and the inputs that feed them.

The arrays are those of `rtl/`: a test runs both and compares every sum after every edge. Numbers are whatever the NumPy
types do: int32 wraps, float32 rounds each addition to nearest even in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hal.plugin import Array


class Inputs(NamedTuple):
    """What the edges of an array see at one clock edge.

    Attributes:
        left: an activation for each row.
        top: for each column a weight, or with `os` an element of the second operand.
        switch: by row, whether this activation is the first for the new weights.
        capture: by column, whether the weights in the pipe are all in place; with one buffer of weights, and the same
            for all columns, whether weights move; with `os`, whether sums move down.
    """

    left: Array
    top: Array
    switch: Array
    capture: Array


class WeightStationary:
    """Weights stay, activations move right, sums move down.

    With two buffers a weight passes three registers: a pipe that always moves down, a shadow that takes over what is in
    the pipe when its column is captured, and the active one that takes over the shadow when the switch comes by, which
    travels right with the activations. With one buffer the active weights themselves move while they are loaded.

    Where products are summed in groups of rows, a second sum moves down: that of the group so far, which its last row
    adds to the first.
    """

    def __init__(self, rows: int, cols: int, dtype: np.dtype, buffers: int = 2, group: int = 1) -> None:
        self.buffers = buffers
        if group > 1:
            row = np.arange(rows)
            self._begins = (row % group == 0)[:, None]
            self._ends = ((row % group == group - 1) | (row == rows - 1))[:, None]
            self._of_group = np.zeros((rows + 1, cols), dtype)
        self._group = group
        self.pipe, self.shadow, self.active = (np.zeros((rows, cols), dtype) for _ in range(3))
        self._activation = [np.zeros((rows, cols + 1), dtype) for _ in range(2)]
        self._switch = [np.zeros((rows, cols + 1), bool) for _ in range(2)]
        self._sums = [np.zeros((rows + 1, cols), dtype) for _ in range(2)]
        self._products = np.zeros((rows, cols), dtype)
        self._moving = 0  # edges for which some switch is still under way

    @property
    def sums(self) -> Array:
        """The sum register of every processing element."""
        return self._sums[0][1:]

    @property
    def activations(self) -> Array:
        """The activation register of every processing element."""
        return self._activation[0][:, 1:]

    def clock(self, inputs: Inputs) -> None:
        """One clock edge: all registers take what stands at their inputs."""
        before, after = self._activation
        before[:, 0] = inputs.left
        if self.buffers == 2:
            self._move_weights(inputs)
        elif inputs.capture[0]:
            self.active[1:] = self.active[:-1].copy()
            self.active[0] = inputs.top
        np.multiply(before[:, :-1], self.active, out=self._products)
        if self._group == 1:
            np.add(self._sums[0][:-1], self._products, out=self._sums[1][1:])
        else:
            so_far = np.where(self._begins, self._products, self._of_group[:-1] + self._products)
            self._sums[1][1:] = np.where(self._ends, self._sums[0][:-1] + so_far, self._sums[0][:-1])
            self._of_group[1:] = so_far
        after[:, 1:] = before[:, :-1]
        self._activation.reverse()
        self._sums.reverse()

    def _move_weights(self, inputs: Inputs) -> None:
        if self._moving or inputs.switch.any():
            before, after = self._switch
            before[:, 0] = inputs.switch
            np.copyto(self.active, self.shadow, where=before[:, :-1])
            after[:, 1:] = before[:, :-1]
            self._switch.reverse()
            self._moving = before.shape[1] if inputs.switch.any() else self._moving - 1
        columns = np.flatnonzero(inputs.capture)
        if columns.size:
            self.shadow[1:, columns] = self.pipe[:-1, columns]
            self.shadow[0, columns] = inputs.top[columns]
        self.pipe[1:] = self.pipe[:-1].copy()
        self.pipe[0] = inputs.top


class OutputStationary:
    """Sums stay while both operands pass, one to the right and one down; then they move down and out."""

    def __init__(self, rows: int, cols: int, dtype: np.dtype) -> None:
        self._right = [np.zeros((rows, cols + 1), dtype) for _ in range(2)]
        self._down = [np.zeros((rows + 1, cols), dtype) for _ in range(2)]
        self.sums = np.zeros((rows, cols), dtype)
        self._products = np.zeros((rows, cols), dtype)

    @property
    def activations(self) -> Array:
        """The register of every processing element that moves to the right."""
        return self._right[0][:, 1:]

    def clock(self, inputs: Inputs) -> None:
        """One clock edge."""
        (right, right_after), (down, down_after) = self._right, self._down
        right[:, 0], down[0] = inputs.left, inputs.top
        np.multiply(right[:, :-1], down[:-1], out=self._products)
        moving = np.flatnonzero(inputs.capture)
        if moving.size:
            shifted = np.zeros((self.sums.shape[0], moving.size), self.sums.dtype)
            shifted[1:] = self.sums[:-1, moving]
        self.sums += self._products
        if moving.size:
            self.sums[:, moving] = shifted
        right_after[:, 1:], down_after[1:] = right[:, :-1], down[:-1]
        self._right.reverse()
        self._down.reverse()


Watch = Callable[[int, WeightStationary | OutputStationary], None]  # told each clock edge, and the array after it


@dataclass(frozen=True)
class Run:
    """A product on the PE level.

    Attributes:
        out: the product.
        cycles: clock edges from the first weight (with `os`, operand) entering to the last sum leaving.
    """

    out: Array
    cycles: int


def weight_stationary_starts(tiles: int, m: int, rows: int, cols: int, buffers: int) -> list[int]:
    """The edges at which the first row of operands enters, tile by tile."""
    period = max(m, rows) if buffers == 2 else m + 2 * rows + cols - 2
    return [rows + i * period for i in range(tiles)]


def weight_stationary_inputs(a: Array, tiles: Array, buffers: int) -> Iterator[Inputs]:
    """The inputs that pass `a`, of shape (tiles, m, rows), through `tiles`, of shape (tiles, rows, cols)."""
    count, m, rows = a.shape
    cols = tiles.shape[2]
    starts = weight_stationary_starts(count, m, rows, cols, buffers)
    edges = starts[-1] + m + rows + cols - 2
    skew = np.arange(cols) if buffers == 2 else np.zeros(cols, int)
    left = np.zeros((edges, rows), a.dtype)
    top = np.zeros((edges + rows + cols, cols), a.dtype)
    switch, capture = np.zeros((edges, rows), bool), np.zeros((edges + rows + cols, cols), bool)
    for tile, start in enumerate(starts):
        for row in range(rows):
            left[start + row : start + row + m, row] = a[tile, :, row]
            switch[start + row, row] = True
            top[start - 1 - row + skew, np.arange(cols)] = tiles[tile, row]
            if buffers == 1:
                capture[start - 1 - row] = True
        if buffers == 2:
            capture[start - 1 + skew, np.arange(cols)] = True
    yield from map(Inputs, left, top[:edges], switch, capture[:edges])


def output_stationary_inputs(a: Array, b: Array) -> Iterator[Inputs]:
    """The inputs of one fold: `a` of shape (rows, k) from the left, `b` of shape (k, cols) from the top, then out."""
    (rows, k), cols = a.shape, b.shape[1]
    edges = k + 2 * rows + cols - 3
    left, top = np.zeros((edges + rows, rows), a.dtype), np.zeros((edges + cols, cols), a.dtype)
    moving = np.zeros((edges + rows, cols), bool)
    for row in range(rows):
        left[row : row + k, row] = a[row]
    for col in range(cols):
        top[col : col + k, col] = b[:, col]
        moving[k + rows - 1 + col : k + 2 * rows - 2 + col, col] = True
    yield from map(Inputs, left[:edges], top[:edges], np.zeros((edges, rows), bool), moving[:edges])


def matmul(
    a: Array, b: Array, rows: int, cols: int, *, dataflow: str = "ws", buffers: int = 2, group: int = 1,
    watch: Watch | None = None,
) -> Run:  # fmt: skip
    """The product (m, k) @ (k, n), every register at every clock edge.

    Operands are of the accumulators' type: int32, or float32 that holds bfloat16 values. Along k the tiles' sums are
    added in the order of the tiles, each to the sum so far.

    Args:
        group: rows whose products are summed before they are added to the running sum; not with `os`.
        watch: told of every clock edge.
    """
    if dataflow == "is":
        run = matmul(b.T, a.T, rows, cols, buffers=buffers, group=group, watch=watch)
        return Run(run.out.T, run.cycles)
    return _output_stationary(a, b, rows, cols, watch) if dataflow == "os" else _weight_stationary(
        a, b, rows, cols, buffers, group, watch
    )  # fmt: skip


def _padded(x: Array, height: int, width: int) -> Array:
    """`x` with zeros to multiples of a tile's size."""
    down, across = -x.shape[0] % height, -x.shape[1] % width
    return np.pad(x, ((0, down), (0, across)))


def _weight_stationary(a: Array, b: Array, rows: int, cols: int, buffers: int, group: int, watch: Watch | None) -> Run:
    m, n = a.shape[0], b.shape[1]
    wide, high = _padded(a, 1, rows), _padded(b, rows, cols)
    down, across = high.shape[0] // rows, high.shape[1] // cols
    order = [(j, i) for j in range(across) for i in range(down)]  # all of k for one tile of columns, then the next
    tiles = np.stack([high[i * rows : (i + 1) * rows, j * cols : (j + 1) * cols] for j, i in order])
    streamed = np.stack([wide[:, i * rows : (i + 1) * rows] for _, i in order])
    array = WeightStationary(rows, cols, a.dtype, buffers, group)
    bottoms = []
    for edge, inputs in enumerate(weight_stationary_inputs(streamed, tiles, buffers)):
        array.clock(inputs)
        bottoms.append(array.sums[-1].copy())
        if watch is not None:
            watch(edge, array)
    bottom = np.stack(bottoms)
    out = np.zeros((m, high.shape[1]), a.dtype)
    starts = weight_stationary_starts(len(order), m, rows, cols, buffers)
    for (j, i), start in zip(order, starts, strict=True):
        sums = np.stack([bottom[start + rows - 1 + c : start + rows - 1 + c + m, c] for c in range(cols)], axis=1)
        columns = slice(j * cols, (j + 1) * cols)
        out[:, columns] = sums if i == 0 else out[:, columns] + sums
    return Run(out[:, :n], len(bottoms))


def _output_stationary(a: Array, b: Array, rows: int, cols: int, watch: Watch | None) -> Run:
    (m, k), n = a.shape, b.shape[1]
    high, wide = _padded(a, rows, 1), _padded(b, 1, cols)
    out = np.zeros((high.shape[0], wide.shape[1]), a.dtype)
    edge = 0
    for i in range(0, high.shape[0], rows):
        for j in range(0, wide.shape[1], cols):
            array, bottoms = OutputStationary(rows, cols, a.dtype), []
            for inputs in output_stationary_inputs(high[i : i + rows], wide[:, j : j + cols]):
                array.clock(inputs)
                bottoms.append(array.sums[-1].copy())
                if watch is not None:
                    watch(edge, array)
                edge += 1
            bottom = np.stack(bottoms)
            for c in range(cols):  # the lowest row comes first
                out[i : i + rows, j + c] = bottom[k + rows - 2 + c : k + 2 * rows - 2 + c, c][::-1]
    return Run(out[:m, :n], edge)


def occupancy(steps: int, rows: int, cols: int) -> Array:
    """Processing elements at work in each cycle of a wavefront: three boxes, as long as steps, rows and columns."""
    return np.convolve(np.convolve(np.ones(steps, int), np.ones(rows, int)), np.ones(cols, int))
