"""Attention on devices whose work items share memory in groups: no scores are written to the device's memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hal import ops
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.layout import Shape, collapsed, stretched
from hal.codegen.kernels.products import file
from hal.codegen.kernels.runtime import Runtime
from hal.codegen.kernels.templates import filled_in
from hal.ops.attending import scaling
from hal.plugin import DType, Kernels, Spec, dtypes

kernels = Kernels()  # apart from the others: on a CPU, where a group is one item, products and softmax are quicker
MOST = 256  # features: what a group shares must fit into its memory


class Tiles(NamedTuple):
    """Tiles of a group of `across` x `down` items, each with `rows` queries and `keys` keys at a time."""

    across: int
    down: int
    rows: int
    keys: int

    def columns(self, values: int) -> int:
        """Columns of the result that an item has."""
        return -(-values // self.across)

    def nbytes(self, features: int, values: int, itemsize: int) -> int:
        """Bytes of memory that a group shares."""
        rows, keys = self.down * self.rows, self.across * self.keys
        widest = max(features + 1, self.across * self.columns(values))
        return (rows * (features + 1 + keys + 1 + self.across + 1) + keys * widest) * itemsize


TILES = tuple(Tiles(16, 8, rows, keys) for rows, keys in ((8, 2), (4, 2), (2, 2), (2, 1), (1, 1)))
SUMS = 64  # that an item keeps in registers, at most


def _wide(dtype: DType) -> DType:
    return dtypes.float64 if dtype is dtypes.float64 else dtypes.float32


def _tiles(runtime: Runtime, features: int, values: int, dtype: DType) -> Tiles:
    size = _wide(dtype).itemsize
    for tiles in TILES[:-1]:
        few = tiles.rows * tiles.columns(values) * size <= SUMS * 4
        if few and tiles.nbytes(features, values, size) <= runtime.local_memory:
            return tiles
    return TILES[-1]


def _fits(q: Spec, k: Spec, v: Spec, mask: Spec | None = None, **settings: Any) -> bool:
    known = q.dtype is k.dtype is v.dtype and (mask is None or mask.dtype in (dtypes.bool_, q.dtype))
    some = all(n > 0 for x in (q, k, v) for n in x.shape)
    return known and some and max(q.shape[-1], v.shape[-1]) <= MOST // (q.dtype.itemsize // 4 or 1)


def _batch(x: Buffer, batch: Shape) -> Shape:
    """The strides of the axes before the last two, 0 where the same is meant for all."""
    return stretched(x.shape[:-2], x.strides[:-2], batch)


@kernels.register(ops.attention, when=_fits)
def attention(
    q: Buffer, k: Buffer, v: Buffer, mask: Buffer | None = None, *, causal: bool, scale: float | None
) -> Buffer:
    runtime, wide = q.memory.runtime, _wide(q.dtype)
    queries, keys, features, values = q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]
    batch = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    out = runtime.empty((*batch, queries, values), q.dtype, "attention")
    seen = mask or q  # without a mask, no element of it is read
    if mask is not None:
        scores = (*batch, queries, keys)
        seen = mask.view(scores, stretched(mask.shape, mask.strides, scores))
    sizes, strides = collapsed(batch, [_batch(x, batch) for x in (q, k, v, seen)])
    tiles = _tiles(runtime, features, values, q.dtype)
    blocks = -(-queries // (tiles.down * tiles.rows))
    macros = {
        "TX": tiles.across, "TY": tiles.down, "RM": tiles.rows, "RN": tiles.keys, "EN": tiles.columns(values),
        "D": features, "E": values, "RANK": len(sizes), "CAUSAL": int(causal),
        "MASK": 0 if mask is None else 1 if mask.dtype is dtypes.bool_ else 2,
    }  # fmt: skip
    defined = "".join(f"#define {name} {value}\n" for name, value in macros.items())
    types = (("T", q.dtype), ("M", seen.dtype))
    text = filled_in(defined + file(__package__, "attention.c"), types, (("V", "@valueT"),), False)
    kernel = runtime.programs.kernel(text, "attention", "attention")
    heads = np.array([sizes, *strides], np.int64)
    factor = scaling(scale, features)
    arguments: list[Any] = [heads, np.int64(queries), np.int64(keys), np.int64(blocks), wide.numpy.type(factor)]
    for x in (q, k, v, seen):
        arguments += (x.memory, *map(np.int64, (x.offset, x.strides[-2], x.strides[-1])))
    arguments += (out.memory, np.int64(out.offset))
    groups = blocks * (out.size // (queries * values))
    items, local = (groups * tiles.across, tiles.down), (tiles.across, tiles.down)
    runtime.launch("attention", kernel, items, local, *arguments, writes=(out.memory,))
    return out
