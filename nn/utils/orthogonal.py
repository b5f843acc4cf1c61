"""A weight that stays orthogonal in training: what is trained are the angles, by the exponential or by reflections."""

from __future__ import annotations

import numpy as np

import hal
from hal import ops
from hal.errors import SettingError, ShapeError
from hal.op import Array
from hal.tensor import Tensor
from nn.module import Module
from nn.utils.parametrize import register_parametrization

MAPS = ("matrix_exp", "householder")
HALVINGS = 4  # of the matrix before its series, which with 18 terms is exact up to a norm of 2 ** HALVINGS
INVERSE_FACTORIALS = [1.0]
for _k in range(1, 20):
    INVERSE_FACTORIALS.append(INVERSE_FACTORIALS[-1] / _k)


def _exponential(a: Tensor) -> Tensor:
    """exp of square matrices (..., n, n), by scaling, its Taylor series, and squaring.

    Source: Moler, Van Loan, "Nineteen Dubious Ways to Compute the Exponential of a Matrix", 2003, method 3.
    """
    a = a * 0.5**HALVINGS
    powers = [hal.eye(a.shape[-1], dtype=a.dtype, device=a.device), a]
    for _ in range(3):
        powers.append(powers[-1] @ a)
    fourth, total = powers.pop(), None
    for first in (16, 12, 8, 4, 0):  # the terms in groups of four: a polynomial in the fourth power
        group = sum((p * INVERSE_FACTORIALS[first + i] for i, p in enumerate(powers)), start=0.0 * a)
        total = group if total is None else total @ fourth + group
    assert total is not None
    for _ in range(HALVINGS):
        total = total @ total
    return total


def _reflections(a: Tensor) -> Tensor:
    """The first k columns of the product of the k reflections whose vectors are below the diagonal of a (..., n, k)."""
    n, k = a.shape[-2:]
    unit = hal.eye(n, k, dtype=a.dtype, device=a.device)
    vectors = a + unit
    lengths = ops.sum(vectors * vectors, axis=-2, keepdims=True)
    q = ops.broadcast_to(unit, shape=a.shape)
    for i in reversed(range(k)):
        v = vectors[..., i : i + 1]
        q = q - v @ (v.mT @ q) * (2.0 / lengths[..., i : i + 1])
    return q


class _Orthogonal(Module):
    base: Tensor | None

    def __init__(self, weight: Tensor, by: str, use_trivialization: bool) -> None:
        super().__init__()
        self.shape = weight.shape
        self.orthogonal_map = by
        self.use_trivialization = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.shape[-2] < x.shape[-1]
        x = x.mT if wide else x
        n, k = x.shape[-2:]
        if self.orthogonal_map == "matrix_exp":
            lower = ops.tril(x)
            if n != k:
                lower = ops.pad(lower, padding=(*((0, 0),) * (x.ndim - 1), (0, n - k)))
            q = _exponential(lower - lower.mT)[..., :k]
        else:
            signs = ops.trunc(ops.sum(x * hal.eye(n, k, dtype=x.dtype, device=x.device), axis=-2, keepdims=True))
            q = _reflections(ops.tril(x, diagonal=-1)) * signs.detach()
        if self.use_trivialization and self.base is not None:
            q = self.base @ q
        return q.mT if wide else q

    def right_inverse(self, q: Tensor) -> Tensor:
        if q.shape != self.shape:
            raise ShapeError(f"an orthogonal weight needs a value of shape {self.shape}, got {q.shape}")
        wide = q.shape[-2] < q.shape[-1]
        matrix = np.asarray((q.mT if wide else q).detach().cpu().numpy())
        n, k = matrix.shape[-2:]
        if self.use_trivialization:
            rest = hal.randn(*matrix.shape[:-2], n, n - k, dtype=q.dtype, device=q.device).cpu().numpy()
            self.base = hal.tensor(_nearby(np.concatenate((matrix, rest), -1)), device=q.device)
            return hal.eye(*q.shape[-2:], dtype=q.dtype, device=q.device).expand(q.shape) * -1.0  # of which q is 1
        if self.orthogonal_map != "householder":
            raise NotImplementedError(
                "the exponential cannot be solved for its argument: to assign a value, make the weight orthogonal with "
                "use_trivialization=True or orthogonal_map='householder'"
            )
        vectors, factors = np.linalg.qr(matrix, mode="raw")
        found = np.array(np.swapaxes(vectors, -1, -2), matrix.dtype)
        diagonal = np.einsum("...ii->...i", found[..., :k, :])
        diagonal[...] = np.sign(diagonal) * np.where(factors == 0, -1, 1)
        solved = hal.tensor(found, device=q.device)
        return solved.mT if wide else solved


def _nearby(matrix: Array) -> Array:
    """The orthogonal factor of square matrices, with the signs that leave orthogonal ones as they are."""
    q, r = np.linalg.qr(matrix)
    signs = np.sign(np.einsum("...ii->...i", r))
    return np.asarray(q * signs[..., None, :], matrix.dtype)


def orthogonal(
    module: Module, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> Module:
    """Keep a weight (..., n, k) orthogonal: its columns, or its rows if there are fewer, are orthonormal.

    Args:
        orthogonal_map: `matrix_exp`, the exponential of a skew-symmetric matrix, or `householder`, a product of
            reflections; the first for square weights, the second for others, if not given.
        use_trivialization: multiply with a matrix that is chosen when a value is assigned: training starts there.

    Raises:
        SettingError: another map, or the module has no such weight.
        ShapeError: the weight has fewer than two axes.

    Source: torch.nn.utils.parametrizations.orthogonal, without its map `cayley`; Lezcano-Casado, "Trivializations for
    Gradient-Based Optimization on Manifolds", 2019.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise SettingError(f"{type(module).__name__} has no parameter or buffer {name!r} to parametrise")
    if weight.ndim < 2:
        raise ShapeError(f"orthogonal needs a weight with two axes or more, got {name} of shape {weight.shape}")
    by = orthogonal_map or ("matrix_exp" if weight.shape[-2] == weight.shape[-1] else "householder")
    if by not in MAPS:
        raise SettingError(f"orthogonal needs orthogonal_map= one of {', '.join(MAPS)}, got {by!r}")
    return register_parametrization(module, name, _Orthogonal(weight, by, use_trivialization), unsafe=True)
