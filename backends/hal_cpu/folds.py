"""Reductions of elementwise chains: each block is reduced while it is in the cache, so what is summed is never written.

A sum of blocks adds up in another order than a sum of the whole, and may differ from it in the last bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from hal.plugin import Array
from hal_cpu.chains import Chain, Cut, Shape
from hal_cpu.parallel import in_parts
from hal_cpu.quiet import quiet
from hal_cpu.reduction import sum_of_columns, sum_of_rows

BLOCK = 1 << 17  # elements: a sum is a call of BLAS, which is worth more than staying in the nearest cache (measured)


def reduced_cut(inputs: list[Shape], shape: Shape, axes: tuple[int, ...]) -> Cut | None:
    """How to cut what is reduced over `axes`, all or the first or the last of them, into blocks; None without a way."""
    ndim, count = len(shape), len(axes)
    if not axes:
        return None
    if axes == tuple(range(ndim)):
        edges = range(ndim, -1, -1)
    elif axes == tuple(range(ndim - count, ndim)):
        edges = range(ndim - count, ndim - count + 1)
    elif axes == tuple(range(count)):
        edges = range(count, count + 1)
    else:
        return None
    return next((cut for axis in edges if (cut := Cut(shape, axis, BLOCK)).fits(inputs)), None)


def summed(x: Array, *, axis: int | None, keepdims: bool) -> Array:
    """The sum of a contiguous block of floats: of each row, of each column, or of all."""
    if x.ndim == 1 or axis is None:
        return sum_of_rows(x.reshape(1, -1))[0]
    return sum_of_rows(x) if axis else sum_of_columns(x[None])[0]


@dataclass(frozen=True)
class Reduction:
    """What is done with the result of a chain.

    Attributes:
        run: the kernel for blocks, which takes `axis` and `keepdims`.
        whole: the kernel for whole arrays, with its settings.
        axes: what is reduced.
        divisor: by what the result is divided, where it is a mean.
        shape, dtype: of the result.
    """

    run: Callable[..., Any]
    whole: Callable[..., Any]
    axes: tuple[int, ...]
    divisor: int
    shape: Shape
    dtype: np.dtype[Any]


class Fold:
    """A chain whose result is reduced, called with the arrays that it is given and perhaps `out=`."""

    def __init__(self, chain: Chain, reduction: Reduction) -> None:
        self.chain = chain
        self.reduction = reduction
        self.everything = len(reduction.axes) == len(chain.cut.shape)
        self.by_row = not self.everything and 0 not in reduction.axes

    def __call__(self, *inputs: Array, out: tuple[Array | None, ...] | None = None) -> tuple[Array, ...]:
        chain, reduction = self.chain, self.reduction
        target = out[0] if out is not None else None
        order = chain.order(inputs)
        if order is None or (order != chain.axes and not self.everything):
            found = quiet(reduction.whole)(*chain.one_by_one(inputs))
        else:
            found = self._in_blocks(chain.tables(inputs, order)).reshape(reduction.shape)
        if target is None:
            return (np.asarray(found, reduction.dtype),)
        np.copyto(target, found)
        return (target,)

    def _in_blocks(self, tables: list[tuple[Array, bool]]) -> Array:
        chain, reduction = self.chain, self.reduction
        rows = np.empty(chain.rows, reduction.dtype) if self.by_row else None
        axis = None if self.everything else int(self.by_row)

        def part(start: int, stop: int) -> list[Array]:
            spare = chain.spare()
            partial = []
            for at in range(start, stop, chain.step):
                until = min(at + chain.step, stop)
                value = chain.block(tables, {}, spare, at, until)
                found = reduction.run(value, axis=axis, keepdims=False)
                if rows is None:
                    partial.append(np.asarray(found))
                else:
                    rows[at:until] = found
            return partial

        parts = in_parts(quiet(part), chain.rows, (2 * len(chain.steps) + 2) * prod(chain.lying))
        result: Array = rows if rows is not None else quiet(reduction.run)(
            np.stack([x for partial in parts for x in partial]), axis=0, keepdims=False
        )  # fmt: skip
        return np.asarray(np.divide(result, reduction.divisor) if reduction.divisor > 1 else result)
