"""Elementwise losses in NumPy: each element's cost and their sum, block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hal import ops
from hal.ops.losses import LEAST_LOG
from hal.plugin import Array, Op
from hal_cpu.blocks import BLOCK
from hal_cpu.parallel import scratch
from hal_cpu.table import kernels

Formula = Callable[..., None]


def _flat(x: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """`x` broadcast to `shape`, in one line; a copy only where it must be."""
    if x.shape != shape:
        x = np.broadcast_to(x, shape)
    return np.ascontiguousarray(x, dtype).reshape(-1)


def _loss(op: Op) -> Callable[[Formula], Formula]:
    """Make the kernel of a loss of `formula(cost, spare, x, target, **settings)`, which puts what each element costs
    into `cost`. Whatever follows x and target in the call are weights, unless the formula takes them."""

    def decorate(formula: Formula) -> Formula:
        taken = 4 if op is ops.bce_with_logits else 2

        @kernels.register(op)
        def kernel(*inputs: Array, reduction: str, **settings: Any) -> Array:
            shape = inputs[0].shape
            if any(x.shape != shape for x in inputs):
                shape = np.broadcast_shapes(*(x.shape for x in inputs))
            dtype = inputs[0].dtype
            wide = np.dtype(np.float32) if dtype.itemsize == 2 else dtype
            given = [_flat(x, shape, wide) for x in inputs]
            size = given[0].size
            spare = scratch("loss", (2, min(size, BLOCK)), wide)
            result = np.empty(size, dtype) if reduction == "none" else None
            total = 0.0
            for start in range(0, size, BLOCK):
                pieces = [x[start : start + BLOCK] for x in given]
                n = pieces[0].size
                cost = spare[0, :n]
                formula(cost, spare[1, :n], *pieces[:taken], **settings)
                for weight in pieces[taken:]:
                    np.multiply(cost, weight, out=cost)
                if result is not None:
                    np.copyto(result[start : start + n], cost, casting="unsafe")
                else:
                    total += float(np.add.reduce(cost))
            if result is not None:
                return result.reshape(shape)
            count = {"sum": 1, "mean": size, "batchmean": shape[0] if shape else 1}[reduction]
            return np.asarray(total / count if count else np.nan, dtype)

        return formula

    return decorate


@_loss(ops.mse_loss)
def _mse(cost: Array, spare: Array, x: Array, target: Array) -> None:
    np.subtract(x, target, out=cost)
    np.multiply(cost, cost, out=cost)


@_loss(ops.l1_loss)
def _l1(cost: Array, spare: Array, x: Array, target: Array) -> None:
    np.subtract(x, target, out=cost)
    np.abs(cost, out=cost)


@_loss(ops.huber_loss)
def _huber(cost: Array, spare: Array, x: Array, target: Array, *, delta: float) -> None:
    """c (d - c / 2) for d = |x - target| and c = min(d, delta) is both branches in one."""
    _l1(cost, spare, x, target)
    np.minimum(cost, delta, out=spare)
    np.multiply(cost, spare, out=cost)
    np.multiply(spare, spare, out=spare)
    np.multiply(spare, 0.5, out=spare)
    np.subtract(cost, spare, out=cost)


@_loss(ops.smooth_l1_loss)
def _smooth_l1(cost: Array, spare: Array, x: Array, target: Array, *, beta: float) -> None:
    if beta == 0:
        _l1(cost, spare, x, target)
        return
    _huber(cost, spare, x, target, delta=beta)
    np.divide(cost, beta, out=cost)


@_loss(ops.binary_cross_entropy)
def _binary_cross_entropy(cost: Array, spare: Array, x: Array, target: Array) -> None:
    np.negative(x, out=cost)
    np.log1p(cost, out=cost)
    np.maximum(cost, LEAST_LOG, out=cost)
    np.subtract(1, target, out=spare)
    np.multiply(cost, spare, out=cost)
    np.log(x, out=spare)
    np.maximum(spare, LEAST_LOG, out=spare)
    np.multiply(spare, target, out=spare)
    np.add(cost, spare, out=cost)
    np.negative(cost, out=cost)


@_loss(ops.bce_with_logits)
def _bce_with_logits(
    cost: Array, spare: Array, x: Array, target: Array, weight: Array | None = None, positive: Array | None = None
) -> None:
    """max(x, 0) - target x + log(1 + exp(-|x|)), large terms first, which cancel exactly where they should."""
    if positive is None:
        np.maximum(x, 0, out=cost)
        np.multiply(x, target, out=spare)
        np.subtract(cost, spare, out=cost)
        _log_of_one_and_exp(x, spare)
    else:  # (1 - target) x + factor (max(-x, 0) + log(1 + exp(-|x|))), factor = 1 + (positive - 1) target
        factor = (positive - 1) * target + 1
        np.negative(x, out=cost)
        np.maximum(cost, 0, out=cost)
        np.multiply(cost, factor, out=cost)
        np.subtract(1, target, out=spare)
        np.multiply(spare, x, out=spare)
        np.add(cost, spare, out=cost)
        _log_of_one_and_exp(x, spare)
        np.multiply(spare, factor, out=spare)
    np.add(cost, spare, out=cost)
    if weight is not None:
        np.multiply(cost, weight, out=cost)


def _log_of_one_and_exp(x: Array, out: Array) -> None:
    """log(1 + exp(-|x|))."""
    np.abs(x, out=out)
    np.negative(out, out=out)
    np.exp(out, out=out)
    np.log1p(out, out=out)


@_loss(ops.kl_div)
def _kl_div(cost: Array, spare: Array, x: Array, target: Array, *, log_target: bool) -> None:
    if log_target:
        np.subtract(target, x, out=cost)
        np.exp(target, out=spare)
        np.multiply(cost, spare, out=cost)
        return
    np.equal(target, 0, out=spare)  # a probability of 0 costs nothing: its logarithm is taken of 1
    np.add(target, spare, out=spare)
    np.log(spare, out=spare)
    np.subtract(spare, x, out=cost)
    np.multiply(cost, target, out=cost)
