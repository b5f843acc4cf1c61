"""Optimizer steps in NumPy: all of a formula on one block before the next, in place where the results may go there.

A result may be written to the memory of the input that it replaces: in each block an input is read for the last time
before, or by the very step in which, the result that takes its place is written.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cpu.parallel import in_parts, scratch
from hal_cpu.table import kernels

BLOCK = 32_768  # elements: six such arrays fit a second-level cache; with half of that, a step takes a sixth longer
Pieces = list[Array]


def _lines(arrays: list[Array]) -> list[Array] | None:
    """The arrays as lines in the order of their common memory layout, without a copy; None if they have none."""
    if all(x.flags.c_contiguous for x in arrays):
        return [x.reshape(-1) for x in arrays]
    if all(x.flags.f_contiguous for x in arrays):
        return [x.T.reshape(-1) for x in arrays]
    return None


def _run(
    formula: Callable[[Pieces, Pieces, Pieces], None], passes: int, inputs: list[Array], outs: tuple[Array, ...] | None
) -> tuple[Array, ...]:
    """Run formula(inputs, results, spare) on every block; `spare` are two more pieces. The results are as many as the
    inputs without the gradient, which is the second. Half precision is computed in float32 and rounded once."""
    param = inputs[0]
    results = outs if outs is not None else tuple(np.empty_like(param) for _ in inputs[1:])
    lines = _lines([*inputs, *results])
    if lines is None:
        made = _run(formula, passes, [np.ascontiguousarray(x) for x in inputs], None)
        for result, value in zip(results, made, strict=True):
            np.copyto(result, value)
        return results
    given, written = lines[: len(inputs)], lines[len(inputs) :]
    half = param.dtype.itemsize == 2
    wide = np.dtype(np.float32) if half else param.dtype

    def part(start: int, stop: int) -> None:
        spare = scratch("optimizer", (2 + half * len(lines), min(BLOCK, stop - start)), wide)
        for i in range(start, stop, BLOCK):
            j = min(i + BLOCK, stop)
            pieces, targets = [x[i:j] for x in given], [y[i:j] for y in written]
            rows = list(spare[:, : j - i])
            if not half:
                formula(pieces, targets, rows)
                continue
            single = rows[2:]
            for row, piece in zip(single, pieces, strict=False):
                np.copyto(row, piece)
            formula(single[: len(pieces)], single[len(pieces) :], rows)
            for row, target in zip(single[len(pieces) :], targets, strict=True):
                np.copyto(target, row, casting="unsafe")

    in_parts(part, param.size, passes * param.size)
    return results


def _directed(param: Array, grad: Array, out: Array, spare: Array, weight_decay: float, maximize: bool) -> Array:
    """The gradient of what is to be made small, in `out` if it is not the given one."""
    if maximize:
        grad = np.negative(grad, out=out)
    if weight_decay:
        np.multiply(param, weight_decay, out=spare)
        grad = np.add(grad, spare, out=out)
    return grad


def _mix(old: Array, new: Array, share: float, out: Array, spare: Array) -> None:
    """old + (new - old) * share; `out` may be `old`."""
    np.subtract(new, old, out=spare)
    np.multiply(spare, share, out=spare)
    np.add(old, spare, out=out)


def _add_square(total: Array, x: Array, keep: float, share: float, out: Array, spare: Array) -> None:
    """total * keep + x * x * share; `out` may be `total`."""
    np.multiply(x, x, out=spare)
    np.multiply(spare, share, out=spare)
    np.multiply(total, keep, out=out)
    np.add(out, spare, out=out)


@kernels.register(ops.sgd_step, out=True)
def sgd_step(
    param: Array, grad: Array, lr: Array, *, weight_decay: float, maximize: bool, out: Array | None = None
) -> Array:
    rate = float(lr)

    def formula(inputs: Pieces, results: Pieces, spare: Pieces) -> None:
        p, g = inputs
        g = _directed(p, g, spare[0], spare[1], weight_decay, maximize)
        np.multiply(g, rate, out=spare[1])
        np.subtract(p, spare[1], out=results[0])

    return _run(formula, 3, [param, grad], None if out is None else (out,))[0]


@kernels.register(ops.sgd_momentum_step, out=True)
def sgd_momentum_step(
    param: Array, grad: Array, buf: Array, lr: Array, *, momentum: float, dampening: float, weight_decay: float,
    nesterov: bool, maximize: bool, out: tuple[Array, ...] | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    rate = float(lr)

    def formula(inputs: Pieces, results: Pieces, spare: Pieces) -> None:
        p, g, b = inputs
        new_p, new_b = results
        g = _directed(p, g, spare[0], spare[1], weight_decay, maximize)
        np.multiply(b, momentum, out=new_b)
        np.add(new_b, np.multiply(g, 1 - dampening, out=spare[1]) if dampening else g, out=new_b)
        if nesterov:
            np.multiply(new_b, momentum, out=spare[1])
            np.add(spare[1], g, out=spare[1])
            np.multiply(spare[1], rate, out=spare[1])
        else:
            np.multiply(new_b, rate, out=spare[1])
        np.subtract(p, spare[1], out=new_p)

    return _run(formula, 5, [param, grad, buf], out)


@kernels.register(ops.adam_step, out=True)
def adam_step(
    param: Array, grad: Array, m: Array, v: Array, lr: Array, bias1: Array, bias2: Array, *, beta1: float, beta2: float,
    eps: float, weight_decay: float, decoupled: bool, maximize: bool, out: tuple[Array, ...] | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    rate, root = float(lr), sqrt(float(bias2))
    # m / (sqrt(v) / root + eps) * rate / bias1, with one pass less:
    step, least = rate * root / float(bias1), eps * root

    def formula(inputs: Pieces, results: Pieces, spare: Pieces) -> None:
        p, g, m, v = inputs
        new_p, new_m, new_v = results
        g = _directed(p, g, spare[0], spare[1], 0.0 if decoupled else weight_decay, maximize)
        _mix(m, g, 1 - beta1, new_m, spare[1])
        _add_square(v, g, beta2, 1 - beta2, new_v, spare[1])
        update = np.sqrt(new_v, out=spare[1])
        np.add(update, least, out=update)
        np.divide(new_m, update, out=update)
        np.multiply(update, step, out=update)
        if decoupled and weight_decay:
            p = np.multiply(p, 1 - rate * weight_decay, out=new_p)
        np.subtract(p, update, out=new_p)

    return _run(formula, 16, [param, grad, m, v], out)


@kernels.register(ops.rmsprop_step, out=True)
def rmsprop_step(
    param: Array, grad: Array, square: Array, lr: Array, *state: Array, alpha: float, eps: float, weight_decay: float,
    momentum: float, centered: bool, maximize: bool, out: tuple[Array, ...] | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    rate = float(lr)

    def formula(inputs: Pieces, results: Pieces, spare: Pieces) -> None:
        p, g, square, *rest = inputs
        g = _directed(p, g, spare[0], spare[1], weight_decay, maximize)
        _add_square(square, g, alpha, 1 - alpha, results[1], spare[1])
        if centered:
            _mix(rest[-1], g, 1 - alpha, results[-1], spare[1])
            np.multiply(results[-1], results[-1], out=spare[1])
            update = np.subtract(results[1], spare[1], out=spare[1])
        else:
            update = results[1]
        update = np.sqrt(update, out=spare[1])
        np.add(update, eps, out=update)
        np.divide(g, update, out=update)
        if momentum:
            np.multiply(rest[0], momentum, out=results[2])
            np.add(results[2], update, out=results[2])
            np.multiply(results[2], rate, out=update)
        else:
            np.multiply(update, rate, out=update)
        np.subtract(p, update, out=results[0])

    return _run(formula, 14, [param, grad, square, *state], out)


@kernels.register(ops.adagrad_step, out=True)
def adagrad_step(
    param: Array, grad: Array, total: Array, lr: Array, *, eps: float, weight_decay: float, maximize: bool,
    out: tuple[Array, ...] | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    rate = float(lr)

    def formula(inputs: Pieces, results: Pieces, spare: Pieces) -> None:
        p, g, total = inputs
        g = _directed(p, g, spare[0], spare[1], weight_decay, maximize)
        np.multiply(g, g, out=spare[1])
        np.add(total, spare[1], out=results[1])
        update = np.sqrt(results[1], out=spare[1])
        np.add(update, eps, out=update)
        np.divide(g, update, out=update)
        np.multiply(update, rate, out=update)
        np.subtract(p, update, out=results[0])

    return _run(formula, 10, [param, grad, total], out)
