"""Order and counting: sort, argsort, topk, unique and its relatives, searchsorted, bincount."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from hal import dtypes, ops
from hal.errors import DTypeError, SettingError, ShapeError
from hal.functions.arguments import ValuesAndIndices, one_axis
from hal.interop import from_host, host_array
from hal.spec import normalize_axis

if TYPE_CHECKING:
    from hal.tensor import Tensor


def sort_pair(
    x: Tensor, /, dim: int = -1, descending: bool = False, stable: bool = True, *, axis: int | None = None
) -> ValuesAndIndices:
    """The elements in order along an axis, and where each was. Equal ones keep their order. Source: torch.sort."""
    i = one_axis("sort", None if axis is not None else dim, axis, -1)
    if x.ndim == 0:
        return ValuesAndIndices(x, ops.cast(ops.not_equal(x, x), dtype=dtypes.int64))
    indices = ops.argsort(x, axis=i, descending=descending, stable=stable)
    return ValuesAndIndices(ops.gather(x, indices, axis=i), indices)


def sort(
    x: Tensor, /, dim: int | None = None, descending: bool = False, *, axis: int | None = None, stable: bool = True
) -> Any:
    """The elements in order along an axis, the last by default. Named by `dim`, as torch has it: (values, indices).

    Source: Array API, sort; torch.sort.
    """
    if dim is not None:
        return sort_pair(x, dim, descending, stable)
    return ops.sort(x, axis=-1 if axis is None else axis, descending=descending)


def argsort(
    x: Tensor, /, dim: int | None = None, descending: bool = False, stable: bool = True, *, axis: int | None = None
) -> Tensor:
    """Where the elements in order along an axis (the last by default) are. Source: Array API; torch.argsort."""
    return ops.argsort(x, axis=one_axis("argsort", dim, axis, -1), descending=descending, stable=stable)


def topk(
    x: Tensor, /, k: int, dim: int | None = None, largest: bool = True, sorted: bool = True, *, axis: int | None = None
) -> ValuesAndIndices:
    """The `k` largest (or smallest) elements along an axis, the last by default, in order. Source: torch.topk."""
    return ValuesAndIndices(*ops.topk(x, k=k, axis=one_axis("topk", dim, axis, -1), largest=largest))


def median(x: Tensor, /, dim: int | None = None, keepdim: bool = False) -> Any:
    """The middle element in order, the lower of two: of all, or with `dim` the pair (values, indices) along it.

    Source: torch.median.
    """
    if dim is None:
        flat = ops.reshape(x, shape=(x.spec.size,))
        return sort_pair(flat).values[(x.spec.size - 1) // 2]
    i = normalize_axis("median", dim, x.ndim)
    middle = tuple(pair.narrow(i, (x.shape[i] - 1) // 2, 1) for pair in sort_pair(x, i))
    return ValuesAndIndices(*(part if keepdim else part.squeeze(i) for part in middle))


# Sets of values. How many there are depends on the contents, so they are found on the host.


class UniqueAll(NamedTuple):
    """What unique_all gives. Source: Array API."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """What unique_counts gives. Source: Array API."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """What unique_inverse gives. Source: Array API."""

    values: Tensor
    inverse_indices: Tensor


def unique_all(x: Tensor, /) -> UniqueAll:
    """The values that occur, in order; where first; for each element which value; how often. Each NaN is its own.

    Source: Array API, unique_all.
    """
    found = np.unique(
        host_array(x, "unique"), return_index=True, return_inverse=True, return_counts=True, equal_nan=False
    )
    values, first, inverse, counts = (from_host(np.asarray(part), x) for part in found)
    return UniqueAll(values, first, ops.reshape(inverse, shape=x.shape), counts)


def unique_values(x: Tensor, /) -> Tensor:
    """The values that occur, in order. Source: Array API, unique_values."""
    return from_host(np.unique(host_array(x, "unique"), equal_nan=False), x)


def unique_counts(x: Tensor, /) -> UniqueCounts:
    """The values that occur, in order, and how often. Source: Array API, unique_counts."""
    every = unique_all(x)
    return UniqueCounts(every.values, every.counts)


def unique_inverse(x: Tensor, /) -> UniqueInverse:
    """The values that occur, in order, and for each element which it is. Source: Array API, unique_inverse."""
    every = unique_all(x)
    return UniqueInverse(every.values, every.inverse_indices)


def unique(
    x: Tensor, /, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The values that occur, in order, or the different slices along `dim`; if asked, which each is, and how often.

    Source: torch.unique.
    """
    array = host_array(x, "unique")
    values, inverse, counts = np.unique(
        array, return_inverse=True, return_counts=True, axis=dim, equal_nan=False
    )  # fmt: skip
    shape = x.shape if dim is None else (x.shape[dim],)
    out = [from_host(values, x)]
    out += [from_host(np.reshape(inverse, shape), x)] if return_inverse else []
    out += [from_host(counts, x)] if return_counts else []
    return out[0] if len(out) == 1 else tuple(out)


def searchsorted(
    x1: Tensor, x2: Tensor | float, /, *, out_int32: bool = False, side: str | None = None, right: bool = False,
    sorter: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Where each value of `x2` would go into the sorted `x1`: before equal elements, or (`right`) behind them.

    `x1` is a vector, or has the leading axes of `x2`, each row with its own order. Found on the host.

    Args:
        out_int32: whether the places are int32, not int64.
        sorter: where the elements of `x1` in order are, if they are not in order.

    Raises:
        ShapeError: the leading axes differ.

    Source: Array API, searchsorted; torch.searchsorted.
    """
    if side not in (None, "left", "right"):
        raise SettingError(f"searchsorted takes side='left' or 'right', got {side!r}")
    where: Literal["left", "right"] = "right" if right or side == "right" else "left"
    edges = host_array(x1, "searchsorted")
    if sorter is not None:
        edges = np.take_along_axis(edges, host_array(sorter, "searchsorted"), -1)
    values = np.asarray(x2, edges.dtype) if isinstance(x2, (int, float)) else host_array(x2, "searchsorted")
    places = np.int32 if out_int32 else np.int64
    if edges.ndim == 1:
        return from_host(np.asarray(np.searchsorted(edges, values, where), places), x1)
    if edges.shape[:-1] != values.shape[:-1]:
        raise ShapeError(f"searchsorted needs equal leading axes, got shapes {edges.shape} and {values.shape}")
    found = np.zeros(values.shape, places)
    for row in np.ndindex(edges.shape[:-1]):
        found[row] = np.searchsorted(edges[row], values[row], where)
    return from_host(found, x1)


def bincount(x: Tensor, /, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each of 0, 1, 2, ... occurs, or the sum of the weights that stand where it does.

    Raises:
        DTypeError, ShapeError: `x` is no vector of integers of 0 or more.

    Source: torch.bincount; numpy.bincount.
    """
    if x.dtype.kind not in ("int", "uint") or x.ndim != 1:
        raise DTypeError(f"bincount needs a vector of integers, got shape {x.shape} of {x.dtype.name}")
    array = host_array(x, "bincount")
    if array.size and array.min() < 0:
        raise ShapeError(f"bincount needs integers of 0 or more, got {array.min()}")
    size = max(minlength, int(array.max()) + 1 if array.size else 0)
    given = x.new_ones(x.shape, dtype=dtypes.int64) if weights is None else weights
    return ops.index_add(given.new_zeros(size), x, given, axis=0)
