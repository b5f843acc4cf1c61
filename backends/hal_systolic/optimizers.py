"""Optimizer steps, block by block: so many steps of arithmetic on one block of each array while it is in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_systolic.table import kernels

BLOCK = 1 << 14  # elements


def _flat(*arrays: Array) -> list[Array]:
    """Each as one row, shared where its memory allows."""
    return [x.reshape(-1) for x in arrays]


def _targets(out: Any, *like: Array) -> tuple[Array, ...]:
    """Contiguous arrays for the results, one like each of `like`."""
    given = out if isinstance(out, tuple) else (out,) * len(like)
    return tuple(
        o if o is not None and o.flags.c_contiguous else np.empty(x.shape, x.dtype)
        for o, x in zip(given, like, strict=True)
    )


def _delivered(results: tuple[Array, ...], out: Any) -> tuple[Array, ...]:
    """The results, or the given arrays, to which they are copied if they were computed elsewhere."""
    if out is None:
        return results
    targets: tuple[Array, ...] = out if isinstance(out, tuple) else (out,)
    for target, result in zip(targets, results, strict=True):
        if target is not result:
            np.copyto(target, result)
    return targets


def _directed(param: Array, grad: Array, weight_decay: float, maximize: bool) -> Array:
    """The gradient of what is to be made small: with its sign, and the weights' own part. Maybe `grad` itself."""
    if maximize:
        grad = -grad
    return grad + param * np.float32(weight_decay) if weight_decay else grad


@kernels.register(ops.sgd_step, out=True)
def sgd_step(
    param: Array, grad: Array, lr: Array, *, weight_decay: float, maximize: bool, out: Array | None = None
) -> Array:
    """param - lr * grad."""
    (new,) = _targets(out, param)
    p, g, n = _flat(param, grad, new)
    for start in range(0, p.size, BLOCK):
        at = slice(start, start + BLOCK)
        np.subtract(p[at], _directed(p[at], g[at], weight_decay, maximize) * lr, out=n[at])
    return _delivered((new,), out)[0]


@kernels.register(ops.sgd_momentum_step, out=True)
def sgd_momentum_step(
    param: Array, grad: Array, buf: Array, lr: Array, *,
    momentum: float, dampening: float, weight_decay: float, nesterov: bool, maximize: bool, out: Any = None,
) -> Any:  # fmt: skip
    """The new (param, buf): buf = momentum * buf + grad, param - lr * buf."""
    new, state = _targets(out, param, buf)
    p, g, b, n, s = _flat(param, grad, buf, new, state)
    rate = np.float32(momentum)
    for start in range(0, p.size, BLOCK):
        at = slice(start, start + BLOCK)
        step = _directed(p[at], g[at], weight_decay, maximize)
        np.multiply(b[at], rate, out=s[at])
        s[at] += step * np.float32(1 - dampening) if dampening else step
        np.subtract(p[at], (step + s[at] * rate if nesterov else s[at]) * lr, out=n[at])
    return _delivered((new, state), out)


@kernels.register(ops.adam_step, out=True)
def adam_step(
    param: Array, grad: Array, m: Array, v: Array, lr: Array, bias1: Array, bias2: Array, *,
    beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool, maximize: bool, out: Any = None,
) -> Any:  # fmt: skip
    """The new (param, m, v): averages of the gradient and its square, and a step of their ratio."""
    new, first, second = _targets(out, param, m, v)
    p, g, old1, old2, n, m1, m2 = _flat(param, grad, m, v, new, first, second)
    share1, share2, tiny = np.float32(1 - beta1), np.float32(1 - beta2), np.float32(eps)
    scratch = np.empty(min(BLOCK, p.size), np.float32)
    for start in range(0, p.size, BLOCK):
        at = slice(start, start + BLOCK)
        t = scratch[: p[at].size]
        step = _directed(p[at], g[at], 0.0 if decoupled else weight_decay, maximize)
        np.subtract(step, old1[at], out=t)
        np.multiply(t, share1, out=t)
        np.add(old1[at], t, out=m1[at])
        np.square(step, out=t)
        np.subtract(t, old2[at], out=t)
        np.multiply(t, share2, out=t)
        np.add(old2[at], t, out=m2[at])
        np.divide(m2[at], bias2, out=t)
        np.sqrt(t, out=t)
        np.add(t, tiny, out=t)
        np.divide(m1[at], t, out=t)
        np.multiply(t, np.divide(lr, bias1), out=t)
        if decoupled and weight_decay:
            np.subtract(p[at] * (1 - lr * np.float32(weight_decay)), t, out=n[at])
        else:
            np.subtract(p[at], t, out=n[at])
    return _delivered((new, first, second), out)
