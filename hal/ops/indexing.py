"""Reading and writing along one axis by position: the primitives take and index_add, and put, slice_update, one_hot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.dtypes import DType
from hal.errors import DTypeError, ShapeError
from hal.op import SUMS, Array, Cost, Grads, Op, Rng, Sample
from hal.ops.common import LARGE, common, integers, unbroadcast, uniform
from hal.ops.movement import cost_of_copy, exact_bits, infer_slice, python_slices, slice_calls, slice_sizes, unslice
from hal.ops.steps import cut, positions, widen, zeros
from hal.spec import Shape, Spec, normalize_axis

if TYPE_CHECKING:
    from hal.tensor import Tensor


def check_indices(who: str, indices: Spec) -> None:
    """Raise DTypeError unless `indices` are integers."""
    if indices.dtype.kind not in ("int", "uint"):
        raise DTypeError(
            f"{who} needs integer indices, got {indices.dtype.name}; "
            "for a mask use x[mask] or hal.where, for whole floats .to(hal.int64)"
        )


def from_the_front(indices: Tensor, size: int) -> Tensor:
    """Indices with the negative ones counted from the front, in int64, since int8 + 200 may not exist."""
    wide = ops.cast(indices, dtype=dtypes.int64)
    return wide if indices.dtype.kind == "uint" else ops.where(ops.less(wide, 0), wide + size, wide)


def indexed_shape(who: str, x: Spec, indices: Spec, axis: int) -> Shape:
    """The shape of what `indices` take from `x`: that of the indices in the place of the axis."""
    check_indices(who, indices)
    along = normalize_axis(who, axis, x.ndim)
    if indices.size and not x.shape[along]:
        raise ShapeError(f"{who} got {indices.size} indices into axis {axis} of {x.shape}, which is empty")
    return x.shape[:along] + indices.shape + x.shape[along + 1 :]


# take


def _infer_take(x: Spec, indices: Spec, *, axis: int) -> Spec:
    return Spec(indexed_shape("take", x, indices, axis), x.dtype)


def _take(x: Array, indices: Array, *, axis: int) -> Array:
    return np.take(x, indices, axis)


def _gradient_of_take(g: Tensor, out: Tensor, x: Tensor, indices: Tensor, *, axis: int) -> Grads:
    return lambda: ops.index_add(zeros(g, x.shape), indices, g, axis=axis), None


def _cost_of_take(x: Spec, indices: Spec, *, out: Spec, axis: int) -> Cost:
    return Cost(0, indices.nbytes + 2 * out.nbytes)


_index_calls: list[tuple[Shape, Shape, int]] = [
    ((5,), (3,), 0), ((4, 3), (2,), 0), ((4, 3), (5,), -1), ((2, 3, 4), (2, 2), 1), ((3, 2), (), 0), ((3,), (0,), 0),
    ((0, 3), (0,), 0), ((3, 0), (2,), 0), ((6, 2), (9,), 0), ((1, 4), (3,), 0),
]  # fmt: skip


def _draw_indices(rng: Rng, shape: Shape, size: int) -> Array:
    return rng.integers(-size, max(size, 1), shape) if size else np.zeros(shape, np.int64)


def _samples_of_take(rng: Rng) -> Iterator[Sample]:
    for shape, index_shape, axis in _index_calls:
        yield Sample((uniform(rng, shape), _draw_indices(rng, index_shape, shape[axis])), {"axis": axis})
    yield Sample((exact_bits(rng), np.array([1, 0, -1, -2, 1])), {"axis": 0}, smooth=False)
    yield Sample((exact_bits(rng), np.array([[4, 0], [2, 2]])), {"axis": 1}, smooth=False)
    yield Sample((uniform(rng, (4, 3)).T[::-1], np.array([3, 1, 0], np.int32)[::-1]), {"axis": 1})
    yield Sample((uniform(rng, (1000, 70)), rng.integers(0, 1000, 1500)), {"axis": 0}, smooth=False)
    yield Sample((uniform(rng, (LARGE,)), rng.integers(0, LARGE, (300, 250))), {"axis": 0}, smooth=False)
    for dtype in (np.int8, np.int64, np.uint32, np.bool_, np.complex64):
        values = integers(rng, (3, 4), 0, 100, np.int64).astype(dtype)
        for index_dtype in (np.int32, np.uint8):
            yield Sample((values, np.array([2, 0, 1, 2], index_dtype)), {"axis": 1}, smooth=False, exact=True)


take = Op(
    "take", _infer_take, _take, _samples_of_take, _gradient_of_take, cost=_cost_of_take, kind="indexing",
    doc="The elements of one axis at `indices`, whose shape takes the place of the axis. Negative ones count from the "
        "end. One that is out of range is an IndexError on the CPU; other devices may not notice.",
)  # fmt: skip


# index_add


def _check_update(who: str, x: Spec, indices: Spec, updates: Spec, axis: int) -> None:
    wanted = indexed_shape(who, x, indices, axis)
    if updates.shape != wanted:
        raise ShapeError(
            f"{who} needs updates of shape {wanted}, got {updates.shape}, "
            f"for indices of shape {indices.shape} along axis {axis} of {x.shape}"
        )


def _infer_index_add(x: Spec, indices: Spec, updates: Spec, *, axis: int) -> Spec:
    _check_update("index_add", x, indices, updates, axis)
    return x


def _index_add(x: Array, indices: Array, updates: Array, *, axis: int) -> Array:
    out = np.moveaxis(x, axis, 0).copy()
    along = range(axis % x.ndim, axis % x.ndim + indices.ndim)
    np.add.at(out, indices, np.moveaxis(updates, tuple(along), tuple(range(indices.ndim))))
    return np.moveaxis(out, 0, axis)


def _gradient_of_index_add(g: Tensor, out: Tensor, x: Tensor, indices: Tensor, updates: Tensor, *, axis: int) -> Grads:
    return g, None, lambda: ops.take(g, indices, axis=axis)


def into_x(x: DType, indices: DType, *values: DType) -> tuple[DType, ...]:
    """What is written into x has its dtype."""
    return (x, indices, *(x for _ in values))


def summed_into_x(x: DType, indices: DType, updates: DType) -> tuple[DType, ...]:
    both = common(x, updates)
    return both[0], indices, both[1]


def _samples_of_index_add(rng: Rng) -> Iterator[Sample]:
    for shape, index_shape, axis in _index_calls:
        indices = _draw_indices(rng, index_shape, shape[axis])
        updates = uniform(rng, np.take(np.zeros(shape), indices, axis).shape)
        yield Sample((uniform(rng, shape), indices, updates), {"axis": axis})
    strided = (uniform(rng, (4, 3)).T[::-1], np.array([3, 1, 3], np.int32)[::-1], uniform(rng, (3, 6))[:, ::-2])
    yield Sample(strided, {"axis": 1})
    for rows, columns, n in [(1000, 70, 1500), (10, 700, 150), (5000, 1, 60_000), (50_000, 3, 2000), (4, 2, 70_000)]:
        drawn = (uniform(rng, (rows, columns)), rng.integers(-rows, rows, n), uniform(rng, (n, columns)))
        yield Sample(drawn, {"axis": 0}, smooth=False)
    yield Sample(
        (uniform(rng, (7, 3, 500)), rng.integers(0, 500, (40, 50)), uniform(rng, (7, 3, 40, 50))),
        {"axis": 2},
        smooth=False,
    )
    odd = (np.zeros((3, 5), np.float32), np.array([0, 2, 0]), np.vstack([exact_bits(rng), np.ones((1, 5), np.float32)]))
    yield Sample(odd, {"axis": 0}, smooth=False)
    for dtype in (np.int8, np.int64, np.uint32, np.bool_, np.complex64):
        x, updates = (integers(rng, s, 0, 100, np.int64).astype(dtype) for s in ((3, 4), (3, 9)))
        yield Sample((x, rng.integers(0, 4, 9), updates), {"axis": 1}, smooth=False, exact=True)


def _terms_of_index_add(x: Spec, indices: Spec, updates: Spec, **settings: Any) -> int:
    return indices.size + 1  # if all indices are the same


def _cost_of_index_add(x: Spec, indices: Spec, updates: Spec, *, out: Spec, axis: int) -> Cost:
    return Cost(updates.size, x.nbytes + out.nbytes + indices.nbytes + 3 * updates.nbytes)


index_add = Op(
    "index_add", _infer_index_add, _index_add, _samples_of_index_add, _gradient_of_index_add, cost=_cost_of_index_add,
    kind="indexing", promote=summed_into_x, terms=_terms_of_index_add, tolerance=SUMS,
    doc="x with `updates` added at `indices` along `axis`, each as often as its index occurs: the adjoint of take. "
        "Indices count and fail as in take.",
)  # fmt: skip


# put


def _infer_put(x: Spec, indices: Spec, values: Spec, *, axis: int) -> Spec:
    wanted = indexed_shape("put", x, indices, axis)
    _check_broadcast("put", values.shape, wanted)
    return x


def _check_broadcast(who: str, shape: Shape, wanted: Shape) -> None:
    extra = len(wanted) - len(shape)
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, wanted[extra:], strict=True)):
        raise ShapeError(f"{who} needs values that broadcast to {wanted}, the shape of what they replace, got {shape}")


def _put(x: Array, indices: Array, values: Array, *, axis: int) -> Array:
    out = np.moveaxis(x, axis, 0).copy()
    shape = np.take(x, indices, axis).shape
    along = range(axis % x.ndim, axis % x.ndim + indices.ndim)
    values = np.moveaxis(np.broadcast_to(values, shape), tuple(along), tuple(range(indices.ndim)))
    for position in np.ndindex(indices.shape):  # one after another, so that the last one stays
        out[indices[position]] = values[position]
    return np.moveaxis(out, 0, axis)


def _last_writer(flat: Tensor, size: int) -> Tensor:
    """For each of `size` places 1 + the position in `flat` of the last index that names it, or 0 if none does.

    Equal indices stand side by side once they are sorted, and stability keeps the last one last.
    """
    n = flat.spec.size
    order = ops.argsort(flat, axis=0)
    ordered = ops.take(flat, order, axis=0)
    last = widen(ops.not_equal(cut(ordered, 0, 0, n - 1), cut(ordered, 0, 1, n)), 0, 0, 1, True)
    return ops.index_add(zeros(order, (size,)), ordered, ops.where(last, order + 1, 0), axis=0)


def _put_by_sort(x: Tensor, indices: Tensor, values: Tensor, *, axis: int) -> Tensor:
    along, size, n = axis % x.ndim, x.shape[axis], indices.spec.size
    if n == 0:
        return ops.reshape(x, shape=x.shape)
    wanted = x.shape[:along] + indices.shape + x.shape[along + 1 :]
    values = ops.broadcast_to(values, shape=wanted)
    values = ops.reshape(values, shape=(*x.shape[:along], n, *x.shape[along + 1 :]))
    writer = _last_writer(from_the_front(ops.reshape(indices, shape=(n,)), size), size)
    there = ops.take(values, ops.where(ops.equal(writer, 0), 0, writer - 1), axis=along)
    shape = tuple(size if i == along else 1 for i in range(x.ndim))
    return ops.where(ops.reshape(ops.not_equal(writer, 0), shape=shape), there, x)


def _gradient_of_put(g: Tensor, out: Tensor, x: Tensor, indices: Tensor, values: Tensor, *, axis: int) -> Grads:
    def of_values() -> Tensor:
        # Only the values that were not overwritten by a later one have a gradient: put their positions to see which.
        along, size = axis % x.ndim, x.shape[axis]
        mine = ops.reshape(ops.iota(size=indices.spec.size, dtype=dtypes.int64, device=g.device), shape=indices.shape)
        stays = ops.equal(ops.take(ops.put(zeros(mine, (size,)), indices, mine, axis=0), indices, axis=0), mine)
        stays = ops.reshape(stays, shape=(*indices.shape, *(1,) * (x.ndim - 1 - along)))
        return unbroadcast(ops.where(stays, ops.take(g, indices, axis=axis), 0), values.shape)

    return lambda: ops.put(g, indices, 0, axis=axis), None, of_values


def _samples_of_put(rng: Rng) -> Iterator[Sample]:
    for shape, index_shape, axis in _index_calls:
        indices = _draw_indices(rng, index_shape, shape[axis])
        values = uniform(rng, np.take(np.zeros(shape), indices, axis).shape)
        yield Sample((uniform(rng, shape), indices, values), {"axis": axis})
    yield Sample((uniform(rng, (4, 3)), np.array([1, -1]), uniform(rng, ())), {"axis": 0})
    yield Sample((uniform(rng, (4, 3)), np.array([1, 2]), uniform(rng, (2, 1))), {"axis": 0})
    yield Sample((exact_bits(rng), np.array([3, 0, 3, -1]), exact_bits(rng)[:, :4]), {"axis": 1}, smooth=False)
    yield Sample((uniform(rng, (4, 3)).T[::-1], np.array([3, 1, 3])[::-1], uniform(rng, (3, 6))[:, ::-2]), {"axis": 1})
    yield Sample(
        (uniform(rng, (2000, 40)), rng.integers(0, 2000, 300), uniform(rng, (300, 40))), {"axis": 0}, smooth=False
    )
    for dtype in (np.int8, np.int64, np.uint32, np.bool_, np.complex64):
        x, updates = (integers(rng, s, 0, 100, np.int64).astype(dtype) for s in ((3, 4), (3, 9)))
        yield Sample((x, rng.integers(0, 4, 9), updates), {"axis": 1}, smooth=False, exact=True)


put = Op(
    "put", _infer_put, _put, _samples_of_put, _gradient_of_put, _put_by_sort, cost_of_copy, "indexing", promote=into_x,
    doc="x with `values` (broadcast) in the place of its elements at `indices` along `axis`; of equal indices the last "
        "one stays. Indices count and fail as in take.",
)  # fmt: skip


# slice_update


def _infer_slice_update(
    x: Spec, value: Spec, *, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]
) -> Spec:
    _check_broadcast("slice_update", value.shape, infer_slice("slice_update", x, start, stop, step))
    return x


def _slice_update(
    x: Array, value: Array, *, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]
) -> Array:
    out = x.copy()
    out[python_slices(start, stop, step)] = value
    return out


def _slice_update_by_where(
    x: Tensor, value: Tensor, *, start: tuple[int, ...], stop: tuple[int, ...], step: tuple[int, ...]
) -> Tensor:
    there = unslice(ops.broadcast_to(value, shape=slice_sizes(start, stop, step)), x.shape, start, stop, step)
    chosen: Tensor | None = None
    for axis, (n, taken) in enumerate(zip(x.shape, map(range, start, stop, step), strict=True)):
        if len(taken) == n:
            continue
        low, high = sorted((taken[0], taken[-1])) if taken else (n, n)
        i = positions(x, axis)
        inside = ops.logical_and(ops.greater_equal(i, low), ops.less_equal(i, high))
        if abs(taken.step) > 1:
            inside = ops.logical_and(inside, ops.equal(ops.remainder(i - low, abs(taken.step)), 0))
        chosen = inside if chosen is None else ops.logical_and(chosen, inside)
    return there if chosen is None else ops.where(chosen, there, x)


def _gradient_of_slice_update(g: Tensor, out: Tensor, x: Tensor, value: Tensor, **bounds: Any) -> Grads:
    return (
        lambda: ops.slice_update(g, 0, **bounds),
        lambda: unbroadcast(ops.slice(g, **bounds), value.shape),
    )


def _samples_of_slice_update(rng: Rng) -> Iterator[Sample]:
    for shape, bounds in slice_calls:
        size = slice_sizes(bounds["start"], bounds["stop"], bounds["step"])
        small = len(shape) != 1 or shape[0] < 100
        yield Sample((uniform(rng, shape), uniform(rng, size)), bounds, smooth=small)
        yield Sample((uniform(rng, shape), uniform(rng, ())), bounds, smooth=small)
    two: dict[str, Any] = {"start": (1, 4), "stop": (3, -1), "step": (1, -2)}
    yield Sample((uniform(rng, (4, 5)), uniform(rng, (2, 1))), two)
    yield Sample((uniform(rng, (5, 4)).T[::-1], uniform(rng, (6,))[::-2]), two)
    odd: dict[str, Any] = {"start": (1, 0), "stop": (-1, 5), "step": (-1, 2)}
    yield Sample((exact_bits(rng)[:, ::-1], exact_bits(rng)[:, 1:4]), odd, smooth=False)
    for dtype in (np.int8, np.int64, np.uint32, np.bool_, np.complex64):
        drawn = tuple(integers(rng, s, 0, 100, np.int64).astype(dtype) for s in ((4, 5), (2, 3)))
        yield Sample(drawn, two, smooth=False, exact=True)


slice_update = Op(
    "slice_update", _infer_slice_update, _slice_update, _samples_of_slice_update, _gradient_of_slice_update,
    _slice_update_by_where, cost_of_copy, "indexing", promote=lambda x, value: (x, x),
    doc="x with `value` (broadcast) in the place of the elements that slice would take.",
)  # fmt: skip


# one_hot


def _infer_one_hot(indices: Spec, *, classes: int) -> Spec:
    check_indices("one_hot", indices)
    if classes < 1:
        raise ShapeError(f"one_hot needs one class or more, got classes={classes}")
    return Spec((*indices.shape, classes), dtypes.int64)


def _one_hot(indices: Array, *, classes: int) -> Array:
    return (indices[..., None] == np.arange(classes)).astype(np.int64)


def _one_hot_by_comparison(indices: Tensor, *, classes: int) -> Tensor:
    column = ops.reshape(ops.cast(indices, dtype=dtypes.int64), shape=(*indices.shape, 1))
    numbers = ops.iota(size=classes, dtype=dtypes.int64, device=indices.device)
    return ops.cast(ops.equal(column, numbers), dtype=dtypes.int64)


def _samples_of_one_hot(rng: Rng) -> Iterator[Sample]:
    for shape, classes in [((4,), 3), ((2, 3), 5), ((), 2), ((0,), 4), ((3,), 1), ((7000,), 10)]:
        for dtype in (np.int64, np.uint8):
            yield Sample((rng.integers(0, classes, shape).astype(dtype),), {"classes": classes}, smooth=False)


def _cost_of_one_hot(indices: Spec, *, out: Spec, classes: int) -> Cost:
    return Cost(out.size, indices.nbytes + out.nbytes)


one_hot = Op(
    "one_hot", _infer_one_hot, _one_hot, _samples_of_one_hot, decompose=_one_hot_by_comparison, cost=_cost_of_one_hot,
    kind="indexing", no_gradient="its input is an integer",
    doc="Along a new last axis of `classes` int64 elements a one at each index, else zero; no one if out of range.",
)  # fmt: skip
