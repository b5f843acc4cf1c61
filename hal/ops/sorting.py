"""Order along an axis: argsort by a sorting network, and sort and topk, which read what it found.

NaN counts as greater than every number, as in torch: last in ascending order, first in descending order. Equal
elements stay in the order in which they came, whichever the order.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.errors import ShapeError
from hal.op import Array, Cost, Grads, Op, Rng, Sample
from hal.ops.common import LARGE, REAL_KINDS, check_kind, distinct, integers
from hal.ops.movement import exact_bits
from hal.ops.steps import cut, positions, widen, zeros
from hal.spec import Spec, normalize_axis

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _infer_argsort(x: Spec, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Spec:
    check_kind("argsort", x, REAL_KINDS)
    normalize_axis("argsort", axis, x.ndim)
    return Spec(x.shape, dtypes.int64)


def _argsort(x: Array, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    if not descending:
        return np.argsort(x, axis, kind="stable")
    # Sorting from the back and reading from the back keeps equal elements in order.
    return x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)


def _ascending_key(x: Tensor, descending: bool) -> Tensor:
    """Values whose ascending order is the one wanted."""
    if not descending:
        return x
    return -x if x.dtype.is_floating else ops.bitwise_invert(x)  # the negative of an integer may not exist


def _largest(x: Tensor) -> bool | int | float:
    if x.dtype.is_floating:
        return inf
    return True if x.dtype is dtypes.bool_ else int(np.iinfo(x.dtype.numpy).max)


def _argsort_by_network(x: Tensor, *, axis: int, descending: bool, stable: bool) -> Tensor:
    """A bitonic sorting network on pairs (key, number): every step compares each element with a partner.

    All numbers differ, so the order of the pairs is total, and the network, which is not stable, gives one answer. A
    NaN gets the key of an infinity and a number that puts it behind (or, descending, before) the real infinities.

    Source: Batcher, "Sorting networks and their applications", AFIPS Spring Joint Computer Conference, 1968.
    """
    along, n = axis % x.ndim, x.shape[axis]
    last = x.ndim - 1
    order = (*(i for i in range(x.ndim) if i != along), along)
    size = 1 << max(n - 1, 0).bit_length()
    key = ops.permute(x, axes=order)
    number = ops.broadcast_to(positions(key, last), shape=key.shape)
    if x.dtype.is_floating:
        nan = ops.isnan(key)
        number = ops.where(nan, number - size if descending else number + size, number)
        key = _ascending_key(key, descending)
        key = ops.where(nan, -inf if descending else inf, key)
    else:
        key = _ascending_key(key, descending)
    key = widen(key, last, 0, size - n, _largest(x))
    number = widen(number, last, 0, size - n, 2 * size)
    block = 2
    while block <= size:
        # The first step of a merge compares with the mirror image in the block, the others at half the distance each.
        key, number = _exchange(key, number, 1, block)
        distance = block // 4
        while distance:
            key, number = _exchange(key, number, distance, 2)
            distance //= 2
        block *= 2
    number = cut(number, last, 0, n)
    if x.dtype.is_floating:
        number = ops.where(ops.less(number, 0), number + size, number)
        number = ops.where(ops.less(number, size), number, number - size)
    back = tuple(order.index(i) for i in range(x.ndim))
    return ops.permute(number, axes=back)


def _exchange(key: Tensor, number: Tensor, distance: int, block: int) -> tuple[Tensor, Tensor]:
    """One step: in every row of `block` times `distance` elements, i and its mirror image get into order."""
    shape = key.shape
    apart = (*shape[:-1], shape[-1] // (block * distance), block, distance)
    key, number = ops.reshape(key, shape=apart), ops.reshape(number, shape=apart)
    mirror = len(apart) - 2
    other_key = cut(key, mirror, block - 1, -1, -1)
    other_number = cut(number, mirror, block - 1, -1, -1)
    tied = ops.logical_and(ops.equal(key, other_key), ops.less(number, other_number))
    before = ops.logical_or(ops.less(key, other_key), tied)
    front = ops.less(positions(key, mirror), block // 2)
    stays = ops.equal(before, front)
    key, number = ops.where(stays, key, other_key), ops.where(stays, number, other_number)
    return ops.reshape(key, shape=shape), ops.reshape(number, shape=shape)


def _cost(x: Spec, *, out: Spec | tuple[Spec, ...], axis: int = -1, **settings: Any) -> Cost:
    outs = out if isinstance(out, tuple) else (out,)
    rounds = max(x.shape[axis] - 1, 1).bit_length() if x.ndim else 1
    return Cost(x.size * rounds, rounds * x.nbytes + sum(o.nbytes for o in outs))


def _samples(rng: Rng) -> Iterator[Sample]:
    for shape, axis in [((5,), 0), ((2, 3), -1), ((2, 4, 3), 1), ((2, 3), 0), ((3, 1), 1), ((7,), -1), ((8, 2), -2)]:
        for descending in (False, True):
            yield Sample((distinct(rng, shape),), {"axis": axis, "descending": descending})
    yield Sample((distinct(rng, (0, 3)),), {"axis": 0})
    yield Sample((distinct(rng, (0, 3)),), {"axis": 1})
    yield Sample((distinct(rng, (4, 6))[::-1, ::-2].T,), {"axis": 1})
    yield Sample((distinct(rng, (400, 9)),), {"axis": 0}, smooth=False)
    for descending in (False, True):
        settings = {"axis": 1, "descending": descending}
        yield Sample((exact_bits(rng),), settings, smooth=False)
        ties = np.array([[1, 0, 1, 0, np.nan, np.inf, np.nan, -np.inf, 0.0, -0.0], [3] * 10], np.float32)
        yield Sample((ties,), settings, smooth=False)
        yield Sample((np.array([-128, 127, 0, -128, 5], np.int8),), {**settings, "axis": 0}, smooth=False, exact=True)
        for dtype in (np.int32, np.int64, np.uint8, np.uint32):
            low = 0 if dtype in (np.uint8, np.uint32) else -5
            yield Sample((integers(rng, (3, 20), low, 6, dtype),), settings, smooth=False, exact=True)
        yield Sample((rng.random((2, 9)) < 0.5,), settings, smooth=False, exact=True)


def _samples_of_argsort(rng: Rng) -> Iterator[Sample]:
    yield from _samples(rng)
    yield Sample((distinct(rng, (3, 50)),), {"axis": 1, "stable": False})
    yield Sample((distinct(rng, (LARGE,)),), {"axis": 0}, smooth=False, exact=True)  # in float16 there would be ties


def _samples_of_sort(rng: Rng) -> Iterator[Sample]:
    yield from _samples(rng)
    yield Sample((distinct(rng, (LARGE,)),), {"axis": 0}, smooth=False)


argsort = Op(
    "argsort", _infer_argsort, _argsort, _samples_of_argsort, decompose=_argsort_by_network, cost=_cost,
    kind="indexing", no_gradient="the result is an integer; use sort, or gather with its result, for values",
    doc="The int64 positions that sort `axis`. NaN is greater than every number. Equal elements stay in order; with "
        "stable=False a device may save itself the trouble.",
)  # fmt: skip


# sort


def _infer_sort(x: Spec, *, axis: int = -1, descending: bool = False) -> Spec:
    check_kind("sort", x, REAL_KINDS)
    normalize_axis("sort", axis, x.ndim)
    return x


def _sort(x: Array, *, axis: int = -1, descending: bool = False) -> Array:
    return np.take_along_axis(x, _argsort(x, axis=axis, descending=descending), axis)


def _sort_by_argsort(x: Tensor, *, axis: int, descending: bool) -> Tensor:
    return ops.gather(x, ops.argsort(x, axis=axis, descending=descending), axis=axis)


def _gradient_of_sort(g: Tensor, out: Tensor, x: Tensor, *, axis: int, descending: bool) -> Grads:
    order = ops.argsort(x, axis=axis, descending=descending)
    return (ops.scatter_add(zeros(g, g.shape), order, g, axis=axis),)


sort = Op(
    "sort", _infer_sort, _sort, _samples_of_sort, _gradient_of_sort, _sort_by_argsort, _cost, "indexing",
    doc="The elements in order along `axis`. NaN is greater than every number.",
)  # fmt: skip


# topk


def _infer_topk(x: Spec, *, k: int, axis: int = -1, largest: bool = True) -> tuple[Spec, Spec]:
    check_kind("topk", x, REAL_KINDS)
    along = normalize_axis("topk", axis, x.ndim)
    if not 0 <= k <= x.shape[along]:
        raise ShapeError(
            f"topk got k={k}, but axis {axis} of {x.shape} has {x.shape[along]} elements: take 0 to that many"
        )
    shape = (*x.shape[:along], k, *x.shape[along + 1 :])
    return Spec(shape, x.dtype), Spec(shape, dtypes.int64)


def _topk(x: Array, *, k: int, axis: int = -1, largest: bool = True) -> tuple[Array, Array]:
    positions = np.take(_argsort(x, axis=axis, descending=largest), range(k), axis)
    return np.take_along_axis(x, positions, axis), positions


def _topk_by_argsort(x: Tensor, *, k: int, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    positions = cut(ops.argsort(x, axis=axis, descending=largest), axis % x.ndim, 0, k)
    return ops.gather(x, positions, axis=axis), positions


def _gradient_of_topk(
    g: tuple[Any, ...], out: tuple[Tensor, Tensor], x: Tensor, *, k: int, axis: int, largest: bool
) -> Grads:
    return (ops.scatter_add(zeros(g[0], x.shape), out[1], g[0], axis=axis),)


def _samples_of_topk(rng: Rng) -> Iterator[Sample]:
    for shape, k, axis in [
        ((5,), 2, 0),
        ((3, 6), 3, -1),
        ((3, 6), 2, 0),
        ((2, 5, 3), 5, 1),
        ((4,), 0, 0),
        ((1, 1), 1, 1),
    ]:
        for largest in (True, False):
            yield Sample((distinct(rng, shape),), {"k": k, "axis": axis, "largest": largest})
    yield Sample((distinct(rng, (0, 3)),), {"k": 2, "axis": 1})
    yield Sample((distinct(rng, (6, 4)).T[::-1, ::2],), {"k": 2, "axis": 1})
    yield Sample((distinct(rng, (20, 3000)),), {"k": 7, "axis": 1}, smooth=False)
    for largest in (True, False):
        settings = {"k": 4, "axis": 1, "largest": largest}
        yield Sample((exact_bits(rng),), settings, smooth=False)
        ties = np.array([[1, 0, 1, 0, np.nan, np.inf, np.nan, -np.inf, 0.0, -0.0], [3] * 10], np.float32)
        yield Sample((ties,), settings, smooth=False)
        many = integers(rng, (5, 5000), 0, 50, np.int64).astype(np.float32)  # ties
        yield Sample((many,), {**settings, "k": 150}, smooth=False)
        many[1:3, ::1000] = np.nan
        yield Sample((many,), {**settings, "k": 20}, smooth=False)
        for dtype in (np.int32, np.uint8, np.bool_):
            values = integers(rng, (3, 20), 0, 6, np.int64).astype(dtype)
            yield Sample((values,), settings, smooth=False, exact=True)
        yield Sample((np.array([[-128, 127, 0, -128, 5]], np.int8),), settings, smooth=False, exact=True)


topk = Op(
    "topk", _infer_topk, _topk, _samples_of_topk, _gradient_of_topk, _topk_by_argsort, _cost, "indexing",
    doc="The `k` largest (or smallest) elements along `axis` in order, and their int64 positions; of equal ones the "
        "first. NaN is greater than every number. Source: torch.topk.",
)  # fmt: skip
