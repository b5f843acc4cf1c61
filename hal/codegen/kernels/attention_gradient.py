"""The gradient of attention on devices whose work items share memory in groups: no scores are written to memory.

One kernel gives the gradient by queries, and what must be known of each query for those by keys and values, which
another gives.
"""

from __future__ import annotations

from typing import Any

from hal import ops
from hal.codegen.kernels.attention import Heads, Tiles, fits, kernels, largest
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.reduction import reduction_of
from hal.plugin import Spec

LABEL = "attention_gradient"


def _fits(g: Spec, out: Spec, q: Spec, *rest: Spec, **settings: Any) -> bool:
    return g.dtype is out.dtype is q.dtype and fits(q, *rest)


def _of_all(x: Buffer, heads: Heads) -> Buffer:
    """Room for the gradient by `x` of each head: where heads share it, before it is rounded."""
    shape = (*heads.batch, *x.shape[-2:])
    return x.memory.runtime.empty(shape, x.dtype if shape == x.shape else heads.wide, LABEL)


def _shared(found: Buffer, x: Buffer) -> Buffer:
    """The sum over the heads that share `x`."""
    if found.shape == x.shape:
        return found
    runtime, lead = x.memory.runtime, len(found.shape) - len(x.shape)
    result = runtime.empty(x.shape, x.dtype, LABEL)
    run = reduction_of(ops.sum, found.dtype, x.dtype)
    assert run is not None
    run(runtime, found, tuple(i for i, n in enumerate(found.shape) if i < lead or n != x.shape[i - lead]), result)
    return result


@kernels.register(ops.attention_gradient, when=_fits)
def attention_gradient(
    g: Buffer, out: Buffer, q: Buffer, k: Buffer, v: Buffer, mask: Buffer | None = None, *,
    causal: bool, scale: float | None,
) -> tuple[Buffer, ...]:  # fmt: skip
    heads, runtime = Heads(q, k, v, mask, g, out, causal=causal, scale=scale), q.memory.runtime

    def needs(tiles: Tiles) -> tuple[int, int]:
        rows, columns = tiles.sizes
        shared = (rows + columns) * sum(tiles.widths(heads.features, heads.values)) + 2 * rows * (columns + 1)
        return tiles.rows * (tiles.each(heads.features) + tiles.each(heads.values)), shared + 3 * columns

    tiles = largest(runtime, heads.wide.itemsize, needs)
    known = runtime.empty((*heads.batch, heads.queries, 3), heads.wide, LABEL)
    by_q, by_k, by_v = (_of_all(x, heads) for x in (q, k, v))
    heads.run(LABEL, "attention_by_queries", tiles, heads.queries, {"V": known, "Q": by_q})
    heads.run(LABEL, "attention_by_keys", tiles, heads.keys, {"V": known, "K": by_k, "X": by_v})
    return _shared(by_q, q), _shared(by_k, k), _shared(by_v, v)
