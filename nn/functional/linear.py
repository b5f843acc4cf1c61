"""Linear and bilinear maps, embeddings and one-hot codes, as functions of torch's signatures."""

from __future__ import annotations

import hal
from hal import ops
from hal.errors import SettingError
from hal.tensor import Tensor
from nn.functional.normalization import p_norm


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias, for x (..., in) and weight (out, in). Source: torch.nn.functional.linear.

    Raises:
        ShapeError: the shapes do not fit.
    """
    return ops.linear(input, weight) if bias is None else ops.linear(input, weight, bias)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x1 @ weight[k] @ x2 + bias for each k, for x1 (..., a), x2 (..., b) and weight (out, a, b).

    Source: torch.nn.functional.bilinear.
    """
    y: Tensor = ops.einsum(input1, weight, input2, equation="...a,kab,...b->...k")
    return y if bias is None else y + bias


def embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """The rows of `weight` (rows, features) that the integers `input` name.

    Args:
        padding_idx: a row that gets no gradient.
        max_norm: rows that are looked up and have a larger norm are scaled down to it, in place.
        norm_type: the p of that norm.
        scale_grad_by_freq: divide a row's gradient by how often it was looked up in this call.
        sparse: accepted for torch's sake: gradients are dense.

    Raises:
        DTypeError: the indices are no integers.
        IndexError: there is no such row.

    Source: torch.nn.functional.embedding.
    """
    if max_norm is not None:
        with hal.no_grad():
            flat = ops.reshape(input, shape=(input.spec.size,))
            norms = p_norm(ops.take(weight.detach(), flat, axis=0), norm_type, 1, keepdims=True)
            scaled = ops.take(weight.detach(), flat, axis=0) * ops.where(
                norms > max_norm, max_norm / (norms + 1e-7), 1.0
            )
            hal.run_into((weight,), ops.put, (weight.detach(), flat, scaled), {"axis": 0})
    out: Tensor = ops.embedding(weight, input, padding_idx=padding_idx)
    if not scale_grad_by_freq:
        return out
    flat = ops.reshape(input, shape=(input.spec.size,))
    often = hal.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device)
    often = ops.index_add(often, flat, ops.cast(ops.equal(flat, flat), dtype=weight.dtype), axis=0)
    share = out / ops.take(often, input, axis=0).unsqueeze(-1)
    return share + (out - share).detach()


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 (..., classes) with a 1 where the class is, and 0 elsewhere. Source: torch.nn.functional.one_hot.

    Args:
        num_classes: how many; with -1 as many as are needed, which asks the device for the largest.

    Raises:
        SettingError: `num_classes` of an empty tensor is not given.
    """
    if num_classes == -1:
        if tensor.spec.size == 0:
            raise SettingError("one_hot of an empty tensor needs num_classes=")
        num_classes = int(ops.max(tensor).item()) + 1
    return ops.one_hot(tensor, classes=num_classes)
