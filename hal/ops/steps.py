"""Small steps that gradients and decompositions share: cut or widen one axis, count along it, make zeros."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

from hal import dtypes, ops
from hal.dtypes import DType
from hal.spec import Shape, Spec, normalize_axes

if TYPE_CHECKING:
    from hal.tensor import Tensor

Axes = int | tuple[int, ...] | None


def kept_shape(shape: Shape, axis: Axes) -> Shape:
    """`shape` after reducing over `axis` with keepdims: ones where it is reduced."""
    axes = normalize_axes("a reduction", axis, len(shape))
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def count(shape: Shape, axis: Axes) -> int:
    """How many elements of an array of `shape` fall into one when `axis` is reduced."""
    return prod(shape[i] for i in normalize_axes("a reduction", axis, len(shape)))


def kept(reduced: Tensor, shape: Shape, axis: Axes) -> Tensor:
    """A result of reducing `shape` over `axis`, with the reduced axes put back as ones, so that it broadcasts."""
    wanted = kept_shape(shape, axis)
    return reduced if reduced.shape == wanted else ops.reshape(reduced, shape=wanted)


def spread(reduced: Tensor, shape: Shape, axis: Axes) -> Tensor:
    """A result of reducing `shape` over `axis`, repeated over the reduced axes."""
    return ops.broadcast_to(kept(reduced, shape, axis), shape=shape)


def shaped(x: Tensor, shape: Shape) -> Tensor:
    """`x` in this shape, without a call if it has it."""
    return x if x.shape == shape else ops.reshape(x, shape=shape)


def cut(x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    """The elements range(start, stop, step) of one axis, counted from the front."""
    if (start, stop, step) == (0, x.shape[axis], 1):
        return x
    starts, stops, steps = [0] * x.ndim, list(x.shape), [1] * x.ndim
    starts[axis], stops[axis], steps[axis] = start, stop, step
    return ops.slice(x, start=tuple(starts), stop=tuple(stops), step=tuple(steps))


def widen(x: Tensor, axis: int, low: int, high: int, value: bool | int | float = 0) -> Tensor:
    """`x` with `low` elements of `value` before one axis and `high` after it."""
    if low == high == 0:
        return x
    padding = tuple((low, high) if i == axis else (0, 0) for i in range(x.ndim))
    return ops.pad(x, padding=padding, value=value)


def positions(x: Tensor, axis: int, dtype: DType = dtypes.int64) -> Tensor:
    """0, 1, 2, ... along one axis of `x`, with ones for its other axes."""
    shape = tuple(n if i == axis else 1 for i, n in enumerate(x.shape))
    return ops.reshape(ops.iota(size=x.shape[axis], dtype=dtype, device=x.device), shape=shape)


def zeros(like: Tensor, shape: Shape) -> Tensor:
    """Fresh zeros with the dtype and on the device of `like`, whose elements are not read."""
    from hal.placement import constant  # dispatch is built on the table that this file belongs to

    return ops.full(constant(0, Spec((), like.dtype), like.device), shape=shape)


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(*xs, **settings)`, computed in float32 and rounded once where the inputs have half precision.

    A sum of many squares overflows float16 long before their mean does.
    """

    def decompose(*xs: Tensor, **settings: Any) -> Tensor:
        dtype = xs[0].dtype
        if dtype not in (dtypes.float16, dtypes.bfloat16):
            return function(*xs, **settings)
        return ops.cast(function(*(ops.cast(x, dtype=dtypes.float32) for x in xs), **settings), dtype=dtype)

    return decompose
