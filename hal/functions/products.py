"""Products of vectors, matrices and batches: matmul's family, tensordot, einsum, outer, cross, trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hal import ops
from hal.errors import ShapeError
from hal.functions.arguments import Scalar, one_axis, tensors_of
from hal.functions.shaping import diagonal, moveaxis
from hal.ops.steps import cut
from hal.spec import normalize_axis

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _need(who: str, *pairs: tuple[Tensor, int]) -> None:
    if any(x.ndim != ndim for x, ndim in pairs):
        wanted = " and ".join(f"{ndim} axes" if ndim > 1 else "1 axis" for _, ndim in pairs)
        got = " and ".join(str(x.shape) for x, _ in pairs)
        raise ShapeError(f"{who} needs tensors of {wanted}, got shapes {got}; matmul takes any number of axes")


def mm(a: Tensor, b: Tensor) -> Tensor:
    """The product of two matrices. Source: torch.mm."""
    _need("mm", (a, 2), (b, 2))
    return ops.matmul(a, b)


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """The products of two batches of matrices, (b, n, m) and (b, m, p). Source: torch.bmm."""
    _need("bmm", (a, 3), (b, 3))
    if a.shape[0] != b.shape[0]:
        raise ShapeError(f"bmm needs batches of one size, got {a.shape[0]} and {b.shape[0]}")
    return ops.matmul(a, b)


def mv(a: Tensor, b: Tensor) -> Tensor:
    """A matrix times a vector. Source: torch.mv."""
    _need("mv", (a, 2), (b, 1))
    return ops.matmul(a, b)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The sum of the products of two vectors. Source: torch.dot."""
    _need("dot", (a, 1), (b, 1))
    return ops.matmul(a, b)


def addmm(x: Tensor, a: Tensor, b: Tensor, *, beta: Scalar = 1, alpha: Scalar = 1) -> Tensor:
    """beta x + alpha (a @ b). Source: torch.addmm."""
    _need("addmm", (a, 2), (b, 2))
    return _plus(x, ops.matmul(a, b), beta, alpha)


def baddbmm(x: Tensor, a: Tensor, b: Tensor, *, beta: Scalar = 1, alpha: Scalar = 1) -> Tensor:
    """beta x + alpha (a @ b), for batches. Source: torch.baddbmm."""
    return _plus(x, bmm(a, b), beta, alpha)


def addmv(x: Tensor, a: Tensor, b: Tensor, *, beta: Scalar = 1, alpha: Scalar = 1) -> Tensor:
    """beta x + alpha (a @ b), for a matrix and a vector. Source: torch.addmv."""
    return _plus(x, mv(a, b), beta, alpha)


def _plus(x: Tensor, product: Tensor, beta: Scalar, alpha: Scalar) -> Tensor:
    product = product if alpha == 1 else ops.mul(product, alpha)
    if beta == 0:  # what x holds then does not matter, NaN included
        return product
    return ops.add(x if beta == 1 else ops.mul(x, beta), product)


def outer(a: Tensor, b: Tensor) -> Tensor:
    """All products of an element of one vector with one of the other, as a matrix. Source: torch.outer."""
    _need("outer", (a, 1), (b, 1))
    return ops.mul(ops.reshape(a, shape=(a.shape[0], 1)), b)


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int | None = None, dim: int | None = None) -> Tensor:
    """The sums of products along an axis, the last by default, conjugating `x1`. Source: Array API, vecdot."""
    return ops.sum(ops.mul(ops.conj(x1), x2), axis=one_axis("vecdot", dim, axis, -1))


def tensordot(a: Tensor, b: Tensor, dims: Any = None, *, axes: Any = None) -> Tensor:
    """The sum of products over pairs of axes: so many last ones of `a` with first ones of `b`, or two lists of axes.

    Source: torch.tensordot; Array API, tensordot.
    """
    chosen = dims if axes is None else axes
    given = 2 if chosen is None else chosen
    if not isinstance(given, int):
        left, right = given
        given = tuple((side,) if isinstance(side, int) else tuple(side) for side in (left, right))
    return ops.tensordot(a, b, axes=given)


def einsum(equation: str, *operands: Any) -> Tensor:
    """The sum of products that the equation says, such as `"bij,bjk->bik"`. Source: torch.einsum; numpy.einsum."""
    one = len(operands) == 1 and isinstance(operands[0], (list, tuple))
    return ops.einsum(*tensors_of("einsum", operands[0] if one else operands), equation=equation)


def cross(a: Tensor, b: Tensor, dim: int | None = None, *, axis: int | None = None) -> Tensor:
    """The vector products along an axis of size 3, the last by default. Source: torch.linalg.cross."""
    along = one_axis("cross", dim, axis, -1)
    i, j = normalize_axis("cross", along, a.ndim), normalize_axis("cross", along, b.ndim)
    if a.shape[i] != 3 or b.shape[j] != 3:
        raise ShapeError(f"cross needs size 3 along axis {along}, got shapes {a.shape} and {b.shape}")

    def turned(x: Tensor, k: int, first: int) -> Tensor:  # the elements first, first + 1, ... round the end
        return ops.concat(cut(x, k, first, 3), cut(x, k, 0, first), axis=k)

    return turned(a, i, 1) * turned(b, j, 2) - turned(a, i, 2) * turned(b, j, 1)


def trace(x: Tensor, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sum of the diagonal of the last two axes. Source: torch.trace; Array API, linalg.trace."""
    if x.ndim < 2:
        raise ShapeError(f"trace needs a matrix, got shape {x.shape}")
    return diagonal(x, offset, -2, -1).sum(-1, dtype=dtype)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The sums of products along the last axes. Source: torch.inner."""
    if a.ndim == 0 or b.ndim == 0:
        return ops.mul(a, b)
    return ops.tensordot(a, moveaxis(b, -1, 0), axes=1)
