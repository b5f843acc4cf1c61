"""Other shapes of the same elements: reshape, squeeze, permute, expand, repeat, flip, roll, narrow, select."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from hal import ops, spec
from hal.errors import DTypeError, ShapeError
from hal.functions.arguments import AxesLike, either, index_of, integers, whole_shape
from hal.ops.steps import cut
from hal.spec import Shape, normalize_axes, normalize_axis

if TYPE_CHECKING:
    from hal.tensor import Tensor


def reshape(x: Tensor, /, *sizes: Any, shape: Any = None, copy: bool | None = None) -> Tensor:
    """The same elements in another shape, as a tuple or one by one; one size may be -1. A view where memory allows.

    Raises:
        ShapeError: the shape has another number of elements.

    Source: torch.reshape; Array API, reshape.
    """
    given = integers("reshape", sizes if shape is None else (tuple(shape),))
    out = ops.reshape(x, shape=whole_shape("reshape", given, x.spec.size))
    return out.clone() if copy else out


def view(x: Tensor, /, *sizes: Any) -> Tensor:
    """Like `reshape`. Shares memory wherever the elements lie in memory in that order. Source: torch.Tensor.view."""
    if len(sizes) == 1 and not isinstance(sizes[0], (int, tuple, list)) and not hasattr(sizes[0], "__index__"):
        raise DTypeError(f"view takes sizes, got {sizes[0]!r}; to convert the elements use .to(dtype)")
    return reshape(x, *sizes)


def reshape_as(x: Tensor, other: Tensor, /) -> Tensor:
    """`x` in the shape of `other`. Source: torch.Tensor.reshape_as."""
    return ops.reshape(x, shape=other.shape)


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes from `start_dim` to `end_dim`, both included, as one. Source: torch.flatten."""
    if x.ndim == 0:
        return ops.reshape(x, shape=(1,))
    first, last = normalize_axis("flatten", start_dim, x.ndim), normalize_axis("flatten", end_dim, x.ndim)
    if first > last:
        raise ShapeError(f"flatten needs start_dim before end_dim, got {start_dim} and {end_dim} of {x.ndim} axes")
    return ops.reshape(x, shape=(*x.shape[:first], prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


def ravel(x: Tensor, /) -> Tensor:
    """All elements along one axis. Source: torch.ravel."""
    return ops.reshape(x, shape=(x.spec.size,))


def unflatten(x: Tensor, dim: int, sizes: tuple[int, ...] | list[int]) -> Tensor:
    """One axis as several of these sizes, one of which may be -1. Source: torch.unflatten."""
    i = normalize_axis("unflatten", dim, x.ndim)
    inner = whole_shape("unflatten", integers("unflatten", (sizes,)), x.shape[i])
    if prod(inner) != x.shape[i]:
        raise ShapeError(f"unflatten needs sizes whose product is {x.shape[i]}, that of axis {dim}, got {tuple(sizes)}")
    return ops.reshape(x, shape=(*x.shape[:i], *inner, *x.shape[i + 1 :]))


def squeeze(x: Tensor, /, dim: AxesLike = None, *, axis: AxesLike = None) -> Tensor:
    """Without the axes of size 1: all of them, or those named.

    Raises:
        ShapeError: an axis named by `axis=` has another size (one named by `dim` is then kept, as in torch).

    Source: torch.squeeze; Array API, squeeze.
    """
    named = normalize_axes("squeeze", either("squeeze", dim, axis), x.ndim)
    if axis is not None and any(x.shape[i] != 1 for i in named):
        raise ShapeError(f"squeeze needs axes of size 1, got axis={axis} of shape {x.shape}")
    return ops.reshape(x, shape=tuple(n for i, n in enumerate(x.shape) if n != 1 or i not in named))


def unsqueeze(x: Tensor, /, dim: int) -> Tensor:
    """With a new axis of size 1 at position `dim` of the result. Source: torch.unsqueeze."""
    i = normalize_axis("unsqueeze", index_of("unsqueeze", dim), x.ndim + 1)
    return ops.reshape(x, shape=(*x.shape[:i], 1, *x.shape[i:]))


def expand_dims(x: Tensor, /, *, axis: int | tuple[int, ...] = 0) -> Tensor:
    """With a new axis of size 1 at `axis` of the result (several, for a tuple). Source: Array API, expand_dims."""
    new = (axis,) if isinstance(axis, int) else tuple(axis)
    places = normalize_axes("expand_dims", new, x.ndim + len(new))
    old = iter(x.shape)
    return ops.reshape(x, shape=tuple(1 if i in places else next(old) for i in range(x.ndim + len(new))))


# The order of axes.


def permute(x: Tensor, /, *dims: Any) -> Tensor:
    """The axes in another order: axis i of the result is axis dims[i]. Source: torch.permute."""
    return ops.permute(x, axes=integers("permute", dims))


def permute_dims(x: Tensor, /, axes: tuple[int, ...]) -> Tensor:
    """The axes in another order: axis i of the result is axis axes[i]. Source: Array API, permute_dims."""
    return ops.permute(x, axes=tuple(axes))


def transpose(x: Tensor, /, dim0: int, dim1: int) -> Tensor:
    """With two axes exchanged. Source: torch.transpose."""
    axes = list(range(x.ndim))
    i, j = normalize_axis("transpose", dim0, x.ndim), normalize_axis("transpose", dim1, x.ndim)
    axes[i], axes[j] = j, i
    return ops.permute(x, axes=tuple(axes))


def moveaxis(x: Tensor, /, source: int | tuple[int, ...], destination: int | tuple[int, ...]) -> Tensor:
    """With the axes `source` moved to the positions `destination`, the others in their order. Source: torch.movedim."""
    froms = (source,) if isinstance(source, int) else tuple(source)
    tos = (destination,) if isinstance(destination, int) else tuple(destination)
    if len(froms) != len(tos):
        raise ShapeError(f"moveaxis needs as many destinations as sources, got {source} and {destination}")
    for named in (froms, tos):
        normalize_axes("moveaxis", named, x.ndim)  # each axis once
    placed = {normalize_axis("moveaxis", t, x.ndim): f % x.ndim for f, t in zip(froms, tos, strict=True)}
    rest = iter([i for i in range(x.ndim) if i not in placed.values()])
    return ops.permute(x, axes=tuple(placed[i] if i in placed else next(rest) for i in range(x.ndim)))


def t(x: Tensor, /) -> Tensor:
    """A matrix transposed; vectors and single values as they are. Source: torch.t."""
    if x.ndim > 2:
        raise ShapeError(f"t() transposes matrices, got shape {x.shape}: use .mT or .transpose(dim0, dim1)")
    return ops.permute(x, axes=(1, 0)) if x.ndim == 2 else x


def matrix_transpose(x: Tensor, /) -> Tensor:
    """With the last two axes exchanged. Source: Array API, matrix_transpose; torch.Tensor.mT."""
    if x.ndim < 2:
        raise ShapeError(f"matrix_transpose needs two axes or more, got shape {x.shape}")
    return transpose(x, -2, -1)


# Repetition.


def expand(x: Tensor, /, *sizes: Any) -> Tensor:
    """Repeated along axes of size 1 and new ones in front, without a copy; -1 keeps a size. Source: torch.expand."""
    wanted = integers("expand", sizes)
    extra = len(wanted) - x.ndim
    if extra < 0 or -1 in wanted[:extra]:
        raise ShapeError(f"expand of {x.shape} needs a size for each axis, -1 only for those there are, got {wanted}")
    return ops.broadcast_to(x, shape=tuple(x.shape[i - extra] if n == -1 else n for i, n in enumerate(wanted)))


def expand_as(x: Tensor, other: Tensor, /) -> Tensor:
    """`x` repeated to the shape of `other`. Source: torch.Tensor.expand_as."""
    return ops.broadcast_to(x, shape=other.shape)


def broadcast_to(x: Tensor, /, shape: Any) -> Tensor:
    """`x` repeated to `shape`, without a copy. Source: Array API, broadcast_to."""
    return ops.broadcast_to(x, shape=integers("broadcast_to", (tuple(shape),)))


def tile(x: Tensor, /, *repetitions: Any, dims: Any = None) -> Tensor:
    """The whole of `x` so many times along each axis, aligned at the last. Source: torch.tile; Array API, tile."""
    given = integers("tile", repetitions if dims is None else (tuple(dims),))
    return ops.tile(x, repeats=given)


def repeat_all(x: Tensor, /, *sizes: Any) -> Tensor:
    """The whole of `x` so many times along each axis, with a number for every axis. Source: torch.Tensor.repeat."""
    given = integers("repeat", sizes)
    if len(given) < x.ndim:
        raise ShapeError(f"Tensor.repeat needs a number for each of the {x.ndim} axes of {x.shape}, got {given}")
    return ops.tile(x, repeats=given)


def repeat(x: Tensor, repeats: int | Tensor, /, *, axis: int | None = None, dim: int | None = None) -> Tensor:
    """Each element so many times in a row, along an axis or all flattened. `repeats` may be a vector, one for each.

    Source: Array API, repeat; torch.repeat_interleave.
    """
    along = either("repeat", dim, axis)
    if along is None:
        x, along = ravel(x), 0
    assert isinstance(along, int)
    if isinstance(repeats, int):
        return ops.repeat(x, repeats=repeats, axis=along)
    i = normalize_axis("repeat", along, x.ndim)
    times = [int(n) for n in repeats.tolist()] if repeats.ndim else [int(repeats.item())] * x.shape[i]
    if len(times) == 1:
        return ops.repeat(x, repeats=times[0], axis=i)
    if len(times) != x.shape[i]:
        raise ShapeError(f"repeat needs a number for each of {x.shape[i]} elements of axis {along}, got {len(times)}")
    places = [place for place, n in enumerate(times) for _ in range(n)]
    return ops.take(x, x.new_tensor(places, dtype=repeats.dtype), axis=i)


def repeat_interleave(
    x: Tensor, repeats: int | Tensor, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element so many times in a row.

    Args:
        output_size: how many there are then along `dim`, for those who know; found out here all the same.

    Raises:
        ShapeError: there are more, or fewer.

    Source: torch.repeat_interleave.
    """
    out = repeat(x, repeats, axis=dim)
    if output_size is not None and out.shape[0 if dim is None else dim] != output_size:
        raise ShapeError(f"repeat_interleave got output_size={output_size}, but its result has shape {out.shape}")
    return out


def flip(x: Tensor, /, *axes: Any, dims: AxesLike = None, axis: AxesLike = None) -> Tensor:
    """The elements in reverse order along these axes, or along all. Source: torch.flip; Array API, flip."""
    named = either("flip", integers("flip", axes) if axes else None, dims)
    return ops.flip(x, axis=either("flip", named, axis))


def roll(
    x: Tensor, /, shifts: Any = None, dims: AxesLike = None, *, shift: Any = None, axis: AxesLike = None
) -> Tensor:
    """The elements shifted along these axes, round the end to the front. Source: torch.roll; Array API, roll."""
    by = integers("roll", (shifts if shift is None else shift,))
    along = either("roll", dims, axis)
    return ops.roll(x, shift=by if isinstance(along, tuple) else by[0], axis=along)


# Parts.


def narrow(x: Tensor, /, dim: int, start: int, length: int) -> Tensor:
    """`length` elements of one axis from `start` on, as a view. Source: torch.narrow."""
    i = normalize_axis("narrow", dim, x.ndim)
    n = x.shape[i]
    begin = index_of("narrow", start) + (n if start < 0 else 0)
    if begin < 0 or length < 0 or begin + length > n:
        raise ShapeError(f"narrow needs elements that exist, got {length} from {start} on of axis {dim}, which has {n}")
    return cut(x, i, begin, begin + length)


def select(x: Tensor, /, dim: int, index: int) -> Tensor:
    """The elements at one place of an axis, without that axis, as a view. Source: torch.select."""
    i = normalize_axis("select", dim, x.ndim)
    n, place = x.shape[i], index_of("select", index)
    if not -n <= place < n:
        raise IndexError(f"index {place} is out of range for axis {dim} of size {n}")
    part = cut(x, i, place % n, place % n + 1)
    return ops.reshape(part, shape=(*x.shape[:i], *x.shape[i + 1 :]))


def diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of two axes, as the last axis of the result; `offset` 1 is the one above. Source: torch.diagonal."""
    i, j = normalize_axis("diagonal", dim1, x.ndim), normalize_axis("diagonal", dim2, x.ndim)
    if i == j:
        raise ShapeError(f"diagonal needs two axes, got {dim1} and {dim2} of {x.ndim}")
    rest = [k for k in range(x.ndim) if k not in (i, j)]
    n, m = x.shape[i], x.shape[j]
    flat = ops.reshape(ops.permute(x, axes=(*rest, i, j)), shape=(*(x.shape[k] for k in rest), n * m))
    first, count = (offset, min(n, m - offset)) if offset >= 0 else (-offset * m, min(n + offset, m))
    if count <= 0:
        return cut(flat, len(rest), 0, 0)
    return cut(flat, len(rest), first, first + (count - 1) * (m + 1) + 1, m + 1)


_diagonal_of = diagonal  # the parameter of diag hides it


def diag(x: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, or the matrix of zeros that has the vector `x` as its diagonal. Source: torch.diag."""
    if x.ndim == 2:
        return _diagonal_of(x, diagonal)
    if x.ndim != 1:
        raise ShapeError(f"diag needs a vector or a matrix, got shape {x.shape}")
    n, k = x.shape[0], abs(diagonal)
    apart = ops.pad(ops.reshape(x, shape=(n, 1)), padding=((0, 0), (0, n)))  # n zeros between two of the diagonal
    square = ops.reshape(cut(ops.reshape(apart, shape=(n * (n + 1),)), 0, 0, n * n), shape=(n, n))
    return ops.pad(square, padding=((0, k), (k, 0)) if diagonal > 0 else ((k, 0), (0, k)))


def tril(x: Tensor, /, diagonal: int = 0, *, k: int = 0) -> Tensor:
    """The elements on and below a diagonal of the last two axes, zeros above. Source: torch.tril; Array API, tril."""
    return ops.tril(x, diagonal=diagonal or k)


def triu(x: Tensor, /, diagonal: int = 0, *, k: int = 0) -> Tensor:
    """The elements on and above a diagonal of the last two axes, zeros below. Source: torch.triu; Array API, triu."""
    return ops.triu(x, diagonal=diagonal or k)


def clone(x: Tensor, /) -> Tensor:
    """A copy with memory of its own, through which gradients flow back. Source: torch.clone."""
    return x.clone()


def broadcast_shapes(*shapes: Any) -> Shape:
    """The shape that all of these broadcast to. Source: torch.broadcast_shapes."""
    return spec.broadcast_shapes("broadcast_shapes", *(integers("broadcast_shapes", (s,)) for s in shapes))
