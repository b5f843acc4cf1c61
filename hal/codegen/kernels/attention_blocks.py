"""Attention and its gradient on processors: products of a few heads and queries, whose scores stay in the cache.

With `causal`, a block of queries is multiplied with the keys up to its last query only: half of the work, about.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np

from hal import ops
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.elementwise import map_of
from hal.codegen.kernels.gemm import cast, collapsed
from hal.codegen.kernels.layout import Shape, row_strides, stretched
from hal.codegen.kernels.layout import collapsed as merged
from hal.codegen.kernels.maps import PER_UNIT
from hal.codegen.kernels.products import Factor, Product, Result, file
from hal.codegen.kernels.reduction import reduction_of
from hal.codegen.kernels.rows import LANES, wide_of
from hal.codegen.kernels.templates import filled_in
from hal.ops.attending import scaling
from hal.plugin import dtypes

SCORES = 131_072  # in a block
QUERIES = 128  # in a block, at least, where there are as many: smaller products are slow
WORK = 1024  # scores that are worth a work item


class Block(NamedTuple):
    """Some heads, of which `heads` are along the first axis that the block has, and some of their queries and keys."""

    at: Shape
    heads: slice
    queries: slice
    keys: slice

    def part(self, x: Buffer, rows: slice) -> Buffer:
        """These rows of these heads of a tensor that has all axes of the batch."""
        lead = len(self.at)
        first = (*self.at, self.heads.start)
        offset = x.offset + sum(i * s for i, s in zip(first, x.strides, strict=False)) + rows.start * x.strides[-2]
        sizes = (self.heads.stop - self.heads.start, *x.shape[lead + 1 : -2], rows.stop - rows.start, x.shape[-1])
        return x.view(sizes, x.strides[lead:], offset)


class Call:
    """The tensors of a call, with all axes of the batch, and its blocks."""

    def __init__(
        self, label: str, q: Buffer, k: Buffer, v: Buffer, mask: Buffer | None, causal: bool, scale: float | None
    ) -> None:
        self.label, self.causal, self.runtime = label, causal, q.memory.runtime
        self.batch: Shape = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2]) or (1,)
        self.queries, self.keys, self.wide = q.shape[-2], k.shape[-2], wide_of(q.dtype)
        self.scale = self.wide.numpy.type(scaling(scale, q.shape[-1]))
        self.q, self.k, self.v = (self.whole(x) for x in (q, k, v))
        self.mask = mask
        if mask is not None:
            scores = (*self.batch, self.queries, self.keys)
            self.mask = mask.view(scores, stretched(mask.shape, mask.strides, scores))
        fitting = max(1, SCORES // self.keys)
        self.rows = min(self.queries, max(QUERIES, fitting))
        self.heads = max(1, fitting // self.rows)
        self.together = min(prod(self.batch), self.heads)
        self._rooms: dict[str, Buffer] = {}

    def whole(self, x: Buffer) -> Buffer:
        """A tensor in the dtype that is computed in, with all axes of the batch."""
        x = x if x.dtype is self.wide else cast(x, self.wide)
        shape = (*self.batch, *x.shape[-2:])
        return x.view(shape, stretched(x.shape, x.strides, shape))

    def blocks(self) -> Iterator[Block]:
        """The last queries of some heads, which get all keys, then those before them; and the next heads."""
        axis, inner = len(self.batch) - 1, 1
        while axis > 0 and inner * self.batch[axis] <= self.heads:
            inner *= self.batch[axis]
            axis -= 1
        step = max(1, self.heads // inner)
        for at in np.ndindex(self.batch[:axis]):
            for first in range(0, self.batch[axis], step):
                some = slice(first, min(first + step, self.batch[axis]))
                for start in reversed(range(0, self.queries, self.rows)):
                    stop = min(start + self.rows, self.queries)
                    keys = self.keys if stop == self.queries or not self.causal else min(stop, self.keys)
                    yield Block(at, some, slice(start, stop), slice(0, keys))

    def room(self, name: str, shape: Shape, most: Shape) -> Buffer:
        """Memory for `shape` that the next block has again, for at most so many numbers."""
        if name not in self._rooms:
            self._rooms[name] = self.runtime.empty((prod(most),), self.wide, self.label)
        return self._rooms[name].view(shape, row_strides(shape))

    def scores(self, name: str, block: Block) -> Buffer:
        """Memory for the scores of a block."""
        shape = (*block.part(self.q, block.queries).shape[:-1], block.keys.stop)
        return self.room(name, shape, (self.together, self.rows, self.keys))

    def multiply(self, a: Buffer, b: Buffer, out: Buffer) -> None:
        """out = a @ b, where the matrices of `out` follow each other."""
        found = collapsed(out.shape[:-2], a.strides[:-2], b.strides[:-2])
        assert found is not None, "blocks have at most three axes of a batch"
        sizes, (of_a, of_b) = found
        (m, n), terms = out.shape[-2:], a.shape[-1]
        product = Product(
            self.wide,
            Factor(a.memory, a.offset, a.strides[-2], a.strides[-1], of_a),
            Factor(b.memory, b.offset, b.strides[-2], b.strides[-1], of_b),
            Result(out.memory, out.offset, out.strides[-2], out.strides[-3]),
            (m, n, terms),
            batch=sizes,
        )
        self.runtime.multiply(self.label, product)

    def weights(self, block: Block) -> Buffer:
        """How much each query of a block attends to each key."""
        scores = self.scores("weights", block)
        self.multiply(block.part(self.q, block.queries), turned(block.part(self.k, block.keys)), scores)
        seen = scores if self.mask is None else block.part(self.mask, slice(0, self.queries))
        sizes, (steps,) = merged(seen.shape[:-2], [seen.strides[:-2]])
        places = map(np.int64, (seen.offset, *seen.strides[-2:]))
        rest = (np.int64(block.queries.start), np.array([sizes, steps], np.int64), seen.memory, *places)
        self._enqueue("attention_weights", scores, len(sizes), *rest)
        return scores

    def slopes(self, block: Block, weights: Buffer, g: Buffer, along: Buffer) -> Buffer:
        """The gradient of the scores."""
        slopes, along = self.scores("slopes", block), block.part(along, block.queries)
        self.multiply(g, turned(block.part(self.v, block.keys)), slopes)
        rest = (weights.memory, along.memory, np.int64(along.offset), np.int64(self.queries))
        self._enqueue("attention_slopes", slopes, 1, *rest)
        return slopes

    def add(self, block: Block, a: Buffer, b: Buffer, target: Buffer) -> None:
        """target += a @ b, where the first block, that of the last queries, finds nothing there yet."""
        if block.queries.stop == self.queries:
            self.multiply(a, b, target)
            return
        width = target.shape[-1]
        more = self.room(f"a sum of {width}", target.shape, (self.together, self.keys, width))
        self.multiply(a, b, more)
        map_of(ops.add, (self.wide, self.wide), (self.wide,), ())(self.runtime, (target, more), (target,))

    def _enqueue(self, name: str, scores: Buffer, rank: int, *rest: Any) -> None:
        """Enqueue a kernel on all rows of scores."""
        mask = self.wide if self.mask is None else self.mask.dtype
        macros = {
            "RANK": rank, "CAUSAL": int(self.causal), "LANES": LANES,
            "MASK": 0 if self.mask is None else 1 if mask is dtypes.bool_ else 2,
        }  # fmt: skip
        text = "".join(f"#define {word} {value}\n" for word, value in macros.items())
        text += file(__package__, "attention_weights.c")
        text = filled_in(text, (("M", mask), ("W", self.wide)), (("V", "@valueW"),), True)
        count = prod(scores.shape[:-1])
        local = self.runtime.local
        items = -(-count // local) * local
        if self.runtime.is_cpu:
            items = max(1, min(count, PER_UNIT * self.runtime.units, count * scores.shape[-1] // WORK))
        kernel = self.runtime.programs.kernel(text, name, self.label)
        arguments = (np.int64(count), *map(np.int64, scores.shape[-2:]), self.scale, *rest, scores.memory)
        self.runtime.launch(self.label, kernel, (items,), (local,), *arguments, writes=[scores.memory])


def turned(x: Buffer) -> Buffer:
    """The last two axes exchanged."""
    order = (*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2)
    return x.view(tuple(x.shape[i] for i in order), tuple(x.strides[i] for i in order))


def attention(
    q: Buffer, k: Buffer, v: Buffer, mask: Buffer | None = None, *, causal: bool, scale: float | None
) -> Buffer:
    """The result of a call of inputs that are not empty."""
    call = Call("attention", q, k, v, mask, causal, scale)
    out = call.runtime.empty((*call.batch, call.queries, v.shape[-1]), call.wide, call.label)
    for block in call.blocks():
        call.multiply(call.weights(block), block.part(call.v, block.keys), block.part(out, block.queries))
    if max(len(x.shape) for x in (q, k, v)) == 2:
        out = out.view(out.shape[1:], out.strides[1:])
    return out if out.dtype is q.dtype else cast(out, q.dtype)


def attention_gradient(
    g: Buffer, out: Buffer, q: Buffer, k: Buffer, v: Buffer, mask: Buffer | None = None, *,
    causal: bool, scale: float | None,
) -> tuple[Buffer, ...]:  # fmt: skip
    """The gradient of such a call, by the queries, keys and values of each head."""
    call = Call("attention_gradient", q, k, v, mask, causal, scale)
    total = reduction_of(ops.sum, call.wide, call.wide)
    assert total is not None
    runtime, wide, g = call.runtime, call.wide, call.whole(g)
    products, along = (runtime.empty(shape, wide, call.label) for shape in (g.shape, (*g.shape[:-1], 1)))
    map_of(ops.mul, (wide, wide), (wide,), ())(runtime, (g, call.whole(out)), (products,))
    total(runtime, products, (len(g.shape) - 1,), along)
    by_q, by_k, by_v = (runtime.empty(x.shape, wide, call.label) for x in (call.q, call.k, call.v))
    for block in call.blocks():
        of_q, of_k, of_g = (
            block.part(x, rows) for x, rows in ((call.q, block.queries), (call.k, block.keys), (g, block.queries))
        )
        weights = call.weights(block)
        call.add(block, turned(weights), of_g, block.part(by_v, block.keys))
        slopes = call.slopes(block, weights, of_g, along)
        call.multiply(slopes, of_k, block.part(by_q, block.queries))
        call.add(block, turned(slopes), of_q, block.part(by_k, block.keys))
    return by_q, by_k, by_v
