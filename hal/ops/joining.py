"""Joining tensors: concat along an axis that is there, stack along a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from hal import ops
from hal.errors import ShapeError
from hal.op import Array, Grads, Op, Rng, Sample
from hal.ops.common import LARGE, common, integers, uniform
from hal.ops.movement import cost_of_copy, exact_bits
from hal.ops.steps import cut, positions, widen
from hal.spec import Shape, Spec, normalize_axis

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _infer_concat(*xs: Spec, axis: int = 0) -> Spec:
    if not xs or xs[0].ndim == 0:
        what = "got none" if not xs else "got a single value, of shape (): use stack"
        raise ShapeError(f"concat needs one or more tensors with at least one axis, {what}")
    along = normalize_axis("concat", axis, xs[0].ndim)
    for i, x in enumerate(xs):
        if x.ndim != xs[0].ndim or _without(x.shape, along) != _without(xs[0].shape, along):
            raise ShapeError(
                f"concat needs equal shapes except along axis {axis}, "
                f"got {xs[0].shape} first and {x.shape} at position {i}"
            )
    return Spec((*xs[0].shape[:along], sum(x.shape[along] for x in xs), *xs[0].shape[along + 1 :]), xs[0].dtype)


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def _concat(*xs: Array, axis: int = 0) -> Array:
    return np.concatenate(xs, axis)


def _join(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """Two tensors in a row: both padded to the length of the result and chosen from, not added, to keep every bit."""
    if 0 in (a.shape[axis], b.shape[axis]):
        return b if a.shape[axis] == 0 else a
    whole = widen(a, axis, 0, b.shape[axis])
    return ops.where(ops.less(positions(whole, axis), a.shape[axis]), whole, widen(b, axis, a.shape[axis], 0))


def _concat_in_pairs(*xs: Tensor, axis: int) -> Tensor:
    along = axis % xs[0].ndim
    parts = list(xs)
    while len(parts) > 1:  # neighbours first, so that each element is copied log2 of their number times
        parts = [
            _join(parts[i], parts[i + 1], along) if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)
        ]
    return parts[0]


def _gradient_of_concat(g: Tensor, out: Tensor, *xs: Tensor, axis: int) -> Grads:
    along = axis % g.ndim

    def entry(start: int, stop: int) -> Callable[[], Tensor]:
        return lambda: cut(g, along, start, stop)

    entries, start = [], 0
    for x in xs:
        entries.append(entry(start, start + x.shape[along]))
        start += x.shape[along]
    return tuple(entries)


def _samples_of_concat(rng: Rng) -> Iterator[Sample]:
    calls: list[tuple[list[Shape], int]] = [
        ([(2, 3), (2, 3)], 0), ([(2, 3), (1, 3), (4, 3)], 0), ([(2, 3), (2, 1)], -1), ([(3,)], 0), ([(0,), (3,)], 0),
        ([(2, 0), (2, 3), (2, 0)], 1), ([(0, 2), (0, 3)], 1), ([(2, 3, 4), (2, 1, 4)], 1), ([(2,)] * 5, 0),
    ]  # fmt: skip
    for shapes, axis in calls:
        yield Sample(tuple(uniform(rng, s) for s in shapes), {"axis": axis})
    yield Sample((exact_bits(rng), exact_bits(rng)[::-1], uniform(rng, (6, 5))[::3]), {}, smooth=False)
    yield Sample((uniform(rng, (3, 4)).T, uniform(rng, (4, 2))[::-1]), {"axis": 1})
    yield Sample((uniform(rng, (LARGE,)), uniform(rng, (LARGE // 2,))), {}, smooth=False)
    for dtype in (np.int8, np.int64, np.uint32, np.bool_, np.complex64):
        drawn = tuple(integers(rng, (2, n), 0, 100, np.int64).astype(dtype) for n in (3, 2))
        yield Sample(drawn, {"axis": 1}, smooth=False, exact=True)
    mixed = (integers(rng, (3,), dtype=np.int32), uniform(rng, (2,)))
    yield Sample(mixed, {}, smooth=False, exact=True)


concat = Op(
    "concat", _infer_concat, _concat, _samples_of_concat, _gradient_of_concat, _concat_in_pairs, cost_of_copy,
    "movement", promote=common, doc="The tensors one after another along `axis`, in the dtype that they promote to.",
)  # fmt: skip


def _infer_stack(*xs: Spec, axis: int = 0) -> Spec:
    if not xs:
        raise ShapeError("stack needs one or more tensors, got none")
    for i, x in enumerate(xs):
        if x.shape != xs[0].shape:
            raise ShapeError(f"stack needs equal shapes, got {xs[0].shape} first and {x.shape} at position {i}")
    along = normalize_axis("stack", axis, xs[0].ndim + 1)
    return Spec((*xs[0].shape[:along], len(xs), *xs[0].shape[along:]), xs[0].dtype)


def _stack(*xs: Array, axis: int = 0) -> Array:
    return np.stack(xs, axis)


def _stack_by_concat(*xs: Tensor, axis: int) -> Tensor:
    along = axis % (xs[0].ndim + 1)
    shape = (*xs[0].shape[:along], 1, *xs[0].shape[along:])
    return ops.concat(*(ops.reshape(x, shape=shape) for x in xs), axis=along)


def _gradient_of_stack(g: Tensor, out: Tensor, *xs: Tensor, axis: int) -> Grads:
    along = axis % g.ndim

    def entry(i: int) -> Callable[[], Tensor]:
        return lambda: ops.reshape(cut(g, along, i, i + 1), shape=xs[i].shape)

    return tuple(entry(i) for i in range(len(xs)))


def _samples_of_stack(rng: Rng) -> Iterator[Sample]:
    for shape, number, axis in [
        ((2, 3), 2, 0),
        ((2, 3), 3, 1),
        ((2, 3), 2, -1),
        ((), 4, 0),
        ((0, 3), 2, 1),
        ((5,), 1, 0),
    ]:
        yield Sample(tuple(uniform(rng, shape) for _ in range(number)), {"axis": axis})
    yield Sample((exact_bits(rng), exact_bits(rng)[::-1]), {"axis": 2}, smooth=False)
    yield Sample((uniform(rng, (3, 4)).T, uniform(rng, (4, 6))[:, ::-2]), {"axis": 1})
    yield Sample((uniform(rng, (LARGE,)), uniform(rng, (LARGE,))), {"axis": 1}, smooth=False)
    for dtype in (np.int8, np.int64, np.uint32, np.bool_, np.complex64):
        drawn = tuple(integers(rng, (2, 3), 0, 100, np.int64).astype(dtype) for _ in range(2))
        yield Sample(drawn, {"axis": 1}, smooth=False, exact=True)


stack = Op(
    "stack", _infer_stack, _stack, _samples_of_stack, _gradient_of_stack, _stack_by_concat, cost_of_copy,
    "movement", promote=common, doc="Tensors of one shape side by side along a new `axis`.",
)  # fmt: skip
