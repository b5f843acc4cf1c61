"""Running sums and products along an axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import ops
from hal.op import SUMS, Array, Cost, Grads, Op, Rng, Sample
from hal.ops.common import ALL_KINDS, LARGE, check_kind, integers, quiet, uniform
from hal.ops.reduction import steady, wide
from hal.ops.steps import cut, in_float32, widen
from hal.spec import Spec, normalize_axis

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _infer(name: str) -> Callable[..., Spec]:
    def infer(x: Spec, *, axis: int) -> Spec:
        check_kind(name, x, ALL_KINDS)
        normalize_axis(name, axis, x.ndim)
        return Spec(x.shape, wide(x.dtype))

    return infer


def _terms(x: Spec, *, axis: int) -> int:
    return x.shape[axis]


def _cost(x: Spec, *, out: Spec, axis: int) -> Cost:
    return Cost(x.size, x.nbytes + out.nbytes)


def _samples(rng: Rng) -> Iterator[Sample]:
    for shape, axis in [((5,), 0), ((2, 3, 4), 1), ((2, 3, 4), -1), ((2, 3), 0), ((3, 1), 1), ((8,), -1), ((7, 2), -2)]:
        yield Sample((uniform(rng, shape, 0.5, 1.8),), {"axis": axis})
    yield Sample((uniform(rng, (0, 3)),), {"axis": 0})
    yield Sample((uniform(rng, (3, 0)),), {"axis": 0})
    yield Sample((uniform(rng, (4, 6))[::-1, ::2],), {"axis": 0})
    yield Sample((uniform(rng, (4, 6))[:, ::-1].T,), {"axis": 0})
    yield Sample((np.array([[2, 0, 3, 0, 4], [0, 1, 2, 3, 4]], np.float32),), {"axis": 1})  # zeros: for the gradients
    yield Sample((steady(rng, (LARGE,)),), {"axis": 0}, smooth=False)
    yield Sample((steady(rng, (LARGE // 3, 3)),), {"axis": 0}, smooth=False)
    odd = [[1, np.nan, 2, 3], [np.inf, 1, -np.inf, 2], [0.0, -0.0, np.inf, 1], [-np.inf, -1, -2, 3]]
    yield Sample((np.array(odd, np.float32),), {"axis": 1}, smooth=False)
    for dtype in (np.int8, np.int32, np.int64, np.uint8):
        yield Sample((integers(rng, (3, 6), 0, 9, dtype),), {"axis": 1}, smooth=False, exact=True)
    yield Sample((rng.random((3, 5)) < 0.5,), {"axis": -1}, smooth=False, exact=True)
    yield Sample(((rng.normal(size=(2, 3)) + 1j).astype(np.complex64),), {"axis": 1}, smooth=False, exact=True)


def _doubling(combine: Callable[[Tensor, Tensor], Tensor], neutral: int) -> Callable[..., Tensor]:
    """Each element combined with the one 1 before it, then 2, 4, 8: log2(n) steps, all elements at once.

    Source: Hillis and Steele, "Data Parallel Algorithms", Communications of the ACM 29(12), 1986.
    """

    def decompose(x: Tensor, *, axis: int) -> Tensor:
        if x.dtype is not wide(x.dtype):
            x = ops.cast(x, dtype=wide(x.dtype))
        along, n, step = axis % x.ndim, x.shape[axis], 1
        while step < n:
            x = combine(x, widen(cut(x, along, 0, n - step), along, step, 0, neutral))
            step *= 2
        return x

    return in_float32(decompose)


def _gradient_of_cumsum(g: Tensor, out: Tensor, x: Tensor, *, axis: int) -> Grads:
    return (ops.flip(ops.cumsum(ops.flip(g, axis=axis), axis=axis), axis=axis),)


def _reference(function: Callable[..., Any]) -> Callable[..., Array]:
    def reference(x: Array, *, axis: int) -> Array:
        return np.asarray(function(x, axis=axis))

    return quiet(reference)


cumsum = Op(
    "cumsum", _infer("cumsum"), _reference(np.cumsum), _samples, _gradient_of_cumsum,
    _doubling(lambda a, b: ops.add(a, b), 0), _cost, "reduction", terms=_terms, tolerance=SUMS,
    doc="Running sums along `axis`; bool and small integers are summed in int64 or uint64.",
)  # fmt: skip
cumprod = Op(
    "cumprod", _infer("cumprod"), _reference(np.cumprod), _samples, None,
    _doubling(lambda a, b: ops.mul(a, b), 1), _cost, "reduction", terms=_terms, tolerance=SUMS,
    doc="Running products along `axis`. Its gradient is that of the decomposition, which is right with zeros too.",
)  # fmt: skip
