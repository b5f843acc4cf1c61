"""Attention and its gradient without scores in memory: by groups of work items, or on processors in blocks."""

from __future__ import annotations

from typing import Any

from hal import ops
from hal.codegen.kernels import attention_blocks, attention_groups
from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.gemm import cast
from hal.codegen.kernels.layout import row_strides
from hal.codegen.kernels.reduction import reduction_of
from hal.codegen.kernels.table import kernels
from hal.plugin import Spec, dtypes


def _takes(q: Spec, k: Spec, v: Spec, mask: Spec | None = None, **settings: Any) -> bool:
    """Whether there is something of everything, in one dtype, and no more axes than products have."""
    known = q.dtype is k.dtype is v.dtype and (mask is None or mask.dtype in (dtypes.bool_, q.dtype))
    return known and all(n > 0 for x in (q, k, v) for n in x.shape) and max(q.ndim, k.ndim, v.ndim) <= 5


def _in_groups(q: Buffer, v: Buffer) -> bool:
    return not q.memory.runtime.is_cpu and attention_groups.fits(q.spec, v.spec)


@kernels.register(ops.attention, when=_takes)
def attention(q: Buffer, k: Buffer, v: Buffer, *mask: Buffer, causal: bool, scale: float | None) -> Buffer:
    run = attention_groups.attention if _in_groups(q, v) else attention_blocks.attention
    return run(q, k, v, *mask, causal=causal, scale=scale)


@kernels.register(ops.attention_gradient, when=lambda g, out, *specs, **settings: _takes(*specs))
def attention_gradient(
    g: Buffer, out: Buffer, q: Buffer, k: Buffer, v: Buffer, *mask: Buffer, causal: bool, scale: float | None
) -> tuple[Buffer, ...]:
    run = attention_groups.attention_gradient if _in_groups(q, v) else attention_blocks.attention_gradient
    found = run(g, out, q, k, v, *mask, causal=causal, scale=scale)
    return tuple(_shared(x, like) for x, like in zip(found, (q, k, v), strict=True))


def _shared(found: Buffer, x: Buffer) -> Buffer:
    """The gradient by `x` from that of each head: the sum over those that share it."""
    if found.size == x.size:
        found = found.view(x.shape, row_strides(x.shape))
        return found if found.dtype is x.dtype else cast(found, x.dtype)
    runtime, lead = x.memory.runtime, len(found.shape) - len(x.shape)
    result = runtime.empty(x.shape, x.dtype, "attention_gradient")
    run = reduction_of(ops.sum, found.dtype, x.dtype)
    assert run is not None
    run(runtime, found, tuple(i for i, n in enumerate(found.shape) if i < lead or n != x.shape[i - lead]), result)
    return result
