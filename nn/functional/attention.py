"""Attention as functions: scaled dot products, and several heads of them."""

from __future__ import annotations

from math import sqrt

import hal
from hal import ops
from hal.tensor import Tensor
from nn.functional.dropout import dropout


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None,
) -> Tensor:  # fmt: skip
    """softmax(q @ k.T * scale) @ v, for q (..., n, d), k (..., m, d) and v (..., m, e).

    Args:
        attn_mask: broadcasts to (..., n, m); bools say which keys a query may attend to, floats are added to scores.
        dropout_p: probability with which a weight is dropped.
        is_causal: query i attends to keys 0 to i.
        scale: 1 / sqrt(d) if not given.

    Raises:
        ShapeError, DTypeError: the inputs do not fit.

    Source: torch.nn.functional.scaled_dot_product_attention.
    """
    if dropout_p == 0:
        mask = () if attn_mask is None else (attn_mask,)
        return ops.attention(query, key, value, *mask, causal=is_causal, scale=scale)
    weights = attention_weights(query, key, attn_mask, is_causal, scale)
    return dropout(weights, dropout_p) @ value


def attention_weights(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, scale: float | None) -> Tensor:
    """How much each query attends to each key: (..., n, m); zeros where nothing may be attended to."""
    scores = query @ key.mT * (1 / sqrt(query.shape[-1]) if scale is None else scale)
    n, m = scores.shape[-2:]
    if causal:
        scores = hal.where(hal.ones(n, m, dtype=hal.bool, device=scores.device).tril(), scores, -float("inf"))
    if mask is not None:
        scores = hal.where(mask, scores, -float("inf")) if mask.dtype is hal.bool else scores + mask
    weights: Tensor = ops.softmax(scores, axis=-1)
    return hal.where(weights == weights, weights, 0.0)
