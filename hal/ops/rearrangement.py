"""Movement in patterns, made of the primitives of movement: flip, roll, tile, repeat, tril and triu."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from hal import ops
from hal.errors import ShapeError
from hal.op import Array, Grads, Op
from hal.ops.common import LARGE
from hal.ops.creation import check_sizes
from hal.ops.movement import cost_of_copy, cost_of_view, samples_of
from hal.ops.steps import Axes, cut, positions
from hal.spec import Shape, Spec, normalize_axes, normalize_axis

if TYPE_CHECKING:
    from hal.tensor import Tensor


# flip, roll


def _infer_flip(x: Spec, *, axis: Axes = None) -> Spec:
    normalize_axes("flip", axis, x.ndim)
    return x


def _flip(x: Array, *, axis: Axes = None) -> Array:
    return np.flip(x, axis)


def _flip_by_slice(x: Tensor, *, axis: Axes) -> Tensor:
    for i in normalize_axes("flip", axis, x.ndim):
        x = cut(x, i, x.shape[i] - 1, -1, -1)
    return x


def _gradient_of_flip(g: Tensor, out: Tensor, x: Tensor, *, axis: Axes) -> Grads:
    return (ops.flip(g, axis=axis),)


flip = Op(
    "flip", _infer_flip, _flip,
    samples_of(
        ((5,), {"axis": 0}), ((2, 3), {}), ((2, 3), {"axis": -1}), ((2, 3, 4), {"axis": (0, 2)}), ((), {}),
        ((0, 3), {"axis": 0}), ((2, 3), {"axis": ()}), ((LARGE,), {"axis": 0}),
        odd={"axis": (0, 1)}, ints={"axis": 0},
    ),
    _gradient_of_flip, _flip_by_slice, cost_of_view, "movement",
    doc="The elements in reverse order along `axis` (None: all axes).",
)  # fmt: skip


def _shifts(who: str, shape: Shape, shift: int | tuple[int, ...], axis: Axes) -> dict[int, int]:
    """By how much each axis is rolled, for axes that are named."""
    assert axis is not None
    axes, by = (a if isinstance(a, tuple) else (a,) for a in (axis, shift))
    if len(axes) != len(by):
        raise ShapeError(f"{who} needs one shift for each axis, got shift={shift} and axis={axis}")
    found: dict[int, int] = {}
    for a, s in zip(axes, by, strict=True):
        i = normalize_axis(who, a, len(shape))
        found[i] = found.get(i, 0) + s
    return found


def _infer_roll(x: Spec, *, shift: int | tuple[int, ...], axis: Axes = None) -> Spec:
    if axis is not None:
        _shifts("roll", x.shape, shift, axis)
    elif not isinstance(shift, int):
        raise ShapeError(f"roll without an axis takes one shift, got shift={shift}; name an axis for each")
    return x


def _roll(x: Array, *, shift: int | tuple[int, ...], axis: Axes = None) -> Array:
    return np.roll(x, shift, axis)


def _roll_by_slices(x: Tensor, *, shift: int | tuple[int, ...], axis: Axes) -> Tensor:
    shape = x.shape
    if axis is None:
        x, axis = ops.reshape(x, shape=(x.spec.size,)), 0
    for i, by in _shifts("roll", x.shape, shift, axis).items():
        n = x.shape[i]
        if n and by % n:
            x = ops.concat(cut(x, i, n - by % n, n), cut(x, i, 0, n - by % n), axis=i)
    return x if x.shape == shape else ops.reshape(x, shape=shape)


def _gradient_of_roll(g: Tensor, out: Tensor, x: Tensor, *, shift: int | tuple[int, ...], axis: Axes) -> Grads:
    back = -shift if isinstance(shift, int) else tuple(-s for s in shift)
    return (ops.roll(g, shift=back, axis=axis),)


roll = Op(
    "roll", _infer_roll, _roll,
    samples_of(
        ((5,), {"shift": 2}), ((2, 3), {"shift": -1}), ((2, 3), {"shift": 7, "axis": -1}), ((), {"shift": 3}),
        ((2, 3, 4), {"shift": (1, -2), "axis": (0, 2)}), ((0, 3), {"shift": 1, "axis": 0}),
        ((4, 2), {"shift": (1, 1), "axis": (0, 0)}), ((5,), {"shift": 0, "axis": 0}), ((LARGE,), {"shift": 12_345}),
        odd={"shift": 1, "axis": 1}, ints={"shift": 3},
    ),
    _gradient_of_roll, _roll_by_slices, cost_of_copy, "movement",
    doc="The elements shifted along `axis`; those that leave at the end come in at the front (None: flattened).",
)  # fmt: skip


# tile, repeat


def _infer_tile(x: Spec, *, repeats: tuple[int, ...]) -> Spec:
    check_sizes("tile", repeats)
    ndim = max(x.ndim, len(repeats))
    pairs = zip(_padded(x.shape, ndim), _padded(repeats, ndim), strict=True)
    return Spec(tuple(n * r for n, r in pairs), x.dtype)


def _padded(sizes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    return (1,) * (ndim - len(sizes)) + sizes


def _tile(x: Array, *, repeats: tuple[int, ...]) -> Array:
    return np.tile(x, repeats)


def _tile_by_broadcast(x: Tensor, *, repeats: tuple[int, ...]) -> Tensor:
    ndim = max(x.ndim, len(repeats))
    shape, times = _padded(x.shape, ndim), _padded(repeats, ndim)
    apart = ops.reshape(x, shape=tuple(chain.from_iterable((1, n) for n in shape)))
    apart = ops.broadcast_to(apart, shape=tuple(chain.from_iterable(zip(times, shape, strict=True))))
    return ops.reshape(apart, shape=tuple(n * r for n, r in zip(shape, times, strict=True)))


def _gradient_of_tile(g: Tensor, out: Tensor, x: Tensor, *, repeats: tuple[int, ...]) -> Grads:
    ndim = max(x.ndim, len(repeats))
    pairs = zip(_padded(repeats, ndim), _padded(x.shape, ndim), strict=True)
    apart = ops.reshape(g, shape=tuple(chain.from_iterable(pairs)))
    return (ops.reshape(ops.sum(apart, axis=tuple(range(0, 2 * ndim, 2))), shape=x.shape),)


tile = Op(
    "tile", _infer_tile, _tile,
    samples_of(
        ((3,), {"repeats": (2,)}), ((2, 3), {"repeats": (2, 1)}), ((3,), {"repeats": (2, 2)}), ((), {"repeats": (3,)}),
        ((2, 3, 2), {"repeats": (2,)}), ((2, 3), {"repeats": (0, 1)}), ((0, 3), {"repeats": (2, 2)}),
        ((), {"repeats": ()}), ((LARGE // 7,), {"repeats": (7,)}),
        odd={"repeats": (2, 2)}, ints={"repeats": (1, 2)},
    ),
    _gradient_of_tile, _tile_by_broadcast, cost_of_copy, "movement",
    doc="The whole input laid out `repeats` times along each axis, aligned at the last.",
)  # fmt: skip


def _infer_repeat(x: Spec, *, repeats: int, axis: int) -> Spec:
    check_sizes("repeat", (repeats,))
    i = normalize_axis("repeat", axis, x.ndim)
    return Spec((*x.shape[:i], x.shape[i] * repeats, *x.shape[i + 1 :]), x.dtype)


def _repeat(x: Array, *, repeats: int, axis: int) -> Array:
    return np.repeat(x, repeats, axis)


def _repeat_by_broadcast(x: Tensor, *, repeats: int, axis: int) -> Tensor:
    i = axis % x.ndim
    front, n, back = x.shape[:i], x.shape[i], x.shape[i + 1 :]
    apart = ops.broadcast_to(ops.reshape(x, shape=(*front, n, 1, *back)), shape=(*front, n, repeats, *back))
    return ops.reshape(apart, shape=(*front, n * repeats, *back))


def _gradient_of_repeat(g: Tensor, out: Tensor, x: Tensor, *, repeats: int, axis: int) -> Grads:
    i = axis % x.ndim
    apart = ops.reshape(g, shape=(*x.shape[: i + 1], repeats, *x.shape[i + 1 :]))
    return (ops.sum(apart, axis=i + 1),)


repeat = Op(
    "repeat", _infer_repeat, _repeat,
    samples_of(
        ((3,), {"repeats": 2, "axis": 0}), ((2, 3), {"repeats": 3, "axis": -1}), ((2, 3, 2), {"repeats": 2, "axis": 1}),
        ((2, 3), {"repeats": 0, "axis": 0}), ((0, 3), {"repeats": 2, "axis": 0}), ((2, 3), {"repeats": 1, "axis": 0}),
        ((LARGE // 7, 7), {"repeats": 2, "axis": 1}),
        odd={"repeats": 2, "axis": 1}, ints={"repeats": 2, "axis": 0},
    ),
    _gradient_of_repeat, _repeat_by_broadcast, cost_of_copy, "movement",
    doc="Each element `repeats` times in a row along `axis`.",
)  # fmt: skip


# tril, triu


def _infer_triangle(name: str) -> Callable[..., Spec]:
    def infer(x: Spec, *, diagonal: int = 0) -> Spec:
        if x.ndim < 2:
            raise ShapeError(f"{name} needs matrices, two axes or more, got shape {x.shape}")
        return x

    return infer


def _triangle(keeps: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def decompose(x: Tensor, *, diagonal: int) -> Tensor:
        above = positions(x, x.ndim - 1) - diagonal  # the column, counted from the diagonal's
        return ops.where(keeps(above, positions(x, x.ndim - 2)), x, False)

    return decompose


_triangles = samples_of(
    ((3, 3), {}), ((2, 4), {"diagonal": 1}), ((4, 2), {"diagonal": -1}), ((2, 3, 4), {"diagonal": 2}), ((0, 3), {}),
    ((3, 0), {"diagonal": 1}), ((3, 3), {"diagonal": 9}), ((3, 3), {"diagonal": -9}), ((300, 250), {"diagonal": 3}),
    odd={"diagonal": 1}, ints={"diagonal": 0},
)  # fmt: skip
tril = Op(
    "tril", _infer_triangle("tril"), lambda x, *, diagonal=0: np.tril(x, diagonal), _triangles,
    lambda g, out, x, *, diagonal: (ops.tril(g, diagonal=diagonal),),
    _triangle(lambda column, row: ops.less_equal(column, row)), cost_of_copy, "movement",
    doc="The elements on and below the `diagonal` of the last two axes (0: the main one, 1: the next above).",
)  # fmt: skip
triu = Op(
    "triu", _infer_triangle("triu"), lambda x, *, diagonal=0: np.triu(x, diagonal), _triangles,
    lambda g, out, x, *, diagonal: (ops.triu(g, diagonal=diagonal),),
    _triangle(lambda column, row: ops.greater_equal(column, row)), cost_of_copy, "movement",
    doc="The elements on and above the `diagonal` of the last two axes (0: the main one, 1: the next above).",
)  # fmt: skip
