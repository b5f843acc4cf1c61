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
from hal.plugin import Array
from hal_cpu.parallel import in_parts, scratch
from hal_cpu.softmax import row_max, row_sum
from hal_cpu.table import kernels

BLOCK = 131_072  # scores in a block
QUERIES = 128  # in a block, at least, where there are as many: smaller products are slow
Heads = tuple[int | slice, ...]


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
        self.blocks = _blocks(self.batch, max(1, fitting // max(1, self.rows)))
        self.work = prod(self.batch) * self.queries * self.keys * (q.shape[-1] + v.shape[-1] + 16)

    def row_blocks(self) -> Iterator[tuple[slice, slice]]:
        """Blocks of queries, and the keys that they can reach."""
        for start in range(0, self.queries, self.rows):
            stop = min(start + self.rows, self.queries)
            yield slice(start, stop), slice(0, min(stop, self.keys) if self.causal else self.keys)

    def turned_keys(self, heads: Heads) -> Array:
        """The keys, scaled, with features and keys exchanged: BLAS takes a quarter less time than for a transpose."""
        k = np.swapaxes(self.k[heads], -1, -2)
        return np.multiply(k, self.scale, out=scratch("keys", k.shape, k.dtype))

    def exponentials(self, heads: Heads, turned: Array, rows: slice, keys: slice) -> tuple[Array, Array]:
        """exp(scores - largest), (..., queries, keys), and the sum for each query, (..., queries, 1)."""
        q, k = self.q[heads][..., rows, :], turned[..., keys]
        scores = scratch("scores", (*q.shape[:-1], k.shape[-1]), q.dtype)
        np.matmul(q, k, out=scores)
        if self.causal and keys.stop > rows.start:
            reach = scores[..., rows.start :]
            np.add(reach, _later(rows.stop - rows.start, q.dtype)[:, : reach.shape[-1]], out=reach)
        if self.mask is not None:
            np.add(scores, _bias(self.mask[heads][..., rows, keys], q.dtype), out=scores)
        flat = scores.reshape(-1, scores.shape[-1])
        top = row_max(flat)
        if self.mask is not None:
            np.copyto(top, 0, where=top == -np.inf)  # a query without keys has zeros then, and not NaN
        np.subtract(flat, top, out=flat)
        np.exp(flat, out=flat)
        sums = row_sum(flat)
        if self.mask is not None:
            np.copyto(sums, 1, where=sums == 0)
        return scores, sums.reshape(*scores.shape[:-1], 1)


def _blocks(batch: tuple[int, ...], heads: int) -> list[Heads]:
    """Indices of blocks of about `heads` of the batch: some along one axis, with all of those after it."""
    axis, inner = len(batch) - 1, 1
    while axis > 0 and inner * batch[axis] < heads:
        inner *= batch[axis]
        axis -= 1
    step = max(1, heads // max(1, inner))  # an axis may be empty
    return [
        (*index, slice(i, min(i + step, batch[axis])))
        for index in np.ndindex(batch[:axis])
        for i in range(0, batch[axis], step)
    ]


@kernels.register(ops.attention, out=True)
def attention(
    q: Array, k: Array, v: Array, mask: Array | None = None, *,
    causal: bool, scale: float | None, out: Array | None = None,
) -> Array:  # fmt: skip
    call = _Call(q, k, v, mask, causal, scale)
    fits = out is not None and out.dtype == call.q.dtype and not any(np.may_share_memory(out, x) for x in (q, k, v))
    made = (*call.batch, call.queries, v.shape[-1])
    # Where the axes lie as in q, what a layer splits into heads comes together again without a copy.
    result = np.empty_like(call.q, shape=made) if out is None or not fits else out.reshape(made)

    def part(start: int, stop: int) -> None:
        for heads in call.blocks[start:stop]:
            turned = call.turned_keys(heads)
            for rows, keys in call.row_blocks():
                weights, sums = call.exponentials(heads, turned, rows, keys)
                target = result[heads][..., rows, :]
                np.matmul(weights, call.v[heads][..., keys, :], out=target)
                np.divide(target, sums, out=target)

    if result.size and call.keys:
        in_parts(part, len(call.blocks), call.work)
    else:
        result[...] = 0
    if fits and out is not None:
        return out
    found = (result if q.ndim + k.ndim + v.ndim > 6 else result[0]).astype(q.dtype, copy=False)
    if out is None:
        return found
    np.copyto(out, found)
    return out


def _summed(x: Array, like: Array) -> Array:
    """The gradient by `like` from that of each head: the sum over those that share it."""
    if x.size != like.size:
        lead = x.ndim - like.ndim
        axes = tuple(i for i, n in enumerate(x.shape) if i < lead or n != like.shape[i - lead])
        x = np.sum(x, axis=axes)
    return x.reshape(like.shape).astype(like.dtype, copy=False)


@kernels.register(ops.attention_gradient)
def attention_gradient(
    g: Array, out: Array, q: Array, k: Array, v: Array, mask: Array | None = None, *, causal: bool, scale: float | None
) -> tuple[Array, ...]:
    call = _Call(q, k, v, mask, causal, scale)
    g, out = (_with_heads(x, g.shape[:-2]) for x in (g, out))
    by_q, by_k, by_v = (np.empty_like(x) for x in (call.q, call.k, call.v))
    blocks = list(call.row_blocks()) if g.size and call.keys else []
    at_once = len(blocks) == 1 and blocks[0][1].stop == call.keys
    if not at_once:
        for x in (by_q, by_k, by_v):
            x[...] = 0

    def into(target: Array, a: Array, b: Array) -> None:
        """Write the product, or add it where other queries added theirs."""
        if at_once:
            np.matmul(a, b, out=target)
        else:
            target += np.matmul(a, b)

    def part(start: int, stop: int) -> None:
        for heads in call.blocks[start:stop]:
            turned = call.turned_keys(heads)
            for rows, keys in blocks:
                weights, sums = call.exponentials(heads, turned, rows, keys)
                slope = g[heads][..., rows, :]
                slope = np.divide(slope, sums, out=scratch("slopes", slope.shape, slope.dtype))  # and not the weights
                into(by_v[heads][..., keys, :], np.swapaxes(weights, -1, -2), slope)
                across = np.swapaxes(call.v[heads][..., keys, :], -1, -2)
                values = scratch("values", across.shape, across.dtype)
                np.copyto(values, across)
                steps = np.matmul(slope, values, out=scratch("steps", weights.shape, weights.dtype))
                np.subtract(steps, np.vecdot(slope, out[heads][..., rows, :])[..., None], out=steps)
                np.multiply(steps, weights, out=steps)
                target, q_here = by_q[heads][..., rows, :], call.q[heads][..., rows, :]
                np.matmul(steps, call.k[heads][..., keys, :], out=target)
                np.multiply(target, call.scale, out=target)
                scaled = np.multiply(q_here, call.scale, out=scratch("queries", q_here.shape, q_here.dtype))
                into(by_k[heads][..., keys, :], np.swapaxes(steps, -1, -2), scaled)

    if blocks:
        in_parts(part, len(call.blocks), 5 * call.work // 2)
    return _summed(by_q, q), _summed(by_k, k), _summed(by_v, v)
