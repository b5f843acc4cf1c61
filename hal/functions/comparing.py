"""Comparisons of whole tensors: isclose, allclose, and whether two tensors are equal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hal import dtypes, ops

if TYPE_CHECKING:
    from hal.tensor import Tensor


def isclose(a: Tensor, b: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Where |a - b| <= atol + rtol |b|, or both are the same infinity, or (equal_nan) both are NaN.

    Source: torch.isclose.
    """
    close = ops.equal(a, b)
    if a.dtype.is_inexact or b.dtype.is_inexact:
        near = ops.less_equal(ops.abs(ops.sub(a, b)), ops.add(ops.mul(ops.abs(b), rtol), atol))
        close = ops.logical_or(close, ops.logical_and(near, ops.isfinite(b)))
        if equal_nan:
            close = ops.logical_or(close, ops.logical_and(ops.isnan(a), ops.isnan(b)))
    elif rtol or atol:
        wide = [ops.cast(x, dtype=dtypes.float64) for x in (a, b)]
        near = ops.less_equal(ops.abs(wide[0] - wide[1]), ops.abs(wide[1]) * rtol + atol)
        close = ops.logical_or(close, near)
    return close


def allclose(a: Tensor, b: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether all elements are close, as `isclose` has it. Source: torch.allclose."""
    return bool(ops.all(isclose(a, b, rtol, atol, equal_nan)).item())


def same(a: Tensor, b: Tensor) -> bool:
    """Whether shape and all elements are equal. Source: torch.equal (`hal.equal` compares element by element)."""
    return a.shape == b.shape and bool(ops.all(ops.equal(a, b)).item())
