"""Embeddings of bags: the rows that a set of indices names, reduced to one, without one bag being like another."""

from __future__ import annotations

import numpy as np

import hal
from hal import ops
from hal.errors import SettingError, ShapeError
from hal.op import Array
from hal.tensor import Tensor
from nn.functional.linear import embedding

MODES = ("sum", "mean", "max")


def embedding_bag(
    input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: Tensor | None = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """The sum, mean or maximum of the rows of `weight` (rows, D) that each bag names: (bags, D); zeros for none.

    Args:
        input: indices (bags, size), or (N) with the bags behind each other.
        offsets: where each bag begins, for an input with one axis; read on the host.
        max_norm, norm_type: rows that are looked up and have a larger norm are scaled down to it, in place.
        scale_grad_by_freq: not offered.
        mode: `sum`, `mean` or `max`.
        sparse: accepted for torch's sake: gradients are dense.
        per_sample_weights: one for each index, by which its row is multiplied (`sum` only).
        include_last_offset: whether the last offset is the end of the last bag.
        padding_idx: a row that counts as if it were not in the bag.

    Raises:
        SettingError: a mode that there is not, or weights for another than `sum`.
        ShapeError: offsets or weights that do not belong to the input.

    Source: torch.nn.functional.embedding_bag.
    """
    if mode not in MODES:
        raise SettingError(f"embedding_bag needs mode= one of {', '.join(MODES)}, got {mode!r}")
    if scale_grad_by_freq:
        raise SettingError("embedding_bag takes scale_grad_by_freq=False only: divide the gradient yourself")
    if per_sample_weights is not None and mode != "sum":
        raise SettingError(f"embedding_bag takes per_sample_weights= for mode='sum', not for {mode!r}")
    if per_sample_weights is not None and per_sample_weights.shape != input.shape:
        raise ShapeError(
            f"embedding_bag needs per_sample_weights of the indices' shape {input.shape}, "
            f"got {per_sample_weights.shape}"
        )
    inside = hal.ones(*input.shape, dtype=hal.bool, device=input.device)
    if input.ndim == 1:
        if offsets is None:
            raise ShapeError("embedding_bag needs offsets= for indices with one axis: where each bag begins")
        place, seen = _bags(input.shape[0], offsets, include_last_offset)
        inside = hal.tensor(seen, device=input.device)
        where = hal.tensor(place, device=input.device)
        input = ops.take(input, where, axis=0)
        if per_sample_weights is not None:
            per_sample_weights = ops.take(per_sample_weights, where, axis=0)
    elif offsets is not None or input.ndim != 2:
        raise ShapeError(f"embedding_bag needs indices (bags, size) without offsets=, or (N) with, got {input.shape}")
    if padding_idx is not None:
        inside = ops.logical_and(inside, ops.not_equal(input, padding_idx % weight.shape[0]))
    rows = embedding(input, weight, None, max_norm, norm_type)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    return _reduced(rows, inside, mode)


def _bags(count: int, offsets: Tensor, include_last: bool) -> tuple[Array, Array]:
    """For each bag the places of its indices, filled up with zeros, and which of them count."""
    starts = np.asarray(offsets.cpu().numpy(), np.int64)
    if starts.ndim != 1 or (len(starts) and (starts[0] != 0 or starts[-1] > count or (np.diff(starts) < 0).any())):
        raise ShapeError(
            f"embedding_bag needs offsets that begin with 0, do not fall and end within {count}, got {starts.tolist()}"
        )
    ends = starts[1:] if include_last else np.append(starts[1:], count)
    starts = starts[: len(ends)]
    sizes = ends - starts
    near = np.arange(max(sizes.max(initial=0), 1))
    seen = near < sizes[:, None]
    return np.where(seen, starts[:, None] + near, 0), seen


def _reduced(rows: Tensor, inside: Tensor, mode: str) -> Tensor:
    mask = inside.unsqueeze(-1)
    some = ops.any(mask, axis=1)
    if mode == "max":
        best = ops.argmax(ops.where(mask, rows.detach(), -float("inf")), axis=1, keepdims=True)
        return ops.where(some, ops.gather(rows, best, axis=1).squeeze(1), 0.0)
    total = ops.sum(ops.where(mask, rows, 0.0), axis=1)
    if mode == "sum":
        return total
    return total / ops.maximum(ops.sum(ops.cast(mask, dtype=rows.dtype), axis=1), 1.0)
