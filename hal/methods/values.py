"""Methods that compute: reductions, orders, products."""

from __future__ import annotations

from typing import Any

from hal import ops
from hal.functions import ordering, products, reductions


class Values:
    """Methods of `Tensor` that reduce, sort and multiply."""

    __slots__ = ()

    sum, prod, mean, norm = reductions.sum, reductions.prod, reductions.mean, reductions.norm
    var, std = reductions.variance, reductions.deviation  # with torch's correction of 1
    max, min, amax, amin, aminmax = reductions.max, reductions.min, reductions.amax, reductions.amin, reductions.aminmax
    argmax, argmin = reductions.argmax, reductions.argmin
    any, all, count_nonzero = reductions.any, reductions.all, reductions.count_nonzero
    logsumexp, cumsum, cumprod, diff = reductions.logsumexp, reductions.cumsum, reductions.cumprod, reductions.diff

    sort, argsort, topk, median = ordering.sort_pair, ordering.argsort, ordering.topk, ordering.median
    unique, bincount = ordering.unique, ordering.bincount

    mm, bmm, mv, dot = products.mm, products.bmm, products.mv, products.dot
    outer, inner = products.outer, products.inner
    addmm, baddbmm, addmv = products.addmm, products.baddbmm, products.addmv
    cross, trace = products.cross, products.trace

    def matmul(self, other: Any) -> Any:
        """The product of matrices, vectors, or batches of them. Source: torch.matmul."""
        return ops.matmul(self, other)
