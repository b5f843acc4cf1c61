"""Reading and writing one element per index: gather, scatter and scatter_add, with torch's meaning.

They are take, put and index_add on the flattened array, with every index made a position in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from hal import dtypes, ops
from hal.errors import ShapeError
from hal.op import SUMS, Array, Cost, Grads, Op, Rng, Sample
from hal.ops.common import LARGE, integers, uniform
from hal.ops.indexing import check_indices, from_the_front, into_x, summed_into_x
from hal.ops.movement import exact_bits
from hal.ops.steps import positions, zeros
from hal.spec import Shape, Spec, normalize_axis

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _check(who: str, x: Spec, index: Spec, axis: int) -> None:
    check_indices(who, index)
    along = normalize_axis(who, axis, x.ndim)
    sizes = zip(index.shape, x.shape, strict=False)
    if index.ndim != x.ndim or any(m > n for i, (m, n) in enumerate(sizes) if i != along):
        raise ShapeError(
            f"{who} needs an index with the axes of its input, none longer except axis {axis}, "
            f"got index {index.shape} and input {x.shape}"
        )
    if index.size and not x.shape[along]:
        raise ShapeError(f"{who} got {index.size} indices into axis {axis} of {x.shape}, which is empty")


def _linear(index: Tensor, shape: Shape, axis: int) -> Tensor:
    """For each index its position in an array of `shape` that was made flat."""
    along = axis % len(shape)
    where = from_the_front(index, shape[along]) * prod(shape[along + 1 :])
    for i in range(len(shape)):
        if i != along and shape[i] > 1:
            where = where + positions(index, i) * prod(shape[i + 1 :])
    return where


def _flat(x: Tensor) -> Tensor:
    return ops.reshape(x, shape=(x.spec.size,))


def _places(index: Array, axis: int) -> tuple[Array, ...]:
    """The NumPy index that reads or writes, for every element of `index`, its place."""
    places: list[Array] = list(np.indices(index.shape, sparse=True))
    places[axis % index.ndim] = index
    return tuple(places)


def _part(src: Tensor, shape: Shape) -> Tensor:
    """The first elements of `src`, as many as the index has; a single value is repeated."""
    if src.ndim == 0:
        return ops.broadcast_to(src, shape=shape)
    if src.shape == shape:
        return src
    return ops.slice(src, start=(0,) * src.ndim, stop=shape, step=(1,) * src.ndim)


def _gradient_of_part(g: Tensor, src: Tensor) -> Tensor:
    if src.ndim == 0:
        return ops.sum(g)
    padding = tuple((0, n - m) for n, m in zip(src.shape, g.shape, strict=True))
    return g if src.shape == g.shape else ops.pad(g, padding=padding)


def _cost(x: Spec, index: Spec, *src: Spec, out: Spec, axis: int) -> Cost:
    return Cost(index.size, index.nbytes + 2 * out.nbytes + 2 * index.size * x.dtype.itemsize)


_calls: list[tuple[Shape, Shape, int]] = [
    ((5,), (3,), 0), ((3, 4), (3, 2), 1), ((3, 4), (5, 4), 0), ((3, 4), (2, 3), -1), ((2, 3, 4), (2, 5, 3), 1),
    ((3,), (0,), 0), ((0, 3), (0, 3), 0), ((3, 1), (3, 2), 1), ((2, 2), (2, 7), 1),
]  # fmt: skip


def _draw_index(rng: Rng, shape: Shape, size: int) -> Array:
    return rng.integers(-size, max(size, 1), shape) if size else np.zeros(shape, np.int64)


# gather


def _infer_gather(x: Spec, index: Spec, *, axis: int) -> Spec:
    _check("gather", x, index, axis)
    return Spec(index.shape, x.dtype)


def _gather(x: Array, index: Array, *, axis: int) -> Array:
    return x[_places(index, axis)]


def _gather_by_take(x: Tensor, index: Tensor, *, axis: int) -> Tensor:
    return ops.take(_flat(x), _linear(index, x.shape, axis), axis=0)


def _gradient_of_gather(g: Tensor, out: Tensor, x: Tensor, index: Tensor, *, axis: int) -> Grads:
    return lambda: ops.scatter_add(zeros(g, x.shape), index, g, axis=axis), None


def _samples_of_gather(rng: Rng) -> Iterator[Sample]:
    for shape, index_shape, axis in _calls:
        yield Sample((uniform(rng, shape), _draw_index(rng, index_shape, shape[axis])), {"axis": axis})
    yield Sample((exact_bits(rng), np.array([[4, 0, 3], [1, -1, 2]], np.int32)), {"axis": 1}, smooth=False)
    yield Sample((uniform(rng, (4, 3)).T[::-1], rng.integers(0, 4, (3, 8))[::-1, ::2]), {"axis": 1})
    yield Sample((uniform(rng, (300, 250)), rng.integers(0, 250, (300, 250))), {"axis": 1}, smooth=False)
    yield Sample((uniform(rng, (LARGE // 10, 10)), rng.integers(0, 10, (LARGE // 10, 1))), {"axis": 1}, smooth=False)
    for dtype in (np.int8, np.int64, np.uint32, np.bool_, np.complex64):
        values = integers(rng, (3, 4), 0, 100, np.int64).astype(dtype)
        yield Sample((values, rng.integers(0, 3, (2, 4)).astype(np.uint8)), {"axis": 0}, smooth=False, exact=True)


gather = Op(
    "gather", _infer_gather, _gather, _samples_of_gather, _gradient_of_gather, _gather_by_take, _cost, "indexing",
    doc="For axis 1 of 2: out[i, j] = x[i, index[i, j]]. The index may be shorter than x along the other axes; "
        "negative indices count from the end. Source: torch.gather.",
)  # fmt: skip


# scatter, scatter_add


def _check_src(who: str, x: Spec, index: Spec, src: Spec, axis: int) -> None:
    _check(who, x, index, axis)
    if src.ndim and (src.ndim != index.ndim or any(n < m for n, m in zip(src.shape, index.shape, strict=True))):
        raise ShapeError(f"{who} needs a single value, or one for each index of shape {index.shape}, got {src.shape}")


def _infer_scatter(x: Spec, index: Spec, src: Spec, *, axis: int) -> Spec:
    _check_src("scatter", x, index, src, axis)
    return x


def _infer_scatter_add(x: Spec, index: Spec, src: Spec, *, axis: int) -> Spec:
    _check_src("scatter_add", x, index, src, axis)
    return x


def _first(src: Array, index: Array) -> Array:
    return np.broadcast_to(src, index.shape) if src.ndim == 0 else src[tuple(np.s_[:n] for n in index.shape)]


def _scatter(x: Array, index: Array, src: Array, *, axis: int) -> Array:
    out, part = x.copy(), _first(src, index)
    for place in np.ndindex(index.shape):  # one after another, so that the last one stays
        target = list(place)
        target[axis] = index[place]
        out[tuple(target)] = part[place]
    return out


def _scatter_add(x: Array, index: Array, src: Array, *, axis: int) -> Array:
    out = x.copy()
    np.add.at(out, _places(index, axis), _first(src, index))
    return out


def _scatter_by_put(x: Tensor, index: Tensor, src: Tensor, *, axis: int) -> Tensor:
    flat = ops.put(_flat(x), _flat(_linear(index, x.shape, axis)), _flat(_part(src, index.shape)), axis=0)
    return ops.reshape(flat, shape=x.shape)


def _scatter_add_by_index_add(x: Tensor, index: Tensor, src: Tensor, *, axis: int) -> Tensor:
    flat = ops.index_add(_flat(x), _flat(_linear(index, x.shape, axis)), _flat(_part(src, index.shape)), axis=0)
    return ops.reshape(flat, shape=x.shape)


def _gradient_of_scatter(g: Tensor, out: Tensor, x: Tensor, index: Tensor, src: Tensor, *, axis: int) -> Grads:
    def of_src() -> Tensor:
        # Only the values that were not overwritten by a later one have a gradient: scatter their numbers to see which.
        mine = ops.reshape(ops.iota(size=index.spec.size, dtype=dtypes.int64, device=g.device), shape=index.shape)
        last = ops.scatter(zeros(mine, x.shape), index, mine, axis=axis)
        stays = ops.equal(ops.gather(last, index, axis=axis), mine)
        return _gradient_of_part(ops.where(stays, ops.gather(g, index, axis=axis), 0), src)

    return lambda: ops.scatter(g, index, 0, axis=axis), None, of_src


def _gradient_of_scatter_add(g: Tensor, out: Tensor, x: Tensor, index: Tensor, src: Tensor, *, axis: int) -> Grads:
    return g, None, lambda: _gradient_of_part(ops.gather(g, index, axis=axis), src)


def _samples_of_scatter(rng: Rng) -> Iterator[Sample]:
    for shape, index_shape, axis in _calls:
        index = _draw_index(rng, index_shape, shape[axis])
        yield Sample((uniform(rng, shape), index, uniform(rng, index_shape)), {"axis": axis})
    yield Sample((uniform(rng, (3, 4)), rng.integers(0, 4, (2, 2)), uniform(rng, (3, 5))), {"axis": 1})
    yield Sample((uniform(rng, (3, 4)), rng.integers(0, 4, (2, 2)), uniform(rng, ())), {"axis": 1})
    strided = (uniform(rng, (4, 3)).T[::-1], rng.integers(0, 4, (3, 8))[::-1, ::2], uniform(rng, (4, 3)).T)
    yield Sample(strided, {"axis": 1})
    drawn = (uniform(rng, (40, 60)), rng.integers(-60, 60, (40, 70)), uniform(rng, (40, 70)))
    yield Sample(drawn, {"axis": 1}, smooth=False)
    for dtype in (np.int8, np.int64, np.uint32, np.bool_, np.complex64):
        x, src = (integers(rng, s, 0, 100, np.int64).astype(dtype) for s in ((3, 4), (5, 4)))
        yield Sample((x, rng.integers(0, 3, (5, 4)).astype(np.int32), src), {"axis": 0}, smooth=False, exact=True)


def _samples_with_bits(rng: Rng) -> Iterator[Sample]:
    yield from _samples_of_scatter(rng)
    index = np.array([[4, 0, 3], [1, -1, 1]], np.int32)
    yield Sample((exact_bits(rng)[:, ::-1], index, exact_bits(rng)), {"axis": 1}, smooth=False)


def _samples_of_scatter_add(rng: Rng) -> Iterator[Sample]:
    yield from _samples_of_scatter(rng)
    drawn = (uniform(rng, (300, 250)), rng.integers(0, 300, (400, 250)), uniform(rng, (400, 250)))
    yield Sample(drawn, {"axis": 0}, smooth=False)
    drawn = (uniform(rng, (7,)), rng.integers(0, 7, (LARGE,)), uniform(rng, (LARGE,)))
    yield Sample(drawn, {"axis": 0}, smooth=False)


def _terms_of_scatter_add(x: Spec, index: Spec, src: Spec, *, axis: int) -> int:
    return index.shape[axis] + 1  # if all indices are the same


scatter = Op(
    "scatter", _infer_scatter, _scatter, _samples_with_bits, _gradient_of_scatter, _scatter_by_put, _cost, "indexing",
    promote=into_x,
    doc="For axis 1 of 2: x with x[i, index[i, j]] = src[i, j]; of equal indices the last one stays, and only it has a "
        "gradient. `src` may be larger than the index, or a single value. Source: torch.scatter.",
)  # fmt: skip
scatter_add = Op(
    "scatter_add", _infer_scatter_add, _scatter_add, _samples_of_scatter_add, _gradient_of_scatter_add,
    _scatter_add_by_index_add, _cost, "indexing", promote=summed_into_x, terms=_terms_of_scatter_add, tolerance=SUMS,
    doc="For axis 1 of 2: x with x[i, index[i, j]] += src[i, j], each as often as it occurs. `src` may be larger than "
        "the index, or a single value. Source: torch.scatter_add.",
)  # fmt: skip
