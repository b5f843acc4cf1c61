"""Elements chosen by number or by truth: take, gather, scatter, where, masked_fill, masked_select, nonzero."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.errors import DTypeError, SettingError, ShapeError
from hal.functions.arguments import Scalar, is_tensor, one_axis
from hal.interop import from_host, host_array
from hal.spec import broadcast_shapes, normalize_axis

if TYPE_CHECKING:
    from hal.tensor import Tensor


# By number.


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None, dim: int | None = None) -> Tensor:
    """The elements (or slices) with these numbers along an axis; with no axis, of the flattened tensor.

    Source: Array API, take; torch.take.
    """
    if axis is None and dim is None and x.ndim != 1:
        x = ops.reshape(x, shape=(x.spec.size,))
    return ops.take(x, indices, axis=one_axis("take", dim, axis, 0))


def index_select(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices with these numbers along an axis. Source: torch.index_select."""
    if index.ndim > 1:
        raise ShapeError(f"index_select needs a vector of numbers, got shape {index.shape}: use take or x[...]")
    return ops.take(x, ops.reshape(index, shape=(index.spec.size,)), axis=dim)


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """For each place of `indices` the element with that number along the axis; the other axes broadcast.

    Source: Array API, take_along_axis; torch.take_along_dim.
    """
    if x.ndim != indices.ndim:
        raise ShapeError(f"take_along_axis needs as many axes in both, got shapes {x.shape} and {indices.shape}")
    i = normalize_axis("take_along_axis", axis, x.ndim)
    rest = broadcast_shapes(
        "take_along_axis", (*x.shape[:i], 1, *x.shape[i + 1 :]), (*indices.shape[:i], 1, *indices.shape[i + 1 :])
    )
    x, indices = (ops.broadcast_to(y, shape=(*rest[:i], y.shape[i], *rest[i + 1 :])) for y in (x, indices))
    return ops.gather(x, ops.where(ops.less(indices, 0), indices + x.shape[i], indices), axis=i)


def take_along_dim(x: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """For each place of `indices` the element with that number along the axis. Source: torch.take_along_dim."""
    if dim is None:
        return take_along_axis(
            ops.reshape(x, shape=(x.spec.size,)), ops.reshape(indices, shape=(indices.spec.size,)), axis=0
        )
    return take_along_axis(x, indices, axis=dim)


def gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """For each place of `index` the element of `x` with that number along `dim`. Source: torch.gather."""
    return ops.gather(x, index, axis=dim)


def scatter(
    x: Tensor, dim: int, index: Tensor, src: Tensor | Scalar | None = None, *, value: Scalar | None = None
) -> Tensor:
    """`x` with each element of `src` put at the number along `dim` that `index` has for it. Source: torch.scatter."""
    given = value if src is None else src
    if given is None:
        raise SettingError("scatter needs src, a tensor, or value, a number")
    if not is_tensor(given):
        given = ops.full(_number(x, given), shape=index.shape)
    return ops.scatter(x, index, given, axis=dim)


def scatter_add(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """`x` with each element of `src` added at the number along `dim` that `index` has. Source: torch.scatter_add."""
    return ops.scatter_add(x, index, src, axis=dim)


def index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Scalar = 1) -> Tensor:
    """`x` with the slices of `source` added at these numbers along `dim`. Source: torch.index_add."""
    return ops.index_add(x, index, source if alpha == 1 else source * alpha, axis=dim)


def index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """`x` with the slices of `source` at these numbers along `dim`. Source: torch.index_copy."""
    return ops.put(x, index, source, axis=dim)


def index_fill(x: Tensor, dim: int, index: Tensor, value: Scalar | Tensor) -> Tensor:
    """`x` with one value in the slices with these numbers along `dim`. Source: torch.index_fill."""
    return ops.put(x, index, value if is_tensor(value) else _number(x, value), axis=dim)


def _number(x: Tensor, value: Scalar) -> Tensor:
    """A Python number as a 0-d tensor of the dtype and on the device of `x`."""
    from hal.placement import constant
    from hal.spec import Spec

    return constant(value, Spec((), x.dtype), x.device)


# By truth.


def where(condition: Tensor, a: Any = None, b: Any = None, /) -> Any:
    """`a` where the condition holds, else `b`; without them, the places where it holds, one tensor for each axis.

    Source: torch.where; Array API, where.
    """
    if a is None and b is None:
        return nonzero(condition)
    return ops.where(condition, a, b)


def choose(x: Tensor, condition: Tensor, other: Any) -> Tensor:
    """`x` where the condition holds, else `other`. Source: torch.Tensor.where."""
    return ops.where(condition, x, other)


def _check_mask(who: str, mask: Tensor) -> None:
    if mask.dtype is not dtypes.bool_:
        raise DTypeError(f"{who} needs a mask of bool, got {mask.dtype.name}: compare, or use .bool()")


def masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`x` with `value` where the mask holds. Source: torch.masked_fill."""
    _check_mask("masked_fill", mask)
    filler = ops.cast(value, dtype=x.dtype) if is_tensor(value) else _number(x, value)
    return ops.where(mask, filler, x)


def masked_select(x: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask holds, as a vector; how many is found on the host. Source: torch.masked_select."""
    _check_mask("masked_select", mask)
    shape = broadcast_shapes("masked_select", x.shape, mask.shape)
    flat = ops.reshape(ops.broadcast_to(x, shape=shape), shape=(prod(shape),))
    return ops.take(flat, flat_places(ops.broadcast_to(mask, shape=shape), "masked_select"), axis=0)


def flat_places(mask: Tensor, who: str) -> Tensor:
    """The numbers of the elements that are not zero, counted in the flattened tensor."""
    return from_host(np.flatnonzero(host_array(mask, who)), mask)


def nonzero(x: Tensor, /, *, as_tuple: bool = True) -> Any:
    """The places of the elements that are not zero: a tensor for each axis, or (as_tuple=False) the rows of a matrix.

    Source: Array API, nonzero; torch.nonzero, whose default is the matrix.
    """
    if not as_tuple:
        return argwhere(x)
    if x.ndim == 0:
        raise ShapeError("nonzero needs at least one axis, got a single value: compare it, or reshape it first")
    return tuple(from_host(place, x) for place in np.nonzero(host_array(x, "nonzero")))


def argwhere(x: Tensor, /) -> Tensor:
    """The places of the elements that are not zero, as the rows of a matrix. Source: torch.argwhere."""
    return from_host(np.argwhere(host_array(x, "nonzero")).astype(np.int64), x)


def nonzero_rows(x: Tensor, /, *, as_tuple: bool = False) -> Any:
    """The places of the elements that are not zero, as the rows of a matrix. Source: torch.Tensor.nonzero."""
    return nonzero(x) if as_tuple else argwhere(x)
