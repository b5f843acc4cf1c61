"""Attention and its gradient on devices whose work items share memory in groups: scores stay in that."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.layout import Shape, collapsed, stretched
from hal.codegen.kernels.products import file
from hal.codegen.kernels.rows import wide_of
from hal.codegen.kernels.runtime import Runtime
from hal.codegen.kernels.templates import filled_in
from hal.ops.attending import scaling
from hal.plugin import Spec, dtypes

MOST = 256  # features: what a group shares must fit into its memory
REGISTERS = 256  # bytes of sums that an item keeps in them, at most


class Tiles(NamedTuple):
    """Tiles of a group of `across` x `down` items, each with `rows` queries and `columns` keys at a time.

    For the gradient by keys it is the other way round: rows are keys, and columns queries.
    """

    across: int
    down: int
    rows: int
    columns: int

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows and columns that the group has."""
        return self.down * self.rows, self.across * self.columns

    def each(self, width: int) -> int:
        """Columns of a result of this width that an item has."""
        return -(-width // self.across)

    def widths(self, features: int, values: int) -> tuple[int, int]:
        """Numbers in a row of a tile of queries or keys, and of one of values."""
        return self.across * self.each(features) + 1, self.across * self.each(values) + 1


TILES = (
    *(Tiles(16, 8, rows, columns) for rows, columns in ((8, 2), (4, 2), (2, 2), (2, 1), (1, 1))),
    Tiles(8, 8, 1, 1),
    Tiles(8, 4, 1, 1),  # in 32 KiB, which any device has
)


def largest(runtime: Runtime, itemsize: int, needs: Callable[[Tiles], tuple[int, int]]) -> Tiles:
    """The first tiles that fit, or the last; `needs`: numbers that an item keeps in registers, and a group shares."""
    for tiles in TILES[:-1]:
        kept, shared = (n * itemsize for n in needs(tiles))
        if kept <= REGISTERS and shared <= runtime.local_memory:
            return tiles
    return TILES[-1]


def fits(q: Spec, v: Spec) -> bool:
    """Whether rows of these fit into the memory of a group."""
    return max(q.shape[-1], v.shape[-1]) <= MOST // (q.dtype.itemsize // 4 or 1)


class Heads:
    """The heads of a call: where each begins in every tensor, and how a kernel is run on all of them.

    Attributes:
        batch: the shape of the batch, to which that of each tensor broadcasts.
        queries, keys, features, values: the sizes of a head.
        wide: the dtype that is computed in.
    """

    def __init__(
        self, q: Buffer, k: Buffer, v: Buffer, mask: Buffer | None, *result: Buffer, causal: bool, scale: float | None
    ) -> None:
        self.batch: Shape = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
        self.queries, self.keys, self.features, self.values = q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]
        self.wide = wide_of(q.dtype)
        self._scale = self.wide.numpy.type(scaling(scale, self.features))
        seen = q  # without a mask, no element of it is read
        if mask is not None:
            scores = (*self.batch, self.queries, self.keys)
            seen = mask.view(scores, stretched(mask.shape, mask.strides, scores))
        self._tensors = (q, k, v, seen, *result)
        steps = [stretched(x.shape[:-2], x.strides[:-2], self.batch) for x in self._tensors]
        self._sizes, self._strides = collapsed(self.batch, steps)
        self._macros = {
            "D": self.features, "E": self.values, "RANK": len(self._sizes), "CAUSAL": int(causal),
            "MASK": 0 if mask is None else 1 if mask.dtype is dtypes.bool_ else 2, "GRADIENT": int(len(result) > 0),
        }  # fmt: skip

    def run(self, label: str, name: str, tiles: Tiles, rows: int, outs: dict[str, Buffer]) -> None:
        """Enqueue the kernel `name`, of a group for each tile of `rows` rows of each head.

        Args:
            outs: what it writes into, by the letter of its dtype in the source.
        """
        runtime = self._tensors[0].memory.runtime
        macros = {
            **self._macros, "TX": tiles.across, "TY": tiles.down, "RM": tiles.rows, "RN": tiles.columns,
            "DN": tiles.each(self.features), "EN": tiles.each(self.values),
        }  # fmt: skip
        types = {"T": self._tensors[0].dtype, "M": self._tensors[3].dtype, **{t: x.dtype for t, x in outs.items()}}
        text = "".join(f"#define {word} {value}\n" for word, value in macros.items())
        text += file(__package__, "attention_tiles.c") + file(__package__, f"{name}.c")
        text = filled_in(text, tuple(types.items()), (("V", "@valueT"),), False)
        blocks = -(-rows // tiles.sizes[0])
        arguments: list[Any] = [np.array([self._sizes, *self._strides], np.int64)]
        arguments += [np.int64(self.queries), np.int64(self.keys), np.int64(blocks), self._scale]
        for x in self._tensors:
            arguments += (x.memory, *map(np.int64, (x.offset, x.strides[-2], x.strides[-1])))
        writes = [x.memory for x in outs.values()]
        items = (blocks * prod(self.batch) * tiles.across, tiles.down)
        kernel = runtime.programs.kernel(text, name, label)
        runtime.launch(label, kernel, items, (tiles.across, tiles.down), *arguments, *writes, writes=writes)


def attention(
    q: Buffer, k: Buffer, v: Buffer, mask: Buffer | None = None, *, causal: bool, scale: float | None
) -> Buffer:
    """The result of a call that `fits`."""
    heads, runtime = Heads(q, k, v, mask, causal=causal, scale=scale), q.memory.runtime

    def needs(tiles: Tiles) -> tuple[int, int]:
        rows, keys = tiles.sizes
        of_key, of_value = tiles.widths(heads.features, heads.values)
        shared = rows * (of_key + keys + 1 + tiles.across + 1) + keys * max(of_key, of_value)
        return tiles.rows * tiles.each(heads.values), shared

    tiles = largest(runtime, heads.wide.itemsize, needs)
    out = runtime.empty((*heads.batch, heads.queries, heads.values), q.dtype, "attention")
    heads.run("attention", "attention", tiles, heads.queries, {"T": out})
    return out


def _of_all(x: Buffer, heads: Heads) -> Buffer:
    """Room for the gradient by `x` of each head: where heads share it, before it is rounded."""
    shape = (*heads.batch, *x.shape[-2:])
    return x.memory.runtime.empty(shape, x.dtype if prod(shape) == x.size else heads.wide, "attention_gradient")


def attention_gradient(
    g: Buffer, out: Buffer, q: Buffer, k: Buffer, v: Buffer, mask: Buffer | None = None, *,
    causal: bool, scale: float | None,
) -> tuple[Buffer, ...]:  # fmt: skip
    """The gradient of a call that `fits`, by the queries, keys and values of each head.

    One kernel gives that by queries, and what must be known of each query for those by keys and values, which another
    gives.
    """
    label, runtime = "attention_gradient", q.memory.runtime
    heads = Heads(q, k, v, mask, g, out, causal=causal, scale=scale)

    def needs(tiles: Tiles) -> tuple[int, int]:
        rows, columns = tiles.sizes
        shared = (rows + columns) * sum(tiles.widths(heads.features, heads.values)) + 2 * rows * (columns + 1)
        return tiles.rows * (tiles.each(heads.features) + tiles.each(heads.values)), shared + 3 * columns

    tiles = largest(runtime, heads.wide.itemsize, needs)
    known = runtime.empty((*heads.batch, heads.queries, 3), heads.wide, label)
    by_q, by_k, by_v = (_of_all(x, heads) for x in (q, k, v))
    heads.run(label, "attention_by_queries", tiles, heads.queries, {"V": known, "Q": by_q})
    heads.run(label, "attention_by_keys", tiles, heads.keys, {"V": known, "K": by_k, "X": by_v})
    return by_q, by_k, by_v
