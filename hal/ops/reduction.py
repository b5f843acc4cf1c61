"""Reductions: the primitives sum and max, and prod, min, any, all, count_nonzero, argmax and argmin made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import ShapeError
from hal.op import EXACT, SUMS, Array, Cost, Grads, Op, Rng, Sample, Tolerance
from hal.ops.common import (
    ALL_KINDS,
    LARGE,
    REAL_KINDS,
    bool_result,
    check_kind,
    distinct,
    integers,
    quiet,
    same_result,
    uniform,
)
from hal.ops.steps import Axes, count, cut, in_float32, kept, kept_shape, positions, spread, widen
from hal.spec import Spec, normalize_axes

if TYPE_CHECKING:
    from hal.tensor import Tensor


def wide(dtype: DType) -> DType:
    """The dtype of a sum or product: bool and small integers are summed in the largest integers of their kind.

    Source: Array API 2024.12, `sum`; torch.sum.
    """
    return {"bool": dtypes.int64, "int": dtypes.int64, "uint": dtypes.uint64}.get(dtype.kind, dtype)


def _int64(dtype: DType) -> DType:
    return dtypes.int64


def _cost(x: Spec, *, out: Spec, **settings: Any) -> Cost:
    return Cost(x.size, x.nbytes + out.nbytes)


def _terms(x: Spec, *, axis: Axes = None, **settings: Any) -> int:
    return count(x.shape, axis)


def reduction_samples(
    draw: Callable[[Rng, tuple[int, ...]], Array], kinds: tuple[str, ...], empty: bool, special: bool = True
) -> Callable[[Rng], Iterator[Sample]]:
    """Calls of a reduction: all ways to name axes, empty, flipped, transposed, large and special inputs, all kinds."""

    def samples(rng: Rng) -> Iterator[Sample]:
        axes: list[Axes] = [None, 0, -1, 1, (0, 2), (-1, 0), (0, 1, 2), ()]
        for axis in axes:
            yield Sample((draw(rng, (2, 3, 4)),), {"axis": axis, "keepdims": axis in (None, -1, (-1, 0))})
        yield Sample((draw(rng, ()),), {})
        yield Sample((draw(rng, (5,)),), {})
        yield Sample((draw(rng, (3, 1)),), {"axis": 1})
        yield Sample((draw(rng, (0, 3)),), {"axis": 1})
        yield Sample((draw(rng, (3, 0)),), {"axis": 0, "keepdims": True})
        if empty:
            yield Sample((draw(rng, (0, 3)),), {"axis": 0}, smooth=False)  # some have infinities or NaN here
            yield Sample((draw(rng, (0,)),), {"keepdims": True}, smooth=False)
        yield Sample((draw(rng, (4, 3))[::-1, ::-1],), {"axis": 0})
        yield Sample((draw(rng, (4, 3)).T,), {"axis": 0})
        yield Sample((draw(rng, (4, 6))[:, ::2],), {"axis": 1})
        yield Sample((draw(rng, (LARGE,)),), {}, smooth=False)
        yield Sample((draw(rng, (LARGE // 2, 3)),), {"axis": 0}, smooth=False)
        yield Sample((draw(rng, (37, 1900)),), {"axis": -1}, smooth=False)
        if special:
            rows = [[np.nan, 1, 2], [1, np.nan, np.inf], [np.inf, -np.inf, 0], [-np.inf, -np.inf, -np.inf]]
            rows += [[np.inf, 1, np.inf], [0.0, -0.0, -0.0], [1e-30, 3e30, -3e30], [-np.inf, 1, 5]]
            for axis in (0, 1, None):
                yield Sample((np.array(rows, np.float32),), {"axis": axis}, smooth=False)
        for kind, dtype in (("int", np.int8), ("int", np.int32), ("int", np.int64), ("uint", np.uint8)):
            if kind in kinds:
                low = -9 if kind == "int" else 0
                yield Sample((integers(rng, (3, 5), low, 10, dtype),), {"axis": 1}, smooth=False, exact=True)
        if "bool" in kinds:
            truths = (rng.random((3, 7)) < 0.5) & (np.arange(3) > 0)[:, None]  # a row of nothing but False
            yield Sample((truths,), {"axis": 1}, smooth=False, exact=True)
            yield Sample((~truths,), {"axis": (0, 1), "keepdims": True}, smooth=False, exact=True)
        if "complex" in kinds:
            pairs = rng.normal(size=(2, 3)) + 1j * rng.normal(size=(2, 3))
            yield Sample((pairs.astype(np.complex64),), {"axis": 0}, smooth=False, exact=True)

    return samples


def reduction(
    name: str,
    function: Callable[..., Any],
    gradient: Callable[..., Grads] | None = None,
    *,
    decompose: Callable[..., Any] | None = None,
    kinds: tuple[str, ...],
    result: Callable[[DType], DType] = same_result,
    promote: Callable[..., tuple[DType, ...]] | None = None,
    empty: bool = True,
    special: bool = True,
    draw: Callable[[Rng, tuple[int, ...]], Array] = uniform,
    tolerance: Tolerance = EXACT,
    no_gradient: str = "",
    doc: str,
) -> Op:
    """A record for an op that takes `axis` (None: all; an int; several) and `keepdims`, and reduces those axes.

    Args:
        empty: whether there is a result where no elements are reduced.
        draw: the inputs of the samples.
    """

    def infer(x: Spec, *, axis: Axes = None, keepdims: bool = False) -> Spec:
        check_kind(name, x, kinds)
        axes = normalize_axes(name, axis, x.ndim)
        if not empty and x.size == 0 and 0 in [x.shape[i] for i in axes]:
            raise ShapeError(
                f"{name} needs at least one element along the axes it reduces, got shape {x.shape} with axis={axis}: "
                "nothing is not a number; check for empty inputs first"
            )
        shape = kept_shape(x.shape, axis) if keepdims else tuple(n for i, n in enumerate(x.shape) if i not in axes)
        return Spec(shape, result(x.dtype))

    return Op(
        name, infer, quiet(function), reduction_samples(draw, kinds, empty, special), gradient, decompose, _cost,
        "reduction", promote=promote, no_gradient=no_gradient, terms=_terms, tolerance=tolerance, doc=doc,
    )  # fmt: skip


# Gradients and decompositions.


def _gradient_of_sum(g: Tensor, out: Tensor, x: Tensor, *, axis: Axes, keepdims: bool) -> Grads:
    return (spread(g, x.shape, axis),)


def _gradient_of_extremum(g: Tensor, out: Tensor, x: Tensor, *, axis: Axes, keepdims: bool) -> Grads:
    # Ties share the gradient evenly, as torch's amax has it, whatever the number of axes.
    hit = ops.cast(ops.equal(x, kept(out, x.shape, axis)), dtype=g.dtype)
    return (hit * (kept(g, x.shape, axis) / ops.sum(hit, axis=axis, keepdims=True)),)


def _min(x: Tensor, *, axis: Axes, keepdims: bool) -> Tensor:
    if x.dtype.is_floating:
        return -ops.max(-x, axis=axis, keepdims=keepdims)
    # The bits of an integer inverted turn the order around and, unlike the negative, always exist.
    return ops.bitwise_invert(ops.max(ops.bitwise_invert(x), axis=axis, keepdims=keepdims))


def _any(x: Tensor, *, axis: Axes, keepdims: bool) -> Tensor:
    true = x if x.dtype is dtypes.bool_ else ops.not_equal(x, 0)
    if count(x.shape, axis) == 0:  # max of nothing has no value, and the sum has
        return ops.not_equal(ops.sum(true, axis=axis, keepdims=keepdims), 0)
    return ops.max(true, axis=axis, keepdims=keepdims)


def _all(x: Tensor, *, axis: Axes, keepdims: bool) -> Tensor:
    return ops.logical_not(ops.any(ops.equal(x, False), axis=axis, keepdims=keepdims))


def _prod(x: Tensor, *, axis: Axes, keepdims: bool) -> Tensor:
    """Products of neighbours, log2(n) times. Also what gives prod its gradient, which is right with zeros too."""
    axes = normalize_axes("prod", axis, x.ndim)
    rest = tuple(i for i in range(x.ndim) if i not in axes)
    n = count(x.shape, axis)
    out_shape = kept_shape(x.shape, axis) if keepdims else tuple(x.shape[i] for i in rest)
    if x.dtype is not wide(x.dtype):
        x = ops.cast(x, dtype=wide(x.dtype))
    x = ops.reshape(ops.permute(x, axes=(*rest, *axes)), shape=(*(x.shape[i] for i in rest), n))
    last = x.ndim - 1
    x = widen(x, last, 0, 1, 1) if n == 0 else x
    while x.shape[last] > 1:
        x = widen(x, last, 0, x.shape[last] % 2, 1)
        x = cut(x, last, 0, x.shape[last], 2) * cut(x, last, 1, x.shape[last], 2)
    return ops.reshape(x, shape=out_shape)


def _count_nonzero(x: Tensor, *, axis: Axes, keepdims: bool) -> Tensor:
    return ops.sum(x if x.dtype is dtypes.bool_ else ops.not_equal(x, 0), axis=axis, keepdims=keepdims)


def steady(rng: Rng, shape: tuple[int, ...]) -> Array:
    """Random positive numbers whose products along the longest axis neither vanish nor overflow, however many."""
    levels = uniform(rng, shape, 0.5, 2)
    if levels.size < 100:
        return levels
    axis = int(np.argmax(shape))
    before = np.insert(np.delete(levels, -1, axis), 0, 1, axis)
    return levels / before


# fmt: off
sum = reduction("sum", np.sum, _gradient_of_sum, kinds=ALL_KINDS, result=wide, tolerance=SUMS,
                doc="The sum over `axis`; bool and small integers are summed in int64 or uint64.")
max = reduction("max", np.max, _gradient_of_extremum, kinds=REAL_KINDS, empty=False, draw=distinct,
                doc="The maximum over `axis`; NaN if there is one. Ties share the gradient evenly.")
min = reduction("min", np.min, _gradient_of_extremum, decompose=_min, kinds=REAL_KINDS, empty=False, draw=distinct,
                doc="The minimum over `axis`; NaN if there is one. Ties share the gradient evenly.")
prod = reduction("prod", np.prod, decompose=in_float32(_prod), kinds=ALL_KINDS, result=wide, tolerance=SUMS,
                 draw=steady, special=False,
                 doc="The product over `axis`; bool and small integers are multiplied in int64 or uint64.")
any = reduction("any", np.any, decompose=_any, kinds=ALL_KINDS, result=bool_result,
                no_gradient="the result is bool", doc="Whether any element along `axis` is not zero (NaN is not).")
all = reduction("all", np.all, decompose=_all, kinds=ALL_KINDS, result=bool_result,
                no_gradient="the result is bool", doc="Whether no element along `axis` is zero (NaN is not).")
count_nonzero = reduction("count_nonzero", np.count_nonzero, decompose=_count_nonzero, kinds=ALL_KINDS, result=_int64,
                          no_gradient="the result is an integer", doc="How many elements along `axis` are not zero.")
# fmt: on


# Positions of extrema: one axis or all of them.


def _infer_position(name: str) -> Callable[..., Spec]:
    def infer(x: Spec, *, axis: int | None = None, keepdims: bool = False) -> Spec:
        check_kind(name, x, REAL_KINDS)
        if not (axis is None or isinstance(axis, int)):
            raise ShapeError(f"{name} takes one axis or None for all, got axis={axis}: reshape them into one first")
        axes = normalize_axes(name, axis, x.ndim)
        if 0 in [x.shape[i] for i in axes]:
            raise ShapeError(
                f"{name} needs at least one element along its axis, got shape {x.shape} with axis={axis}: "
                "nothing has no position; check for empty inputs first"
            )
        shape = kept_shape(x.shape, axis) if keepdims else tuple(n for i, n in enumerate(x.shape) if i not in axes)
        return Spec(shape, dtypes.int64)

    return infer


def _position(extremum: Callable[[], Op]) -> Callable[..., Tensor]:
    """The first position where the extremum is, which is that of the first NaN if there is one."""

    def decompose(x: Tensor, *, axis: int | None, keepdims: bool) -> Tensor:
        shape = kept_shape(x.shape, axis)
        along = ops.reshape(x, shape=(x.spec.size,)) if axis is None else x
        where = 0 if axis is None else axis % x.ndim
        hit = ops.equal(along, extremum()(along, axis=where, keepdims=True))
        if x.dtype.is_floating:
            hit = ops.logical_or(hit, ops.isnan(along))
        n = along.shape[where]
        backwards = n - positions(along, where)  # so that the first hit has the largest number
        first = n - ops.max(ops.where(hit, backwards, 0), axis=where, keepdims=keepdims)
        return ops.reshape(first, shape=shape) if keepdims else first

    return decompose


def _samples_of_positions(rng: Rng) -> Iterator[Sample]:
    for sample in reduction_samples(distinct, REAL_KINDS, empty=False)(rng):
        axis = sample.settings.get("axis")
        if not isinstance(axis, tuple):
            yield sample
    ties = np.array([[2, 5, 5, 1], [1, 1, 1, 1], [0.0, -0.0, 0.0, -1]], np.float32)
    for axis in (0, 1, -1, None):
        yield Sample((ties,), {"axis": axis, "keepdims": axis == 1}, smooth=False)
        yield Sample((ties[::-1, ::-1],), {"axis": axis}, smooth=False)


_NO_POSITION_GRADIENT = "the result is an integer; use max or min, or take with its result, for values"
argmax = Op(
    "argmax", _infer_position("argmax"), quiet(np.argmax), _samples_of_positions,
    decompose=_position(lambda: ops.max), cost=_cost, kind="reduction", no_gradient=_NO_POSITION_GRADIENT,
    doc="The int64 position of the first maximum along `axis` (None: in the flattened input), or of the first NaN.",
)  # fmt: skip
argmin = Op(
    "argmin", _infer_position("argmin"), quiet(np.argmin), _samples_of_positions,
    decompose=_position(lambda: ops.min), cost=_cost, kind="reduction", no_gradient=_NO_POSITION_GRADIENT,
    doc="The int64 position of the first minimum along `axis` (None: in the flattened input), or of the first NaN.",
)  # fmt: skip
