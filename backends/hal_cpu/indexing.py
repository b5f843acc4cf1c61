"""Indexing in NumPy: reads and writes by position, and sums of what goes to the same place."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from hal import ops
from hal.ops.movement import python_slices
from hal.plugin import Array
from hal_cpu.reduction import total
from hal_cpu.table import kernels

Shape = tuple[int, ...]
_NARROW = 32  # rows of fewer elements are cheaper element by element
_SPARSE = 16  # with so many places for each index, going through the indices is cheaper than through the places
_CHUNK = 65_536
_MANY = 64  # so many terms one after another stay within the error bound of a sum


def _out_of_range(who: str, indices: Array, size: int, axis: int, shape: Shape) -> IndexError:
    odd = indices[(indices < -size) | (indices >= size)].ravel()[0]
    return IndexError(f"{who} got index {odd} into axis {axis} of shape {shape}: use {-size} to {size - 1}")


@kernels.register(ops.take)
def take(x: Array, indices: Array, *, axis: int) -> Array:
    try:
        if x.flags.c_contiguous:
            return x.take(indices, axis)
        # ndarray.take would copy all of x first
        index: tuple[Any, ...] = (*(np.s_[:],) * (axis % x.ndim), indices)
        return x[index]
    except IndexError:
        raise _out_of_range("take", indices, x.shape[axis], axis, x.shape) from None


def _from_the_front(who: str, indices: Array, size: int, axis: int, shape: Shape) -> Array:
    """Indices as int64 and >= 0.

    Raises:
        IndexError: one is out of range.
    """
    indices = indices.astype(np.int64)
    if indices.size == 0:
        return indices
    if indices.min() < -size or indices.max() >= size:
        raise _out_of_range(who, indices, size, axis, shape)
    indices[indices < 0] += size
    return indices


def _target(x: Array, out: Array | None) -> Array:
    """Where a changed copy of `x` is to be written, holding the elements of `x`."""
    if out is None:
        return x.copy(order="C")
    if out is not x:
        np.copyto(out, x)
    return out


class _Runs(NamedTuple):
    """Equal indices side by side: `order` sorts them; run r has `lengths[r]` from `first[r]` on, all `places[r]`."""

    order: Array
    first: Array
    lengths: Array
    places: Array

    @classmethod
    def of(cls, indices: Array, places: int) -> _Runs:
        """The runs among `indices`, the longest first."""
        order = _stable_order(indices, places)
        ordered = indices[order]
        starts = np.empty(ordered.size, bool)
        starts[:1] = True
        np.not_equal(ordered[1:], ordered[:-1], out=starts[1:])
        first = np.flatnonzero(starts)
        lengths = np.diff(first, append=ordered.size)
        by_length = _stable_order(lengths.max(initial=0) - lengths, ordered.size)
        first = first[by_length]
        return cls(order, first, lengths[by_length], ordered[first])


def _stable_order(numbers: Array, bound: int) -> Array:
    """What sorts numbers >= 0 and below `bound`; NumPy sorts 16-bit numbers by radix, six times as fast."""
    return (numbers.astype(np.uint16) if bound <= 65_536 else numbers).argsort(kind="stable")


def _add_rows(target: Array, indices: Array, updates: Array) -> None:
    """target[:, indices] += updates, for (front, places, row) and (front, n, row): a whole row at a time.

    To the first of every run of equal indices all seconds are added, then all thirds, and so on: with the longest
    runs in front, those that go on are a slice. A long run, whose error would grow with it, is summed by itself.
    """
    front, places, row = target.shape
    order, first, lengths, runs = _Runs.of(indices, places)
    alone = int(np.count_nonzero(lengths > _MANY))
    for start, length, place in zip(first[:alone], lengths[:alone], runs[:alone], strict=True):
        target[:, place] += total(updates.take(order[start : start + length], 1), 1)
    first, lengths, runs = first[alone:], lengths[alone:], runs[alone:]
    if not runs.size:
        return
    going_on = [int(np.count_nonzero(lengths > step)) for step in range(int(lengths[0]))]
    chunk = max(1, _CHUNK // (runs.size * row))
    for i in range(0, front, chunk):
        here, given = target[i : i + chunk], updates[i : i + chunk]
        sums = given.take(order[first], 1)
        for step, number in enumerate(going_on[1:], 1):
            sums[:, :number] += given.take(order[first[:number] + step], 1)
        sums += here.take(runs, 1)
        here[:, runs] = sums


def _add_elements(target: Array, indices: Array, updates: Array) -> None:
    """The same element by element, in float64 for every sum: for short rows."""
    front, places, row = target.shape
    if row > 1:
        indices = (indices[:, None] * row + np.arange(row)).ravel()
    size, n = places * row, indices.size
    together = max(1, min(front, _CHUNK // max(n, 1)))
    flat, values = target.reshape(front, size), updates.reshape(front, n)
    if together > 1:
        indices = (np.arange(together)[:, None] * size + indices).ravel()
    for i in range(0, front, together):
        chunk = min(together, front - i)
        sums = np.bincount(indices[: chunk * n], values[i : i + chunk].ravel(), chunk * size)
        flat[i : i + chunk] += sums.reshape(chunk, size).astype(target.dtype)


def _add_at(target: Array, indices: Array, updates: Array) -> None:
    """target[:, indices] += updates in the way that fits the shapes best (measured); target is contiguous."""
    front, places, row = target.shape
    n = indices.size
    if n == 0 or target.size == 0:
        return
    if target.dtype not in (np.float32, np.float64):
        flat = (np.arange(front)[:, None, None] * places + indices[:, None]) * row + np.arange(row)
        np.add.at(target.reshape(-1), flat.ravel(), updates.ravel())  # exact in any order
        return
    if row < _NARROW and places <= _SPARSE * n:
        _add_elements(target, indices, updates)
        return
    _add_rows(target, indices, updates)


def _is_half(x: Array) -> bool:
    return x.dtype.itemsize == 2 and x.dtype.kind not in "iu"


@kernels.register(ops.index_add, out=True)
def index_add(x: Array, indices: Array, updates: Array, *, axis: int, out: Array | None = None) -> Array:
    along = axis % x.ndim
    flat = _from_the_front("index_add", indices.reshape(-1), x.shape[along], axis, x.shape)
    shape = (prod(x.shape[:along]), x.shape[along], prod(x.shape[along + 1 :]))
    updates = updates.reshape(shape[0], flat.size, shape[2])
    return _added(x, shape, flat, updates, out)


def _added(x: Array, shape: Shape, indices: Array, updates: Array, out: Array | None) -> Array:
    """`x`, seen in three axes, with updates added along the middle one; in float32 if it has half precision."""
    if out is not None and np.may_share_memory(out, updates):
        updates = updates.copy()
    if not _is_half(x) and (out is None or out.flags.c_contiguous):
        target = _target(x, out)
        _add_at(target.reshape(shape), indices, updates)
        return target
    work = x.astype(np.float32 if _is_half(x) else x.dtype, order="C")
    _add_at(work.reshape(shape), indices, updates.astype(work.dtype, copy=False))
    if out is None:
        return work.astype(x.dtype)
    np.copyto(out, work, casting="unsafe")
    return out


@kernels.register(ops.put, out=True)
def put(x: Array, indices: Array, values: Array, *, axis: int, out: Array | None = None) -> Array:
    if out is not None and np.may_share_memory(out, values):
        values = values.copy()
    target = _target(x, out)
    index: tuple[Any, ...] = (*(np.s_[:],) * (axis % x.ndim), np.asarray(indices, order="C"))
    try:
        target[index] = values
    except IndexError:
        raise _out_of_range("put", indices, x.shape[axis], axis, x.shape) from None
    return target


@kernels.register(ops.slice_update, out=True)
def slice_update(x: Array, value: Array, *, start: Shape, stop: Shape, step: Shape, out: Array | None = None) -> Array:
    target = _target(x, out)
    target[python_slices(start, stop, step)] = value
    return target


@kernels.register(ops.one_hot)
def one_hot(indices: Array, *, classes: int) -> Array:
    return np.equal(indices[..., None], np.arange(classes)).astype(np.int64)


def _linear(who: str, index: Array, shape: Shape, axis: int) -> Array:
    """For every index its position in a flat array of `shape`."""
    along = axis % len(shape)
    flat = _from_the_front(who, index, shape[along], axis, shape)
    flat *= prod(shape[along + 1 :])
    for i, n in enumerate(index.shape):
        if i != along and n > 1:
            flat += (np.arange(n) * prod(shape[i + 1 :])).reshape((n,) + (1,) * (len(shape) - 1 - i))
    return flat


@kernels.register(ops.gather)
def gather(x: Array, index: Array, *, axis: int) -> Array:
    return x.reshape(-1).take(_linear("gather", index, x.shape, axis))


def _part(src: Array, shape: Shape) -> Array:
    return np.broadcast_to(src, shape) if src.ndim == 0 else src[tuple(np.s_[:n] for n in shape)]


@kernels.register(ops.scatter, out=True)
def scatter(x: Array, index: Array, src: Array, *, axis: int, out: Array | None = None) -> Array:
    places, part = _linear("scatter", index, x.shape, axis).ravel(), _part(src, index.shape).ravel()
    if out is not None and not out.flags.c_contiguous:
        np.copyto(out, scatter(x, index, src, axis=axis))
        return out
    if out is not None and np.may_share_memory(out, part):
        part = part.copy()
    target = _target(x, out)
    target.reshape(-1)[places] = part  # one after another, so that the last one stays
    return target


@kernels.register(ops.scatter_add, out=True)
def scatter_add(x: Array, index: Array, src: Array, *, axis: int, out: Array | None = None) -> Array:
    places, part = _linear("scatter_add", index, x.shape, axis).ravel(), _part(src, index.shape).reshape(1, -1, 1)
    return _added(x, (1, x.size, 1), places, part, out)
