"""Elementwise chains: all ops on one block of the arrays before the next block, on as many threads as are worth waking.

Op by op over whole arrays, each op reads and writes main memory; in blocks, only what goes in and what comes out does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from hal.plugin import Array, Spec
from hal_cpu.parallel import in_parts, scratch
from hal_cpu.quiet import quiet

BLOCK = 1 << 15  # elements: large enough to hide the cost of a NumPy call, and a few such arrays stay in the cache
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One op of a chain.

    Attributes:
        run: the kernel for blocks, which is told where to write.
        whole: the kernel for whole arrays.
        inputs, output: numbers of values: first what the chain is given, then the results of its ops in their order.
        dtype: of the result.
    """

    run: Callable[..., Any]
    whole: Callable[..., Any]
    inputs: tuple[int, ...]
    output: int
    settings: Mapping[str, Any]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Cut:
    """The axes of the results as rows and columns: those before `axis` are rows; without columns, elements."""

    shape: Shape
    axis: int
    elements: int = BLOCK  # of a block, about

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return prod(self.shape[: self.axis])

    @property
    def columns(self) -> int:
        """How many elements a row has."""
        return prod(self.shape[self.axis :])

    @property
    def lying(self) -> Shape:
        """The shape as a matrix, or as a vector of elements."""
        return (self.rows,) if self.axis == len(self.shape) else (self.rows, self.columns)

    @property
    def step(self) -> int:
        """Rows in a block."""
        return max(1, self.elements // max(1, self.columns))

    def kind(self, shape: Shape) -> str:
        """How an input goes with the rows: `all`, one number for each of the `rows`, one row of `columns`, or `one`."""
        padded = (1,) * (len(self.shape) - len(shape)) + shape
        head, tail = padded[: self.axis], padded[self.axis :]
        whole_head, whole_tail = head == self.shape[: self.axis], tail == self.shape[self.axis :]
        if shape == self.shape:
            return "all"
        if prod(padded) == 1:
            return "one"
        if whole_head and prod(tail) == 1:
            return "rows"
        return "columns" if prod(head) == 1 and whole_tail else ""

    def fits(self, inputs: Sequence[Shape]) -> bool:
        """Whether every input has all rows or one, and all columns or one, and a row is no larger than a block."""
        return 0 not in self.shape and self.columns <= self.elements and all(self.kind(s) for s in inputs)

    def block(self, spec: Spec) -> Spec:
        """What a kernel sees of a value at a time."""
        kind, rest = self.kind(spec.shape), self.lying[1:]
        shape = {"all": (self.step, *rest), "rows": (self.step, *(1 for _ in rest)), "columns": (1, *rest), "one": ()}
        return Spec(shape[kind], spec.dtype)


def rows_and_columns(inputs: Sequence[Shape], shape: Shape) -> Cut | None:
    """How to cut `shape` so that every input has all rows or one, and all columns or one; None if there is no way."""
    cuts = (Cut(shape, axis) for axis in range(len(shape), -1, -1))
    return next((cut for cut in cuts if cut.fits(inputs)), None)


class Chain:
    """A chain of elementwise ops, called with the arrays that it is given and perhaps `out=`."""

    def __init__(self, cut: Cut, steps: list[Step], inputs: list[Shape], outputs: list[int],
                 leaving: bool = True) -> None:  # fmt: skip
        """`leaving`: whether the outputs are written as a whole, and not only seen block by block."""
        self.cut = cut
        self.lying, self.rows, self.step = cut.lying, cut.rows, cut.step
        self.axes = tuple(range(len(cut.shape)))
        self.steps = steps
        self.kinds = [cut.kind(s) for s in inputs]
        self.outputs = outputs
        self.dtypes = {s.output: s.dtype for s in steps}
        self.slots, self.count = _slots(steps, set(outputs) if leaving else set())
        self.line = max((d.itemsize for d in self.dtypes.values()), default=1) * cut.step * cut.columns

    def __call__(self, *inputs: Array, out: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
        order = self.order(inputs)
        given = out or (None,) * len(self.outputs)
        if order is None:
            return self._delivered(self.one_by_one(inputs), given)
        results = [
            self._empty(order, self.dtypes[n]) if x is None else x for n, x in zip(self.outputs, given, strict=True)
        ]
        turned = [x.transpose(order) for x in results]
        if not all(x.flags.c_contiguous for x in turned):
            return self._delivered(self.one_by_one(inputs), given)
        lying = self.lying
        targets = {n: x.reshape(lying) for n, x in zip(self.outputs, turned, strict=True)}
        tables = self.tables(inputs, order)

        def part(start: int, stop: int) -> None:
            spare = self.spare()
            for at in range(start, stop, self.step):
                self.block(tables, targets, spare, at, min(at + self.step, stop))

        in_parts(quiet(part), self.rows, 2 * len(self.steps) * prod(lying))
        return tuple(results)

    def order(self, inputs: Sequence[Array]) -> tuple[int, ...] | None:
        """The one order in which the axes of all inputs lie in memory; None without one."""
        full = [x for x, kind in zip(inputs, self.kinds, strict=True) if kind == "all"]
        if all(x.flags.c_contiguous for x in full):
            return self.axes
        if not {"all", "one"}.issuperset(self.kinds) or len(self.lying) > 1:  # rows are rows of the shape
            return None
        order = tuple(sorted(self.axes, key=lambda axis: -full[0].strides[axis]))
        return order if all(x.transpose(order).flags.c_contiguous for x in full) else None

    def _empty(self, order: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        if order is self.axes:
            return np.empty(self.cut.shape, dtype)
        return np.empty([self.cut.shape[axis] for axis in order], dtype).transpose(np.argsort(order))

    def tables(self, inputs: Sequence[Array], order: tuple[int, ...]) -> list[tuple[Array, bool]]:
        """Each input as a matrix or vector, and whether each block has its own rows of it."""
        return [self._table(x, kind, order) for x, kind in zip(inputs, self.kinds, strict=True)]

    def _table(self, x: Array, kind: str, order: tuple[int, ...]) -> tuple[Array, bool]:
        lying = self.lying
        if kind == "all":
            return x.transpose(order).reshape(lying), True
        if kind == "rows":
            return x.reshape((lying[0], *(1 for _ in lying[1:]))), True
        return x.reshape((1, lying[1]) if kind == "columns" else ()), False

    def spare(self) -> dict[int, Array]:
        """Memory of this thread for a block of each result that does not leave the chain."""
        memory = scratch("chain", (self.count, self.line), np.uint8)
        shape = (self.step, *self.lying[1:])
        return {
            n: memory[slot, : prod(shape) * self.dtypes[n].itemsize].view(self.dtypes[n]).reshape(shape)
            for n, slot in self.slots.items()
        }

    def block(
        self, tables: list[tuple[Array, bool]], targets: dict[int, Array], spare: dict[int, Array], at: int, stop: int
    ) -> Array:
        """Run the ops on some rows, with results in `targets` if they belong there; the last one's result."""
        values = [x[at:stop] if moves else x for x, moves in tables]
        for step in self.steps:
            target = targets[step.output][at:stop] if step.output in targets else spare[step.output][: stop - at]
            values.append(step.run(*[values[i] for i in step.inputs], **step.settings, out=target))
        return values[-1]

    def one_by_one(self, inputs: Sequence[Array]) -> list[Array]:
        """The results of the ops on whole arrays, for those that lie in memory in different orders."""
        values = list(inputs)
        for step in self.steps:
            values.append(quiet(step.whole)(*[values[i] for i in step.inputs], **step.settings))
        return [values[n] for n in self.outputs]

    def _delivered(self, results: list[Array], out: Sequence[Array | None]) -> tuple[Array, ...]:
        for target, value in zip(out, results, strict=True):
            if target is not None:
                np.copyto(target, value)
        return tuple(r if t is None else t for r, t in zip(results, out, strict=True))


def _slots(steps: list[Step], leaving: set[int]) -> tuple[dict[int, int], int]:
    """Which line of scratch memory each result has that does not leave the chain, and how many lines that takes."""
    last = {x: i for i, step in enumerate(steps) for x in step.inputs}
    slots: dict[int, int] = {}
    free: list[int] = []
    count = 0
    for i, step in enumerate(steps):
        if step.output not in leaving:
            if not free:
                free.append(count)
                count += 1
            slots[step.output] = free.pop()
        free += [slots[x] for x in dict.fromkeys(step.inputs) if last[x] == i and x in slots]
    return slots, count
