"""How alike or how far apart vectors are, as functions."""

from __future__ import annotations

from hal import ops
from hal.errors import ShapeError
from hal.tensor import Tensor
from nn.functional.normalization import p_norm


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along `dim`; the other axes broadcast.

    Args:
        eps: the least that each norm counts as, so that zeros have no direction instead of NaN.

    Source: torch.nn.functional.cosine_similarity.
    """
    shared = x1 * x2
    axis = dim % shared.ndim - shared.ndim
    whole = [ops.broadcast_to(x, shape=shared.shape) if x.shape[axis:] != shared.shape[axis:] else x for x in (x1, x2)]
    lengths = [ops.maximum(p_norm(x, 2.0, axis), eps) for x in whole]
    return ops.sum(shared, axis=axis) / (lengths[0] * lengths[1])


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last axis: (..., D), (..., D) to (...).

    Args:
        eps: keeps the gradient of equal vectors finite.

    Source: torch.nn.functional.pairwise_distance.
    """
    return p_norm(x1 - x2 + eps, p, -1, keepdims=keepdim)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The distance of each row of (N, D) from each later one: N (N - 1) / 2 of them, by rows.

    Raises:
        ShapeError: not a matrix.

    Source: torch.nn.functional.pdist.
    """
    if input.ndim != 2:
        raise ShapeError(f"pdist needs a matrix (rows, features), got shape {input.shape}")
    n = input.shape[0]
    if n < 2:
        return ops.sum(input, axis=1)[:0]
    return ops.concat(*(p_norm(input[i : i + 1] - input[i + 1 :], p, -1) for i in range(n - 1)), axis=0)
