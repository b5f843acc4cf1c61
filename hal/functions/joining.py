"""Tensors joined and taken apart: cat and stack in their many names, split, chunk, unbind, meshgrid."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hal import ops
from hal.errors import SettingError, ShapeError
from hal.functions.arguments import index_of, one_axis, tensors_of
from hal.ops.steps import cut
from hal.spec import broadcast_shapes, normalize_axis

if TYPE_CHECKING:
    from hal.tensor import Tensor


def concat(tensors: Any, dim: int | None = None, *, axis: int | None = 0) -> Tensor:
    """The tensors one after another along an axis, in the dtype they promote to; axis=None flattens them first.

    Raises:
        ShapeError: their other sizes differ.

    Source: torch.cat; Array API, concat; numpy.concatenate.
    """
    parts = tensors_of("concat", tensors)
    if dim is None and axis is None:
        parts, axis = [ops.reshape(x, shape=(x.spec.size,)) for x in parts], 0
    return ops.concat(*parts, axis=one_axis("concat", dim, axis if dim is None else None, 0))


def stack(tensors: Any, dim: int | None = None, *, axis: int | None = None) -> Tensor:
    """Tensors of one shape side by side along a new axis. Source: torch.stack; Array API, stack."""
    return ops.stack(*tensors_of("stack", tensors), axis=one_axis("stack", dim, axis, 0))


def _at_least(x: Tensor, ndim: int) -> Tensor:
    if x.ndim >= ndim:
        return x
    if ndim == 3 and x.ndim > 0:
        return ops.reshape(x, shape=(1, *x.shape, 1) if x.ndim == 1 else (*x.shape, 1))
    return ops.reshape(x, shape=(*(1,) * (ndim - x.ndim), *x.shape))


def vstack(tensors: Any) -> Tensor:
    """Rows on top of each other. Source: torch.vstack."""
    return ops.concat(*(_at_least(x, 2) for x in tensors_of("vstack", tensors)), axis=0)


def hstack(tensors: Any) -> Tensor:
    """Side by side along the second axis; vectors one after another. Source: torch.hstack."""
    parts = [_at_least(x, 1) for x in tensors_of("hstack", tensors)]
    return ops.concat(*parts, axis=0 if parts[0].ndim == 1 else 1)


def dstack(tensors: Any) -> Tensor:
    """One behind the other along the third axis. Source: torch.dstack."""
    return ops.concat(*(_at_least(x, 3) for x in tensors_of("dstack", tensors)), axis=2)


def split(x: Tensor, split_size: int | tuple[int, ...] | list[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Parts of this size along an axis, the last one perhaps smaller; or parts of these sizes. Views of `x`.

    Raises:
        ShapeError: sizes whose sum is not that of the axis.

    Source: torch.split.
    """
    i = normalize_axis("split", dim, x.ndim)
    n = x.shape[i]
    if isinstance(split_size, (tuple, list)):
        sizes = [index_of("split", s) for s in split_size]
    else:
        size = index_of("split", split_size)
        if size < 0 or (size == 0 and n):
            raise ShapeError(f"split needs parts of one element or more, got {size} for axis {dim} of size {n}")
        sizes = [min(size, n - start) for start in range(0, n, size or 1)] or [0]
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise ShapeError(f"split needs sizes that add up to {n}, the size of axis {dim}, got {sizes}")
    parts, start = [], 0
    for size in sizes:
        parts.append(cut(x, i, start, start + size))
        start += size
    return tuple(parts)


def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` parts of equal size along an axis, the last one perhaps smaller. Source: torch.chunk."""
    if chunks < 1:
        raise SettingError(f"chunk needs one part or more, got {chunks}")
    i = normalize_axis("chunk", dim, x.ndim)
    return split(x, max(1, -(-x.shape[i] // chunks)), i)


def tensor_split(x: Tensor, indices_or_sections: int | tuple[int, ...] | list[int], dim: int = 0) -> tuple[Tensor, ...]:
    """So many parts, as equal as can be, or parts between these positions. Source: torch.tensor_split."""
    i = normalize_axis("tensor_split", dim, x.ndim)
    n = x.shape[i]
    if isinstance(indices_or_sections, int):
        each, longer = divmod(n, indices_or_sections)
        return split(x, [each + (part < longer) for part in range(indices_or_sections)], i)
    bounds = [0, *(min(b if b >= 0 else max(b + n, 0), n) for b in indices_or_sections), n]
    return tuple(cut(x, i, a, max(a, b)) for a, b in pairwise(bounds))


def unbind(x: Tensor, /, dim: int = 0) -> tuple[Tensor, ...]:
    """The elements along one axis, each without it, as views. Source: torch.unbind."""
    i = normalize_axis("unbind", dim, x.ndim)
    shape = (*x.shape[:i], *x.shape[i + 1 :])
    return tuple(ops.reshape(cut(x, i, j, j + 1), shape=shape) for j in range(x.shape[i]))


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The elements along one axis, each without it, as views. Source: Array API, unstack."""
    return unbind(x, axis)


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Each tensor repeated to the shape that all broadcast to. Source: torch.broadcast_tensors."""
    shape = broadcast_shapes("broadcast_tensors", *(x.shape for x in tensors))
    return tuple(ops.broadcast_to(x, shape=shape) for x in tensors)


def broadcast_arrays(*arrays: Tensor) -> tuple[Tensor, ...]:
    """Each tensor repeated to the shape that all broadcast to. Source: Array API, broadcast_arrays."""
    return broadcast_tensors(*arrays)


def meshgrid(*tensors: Any, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Coordinates of a grid from those along its axes: `xy` puts the first along columns, `ij` along rows.

    Raises:
        ShapeError: a tensor has more than one axis.
        SettingError: another `indexing`.

    Source: Array API, meshgrid (whose default this is; torch.meshgrid's is `ij`).
    """
    if indexing not in ("xy", "ij"):
        raise SettingError(f"meshgrid takes indexing='xy' or 'ij', got {indexing!r}")
    xs = tensors_of("meshgrid", tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else tensors)
    if any(x.ndim > 1 for x in xs):
        raise ShapeError(f"meshgrid needs vectors, got shapes {', '.join(str(x.shape) for x in xs)}")
    places = list(range(len(xs)))
    if indexing == "xy" and len(xs) > 1:
        places[0], places[1] = 1, 0
    sizes = [x.spec.size for x in xs]
    whole = tuple(sizes[places.index(i)] for i in range(len(xs)))
    return tuple(
        ops.broadcast_to(ops.reshape(x, shape=tuple(x.spec.size if i == p else 1 for i in range(len(xs)))), shape=whole)
        for x, p in zip(xs, places, strict=True)
    )
