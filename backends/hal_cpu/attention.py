"""Attention in NumPy: scores of a few heads and queries at a time, in memory that stays in the cache and is used again.

With `causal`, a block of queries is multiplied with the keys up to its last query only: half of the work, about.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from hal import ops
from hal.ops.attending import scaling
from hal.plugin import Array, Spec
from hal_cpu.parallel import in_parts, scratch
from hal_cpu.softmax import row_max, row_sum
from hal_cpu.table import kernels

BLOCK = 131_072  # scores in a block
QUERIES = 128  # in a block, at least, where there are as many: smaller products are slow
Heads = tuple[tuple[int, ...], slice]


def _wide(x: Array) -> Array:
    """Half precision in float32."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def _with_heads(x: Array, batch: tuple[int, ...]) -> Array:
    """`x` with all batch axes, and at least one: a view."""
    x = _wide(x)
    if x.shape[:-2] != batch:
        x = np.broadcast_to(x, (*batch, *x.shape[-2:]))
    return x if batch else x[None]


@lru_cache(maxsize=64)
def _later(n: int, dtype: np.dtype[Any]) -> Array:
    """What is added to the scores of n queries and the n keys at the same places: later keys are out of reach."""
    return np.triu(np.full((n, n), -np.inf, dtype), 1)


def _bias(mask: Array, dtype: np.dtype[Any]) -> Array:
    """A mask as what is added to scores."""
    if mask.dtype == np.bool_:
        return np.where(mask, dtype.type(0), dtype.type(-np.inf))
    return mask.astype(dtype, copy=False)


class _Call:
    """The blocks of one call, and the weights of the values in a block."""

    def __init__(self, q: Array, k: Array, v: Array, mask: Array | None, causal: bool, scale: float | None) -> None:
        batch = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
        self.batch = batch or (1,)
        self.q, self.k, self.v = (_with_heads(x, batch) for x in (q, k, v))
        self.causal = causal
        self.scale = scaling(scale, q.shape[-1])
        self.queries, self.keys = q.shape[-2], k.shape[-2]
        self.mask: Array | None = None
        if mask is not None:
            self.mask = np.broadcast_to(mask, (*self.batch, self.queries, self.keys))
        fitting = max(1, BLOCK // max(1, self.keys))
        self.rows = min(self.queries, max(QUERIES, fitting))
        step = max(1, fitting // max(1, self.rows))
        self.blocks: list[Heads] = [
            (index, slice(i, min(i + step, self.batch[-1])))
            for index in np.ndindex(self.batch[:-1])
            for i in range(0, self.batch[-1], step)
        ]
        self.work = prod(self.batch) * self.queries * self.keys * (q.shape[-1] + v.shape[-1] + 16)

    def row_blocks(self) -> Iterator[tuple[slice, slice]]:
        """Blocks of queries, and the keys that they can reach."""
        for start in range(0, self.queries, self.rows):
            stop = min(start + self.rows, self.queries)
            yield slice(start, stop), slice(0, min(stop, self.keys) if self.causal else self.keys)

    def exponentials(self, index: tuple[int, ...], heads: slice, rows: slice, keys: slice) -> tuple[Array, Array]:
        """exp(scores - largest), (heads, queries, keys), and the sum for each query, (heads, queries, 1)."""
        q, k = self.q[index][heads, rows], self.k[index][heads, keys]
        scaled = np.multiply(q, self.scale, out=scratch("queries", q.shape, q.dtype))
        scores = scratch("scores", (q.shape[0], q.shape[1], k.shape[1]), q.dtype)
        np.matmul(scaled, np.swapaxes(k, -1, -2), out=scores)
        if self.causal and keys.stop > rows.start:
            reach = scores[:, :, rows.start :]
            np.add(reach, _later(rows.stop - rows.start, q.dtype)[:, : reach.shape[2]], out=reach)
        if self.mask is not None:
            np.add(scores, _bias(self.mask[index][heads, rows, keys], q.dtype), out=scores)
        flat = scores.reshape(-1, scores.shape[2])
        top = row_max(flat)
        if self.mask is not None:
            np.copyto(top, 0, where=top == -np.inf)  # a query without keys has zeros then, and not NaN
        np.subtract(flat, top, out=flat)
        np.exp(flat, out=flat)
        sums = row_sum(flat)
        if self.mask is not None:
            np.copyto(sums, 1, where=sums == 0)
        return scores, sums.reshape(*scores.shape[:2], 1)


@kernels.register(ops.attention)
def attention(q: Array, k: Array, v: Array, mask: Array | None = None, *, causal: bool, scale: float | None) -> Array:
    call = _Call(q, k, v, mask, causal, scale)
    shape = (*call.batch, call.queries, v.shape[-1])
    out = np.empty(shape, call.q.dtype)
    if not out.size or not call.keys:
        out[...] = 0
    else:

        def part(start: int, stop: int) -> None:
            for index, heads in call.blocks[start:stop]:
                for rows, keys in call.row_blocks():
                    weights, sums = call.exponentials(index, heads, rows, keys)
                    result = out[index][heads, rows]
                    np.matmul(weights, call.v[index][heads, keys], out=result)
                    np.divide(result, sums, out=result)

        in_parts(part, len(call.blocks), call.work)
    batch = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    return out.reshape(*batch, *shape[-2:]).astype(q.dtype, copy=False)


def of_one_batch(g: Spec, out: Spec, q: Spec, k: Spec, v: Spec, *rest: Spec, **settings: Any) -> bool:
    """Whether no keys or values are shared, whose gradients would be sums over those who share them."""
    return q.shape[:-2] == k.shape[:-2] == v.shape[:-2]


@kernels.register(ops.attention_gradient, when=of_one_batch)
def attention_gradient(
    g: Array, out: Array, q: Array, k: Array, v: Array, mask: Array | None = None, *, causal: bool, scale: float | None
) -> tuple[Array, ...]:
    call = _Call(q, k, v, mask, causal, scale)
    g, out = (_with_heads(x, q.shape[:-2]) for x in (g, out))
    by_q, by_k, by_v = (np.zeros(x.shape, x.dtype) for x in (call.q, call.k, call.v))

    def part(start: int, stop: int) -> None:
        for index, heads in call.blocks[start:stop]:
            for rows, keys in call.row_blocks():
                weights, sums = call.exponentials(index, heads, rows, keys)
                np.divide(weights, sums, out=weights)
                slope, values = g[index][heads, rows], call.v[index][heads, keys]
                by_v[index][heads, keys] += np.matmul(np.swapaxes(weights, -1, -2), slope)
                steps = scratch("slopes", weights.shape, weights.dtype)
                np.matmul(slope, np.swapaxes(values, -1, -2), out=steps)
                means = np.einsum("hqe,hqe->hq", slope, out[index][heads, rows])
                np.subtract(steps, means[:, :, None], out=steps)
                np.multiply(steps, weights, out=steps)
                np.multiply(steps, call.scale, out=steps)
                np.matmul(steps, call.k[index][heads, keys], out=by_q[index][heads, rows])
                by_k[index][heads, keys] += np.matmul(np.swapaxes(steps, -1, -2), call.q[index][heads, rows])

    if g.size and call.keys:
        in_parts(part, len(call.blocks), 5 * call.work // 2)
    return tuple(x.reshape(like.shape).astype(like.dtype, copy=False) for x, like in ((by_q, q), (by_k, k), (by_v, v)))
