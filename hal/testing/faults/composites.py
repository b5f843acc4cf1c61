"""Faults in fast kernels for composite ops: convolutions, pooling, norms, losses, attention, optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hal import ops
from hal.op import Array
from hal.testing.faults.fault import miscomputes
from hal.testing.inputs import widened


def called(op: str, *inputs: Array, **settings: Any) -> Any:
    """What the reference of an op says of other inputs or settings."""
    return ops.TABLE[op].reference(*(widened(x) for x in inputs), **settings)


def instead(op: str, **others: Any) -> Callable[..., Any]:
    """The op with other settings than those that it was given."""
    return lambda y, *inputs, **settings: called(op, *inputs, **{**settings, **others})


def _undilated(y: Array, x: Array, weight: Array, *bias: Array, **settings: Any) -> Array:
    full = called("conv2d", x, weight, *bias, **{**settings, "dilation": (1, 1)})
    return np.asarray(full)[:, :, : y.shape[2], : y.shape[3]]


def _padded_on_one_side(y: Array, x: Array, weight: Array, *bias: Array, **settings: Any) -> Array:
    sides = [(0, 0), (0, 0), *((2 * p, 0) for p in settings["padding"])]
    return np.asarray(called("conv2d", np.pad(x, sides), weight, *bias, **{**settings, "padding": (0, 0)}))


def _padded_with_zeros(y: Array, x: Array, **settings: Any) -> Array:
    sides = [(0, 0)] * (x.ndim - 2) + [(p, p) for p in settings["padding"]]
    pooled = np.asarray(called("max_pool2d", np.pad(x, sides), **{**settings, "padding": (0, 0)}))
    return pooled if pooled.shape == y.shape else y


def _counts_everything(y: Array, logits: Array, target: Array, *weight: Array, **settings: Any) -> Array:
    if settings["reduction"] != "mean" or target.dtype.kind not in "iu" or weight:
        return y
    return y * np.mean(target != settings["ignore_index"]) if target.size else y


def _looks_ahead(y: Array, q: Array, k: Array, v: Array, *mask: Array, **settings: Any) -> Array:
    if not settings["causal"] or mask:
        return y
    seen = np.tril(np.ones((q.shape[-2], k.shape[-2]), bool), 1)
    return np.asarray(called("attention", q, k, v, seen, **{**settings, "causal": False}))


def _unshifted_softmax(y: Array, x: Array, *, axis: int) -> Array:
    e = np.exp(x.astype(y.dtype))
    return e / np.sum(e, axis=axis, keepdims=True)


def _uncorrected(
    y: Any, param: Array, grad: Array, m: Array, v: Array, lr: Array, b1: Array, b2: Array, **s: Any
) -> Any:
    return called("adam_step", param, grad, m, v, lr, np.ones_like(b1), np.ones_like(b2), **s)


def _without_mean(y: Array, x: Array, *parameters: Array, dims: int, eps: float) -> Array:
    return np.asarray(called("rms_norm", x, *parameters[:1], dims=dims, eps=eps))


def _gates_in_another_order(y: Any, x: Array, h: Array, c: Array, *weights: Array) -> Any:
    swapped = [np.concatenate([np.split(w, 4)[i] for i in (0, 2, 1, 3)]) for w in weights]
    return called("lstm_cell", x, h, c, *swapped)


FAULTS = (
    miscomputes("conv2d", "dilation-ignored", "A convolution takes neighbouring elements, whatever the dilation.",
                _undilated),
    miscomputes("conv2d", "padding-on-one-side", "All padding of a convolution is put before the data.",
                _padded_on_one_side),
    miscomputes("conv2d_weight_gradient", "weight-gradient-doubled", "The gradient of a convolution's weight is twice "
                "what it should be.", lambda y, *inputs, **s: 2 * y),
    miscomputes("max_pool2d", "pooling-over-zeros", "The padding of a maximum is zero, where it should never win.",
                _padded_with_zeros),
    miscomputes("avg_pool2d", "padding-not-counted", "A mean leaves out padding that should count as zeros.",
                instead("avg_pool2d", count_include_pad=False)),
    miscomputes("batch_norm", "eps-forgotten", "Batch normalisation divides by the variance alone.",
                instead("batch_norm", eps=0.0)),
    miscomputes("layer_norm", "mean-not-subtracted", "Layer normalisation divides and does not centre.",
                _without_mean),
    miscomputes("softmax", "softmax-overflow", "softmax does not subtract the largest number first: exp overflows.",
                _unshifted_softmax),
    miscomputes("std", "variance-uncorrected", "A standard deviation divides by n, where n - 1 is asked for.",
                instead("std", correction=0)),
    miscomputes("gelu", "approximate-gelu", "gelu is always the approximation by tanh.",
                instead("gelu", approximate="tanh")),
    miscomputes("cross_entropy", "ignored-classes-counted", "A mean loss divides by targets that it should ignore.",
                _counts_everything),
    miscomputes("attention", "mask-off-by-one", "A query attends to the key after it, which it should not see.",
                _looks_ahead),
    miscomputes("lstm_cell", "gates-exchanged", "Two gates of an LSTM have changed places.",
                _gates_in_another_order),
    miscomputes("adam_step", "bias-correction-forgotten", "Adam does not correct its moments for their start at zero.",
                _uncorrected),
    miscomputes("dropout", "dropout-unscaled", "What dropout leaves is not scaled up.",
                lambda y, x, state, *, p: y * (1 - p)),
    miscomputes("embedding", "rows-from-one", "An embedding counts its rows from one.",
                lambda y, weight, indices, **s: weight[np.asarray(indices) - 1]),
)  # fmt: skip
