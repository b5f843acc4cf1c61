"""Recurrent layers over all steps in NumPy: one product a step, and as few calls as there can be between two of them.

Backward, all that does not depend on the gradient that comes back through time is computed for many steps at once: how
steep each gate is where it was. What is left for each step is to multiply by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cpu.parallel import scratch
from hal_cpu.recurrent import BLOCK, _cell_inputs, _narrow
from hal_cpu.table import kernels
from hal_cpu.tiles import multiply


@lru_cache(maxsize=8)
def _constants(batch: int, n: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """What makes i, f, o of tanh(x / 2) and g of tanh(x): factors before and after it, and what is added last.

    They are as large as the gates, since NumPy takes twice as long to go through rows of one array again and again.
    """
    rows = [np.repeat(np.array(row, dtype), n) for row in ([0.5, 0.5, 1, 0.5], [0.5, 0.5, 0, 0.5])]
    factors, summands = (np.tile(row, (batch, 1)) for row in rows)
    return factors, summands


def _by_columns(weight: Array) -> Array:
    """The transposed weight with its rows in one piece, which BLAS multiplies few rows with in up to half the time."""
    return np.ascontiguousarray(weight.T)


def _each(*arrays: Array) -> Iterator[tuple[Any, ...]]:
    """The entries of all arrays for each step."""
    return zip(*arrays, strict=True)


def _steps_together(steps: int, elements: int) -> Iterator[tuple[int, int]]:
    """Ranges of steps from the last to the first, each of about a block of elements."""
    together = max(1, BLOCK // max(1, elements))
    for stop in range(steps, 0, -together):
        yield max(0, stop - together), stop


def _previous(states: Array, first: Array, start: int, stop: int) -> Array:
    """The states that the steps of a range began with."""
    if start:
        return states[start - 1 : stop - 1]
    found = scratch("states before", (stop, *first.shape), first.dtype)
    found[0] = first
    found[1:] = states[: stop - 1]
    return found


# rnn_sequence


@kernels.register(ops.rnn_sequence)
def rnn_sequence(given: Array, h: Array, w_hh: Array, *, nonlinearity: str) -> Array:
    dtype = given.dtype
    given, h, w_hh = _cell_inputs(given, h, w_hh)
    hs, weight = np.empty(given.shape, given.dtype), _by_columns(w_hh)
    for x, new in _each(given, hs):
        multiply(h, weight, new)
        np.add(new, x, out=new)
        if nonlinearity == "tanh":
            np.tanh(new, out=new)
        else:
            np.maximum(new, 0, out=new)
        h = new
    return _narrow(dtype, hs)[0]


@kernels.register(ops.rnn_sequence_gradient)
def rnn_sequence_gradient(g: Array, hs: Array, w_hh: Array, *, nonlinearity: str) -> tuple[Array, ...]:
    dtype = hs.dtype
    g, hs, w_hh = _cell_inputs(g, hs, w_hh)
    found, by_h = np.empty(hs.shape, hs.dtype), np.zeros(hs.shape[1:], hs.dtype)
    for start, stop in _steps_together(len(hs), by_h.size):
        slopes = found[start:stop]
        if nonlinearity == "tanh":
            np.multiply(hs[start:stop], hs[start:stop], out=slopes)
            np.subtract(1, slopes, out=slopes)
        else:
            np.greater(hs[start:stop], 0, out=slopes, casting="unsafe")
        for t in range(stop - 1, start - 1, -1):
            np.add(by_h, g[t], out=by_h)
            np.multiply(found[t], by_h, out=found[t])
            multiply(found[t], w_hh, by_h)
    return _narrow(dtype, found, by_h)


# lstm_sequence


@kernels.register(ops.lstm_sequence)
def lstm_sequence(given: Array, h: Array, c: Array, w_hh: Array) -> tuple[Array, ...]:
    dtype = given.dtype
    given, h, c, w_hh = _cell_inputs(given, h, c, w_hh)
    steps, batch, rows = given.shape
    n = rows // 4
    hs, cs = np.empty((steps, batch, n), given.dtype), np.empty((steps, batch, n), given.dtype)
    sums, weight = np.empty(given.shape, given.dtype), _by_columns(w_hh)
    gates, entering = scratch("gates", (batch, rows), given.dtype), scratch("states", (batch, n), given.dtype)
    i, f, g, o = (gates[:, k * n : (k + 1) * n] for k in range(4))
    scale, shift = _constants(batch, n, given.dtype)
    for x, total, new_h, new_c in _each(given, sums, hs, cs):
        multiply(h, weight, total)
        np.add(total, x, out=total)
        np.multiply(total, scale, out=gates)
        np.tanh(gates, out=gates)
        np.multiply(gates, scale, out=gates)
        np.add(gates, shift, out=gates)
        np.multiply(f, c, out=new_c)
        np.multiply(i, g, out=entering)
        np.add(new_c, entering, out=new_c)
        np.tanh(new_c, out=new_h)
        np.multiply(new_h, o, out=new_h)
        h, c = new_h, new_c
    return _narrow(dtype, hs, cs, sums)


@kernels.register(ops.lstm_sequence_gradient)
def lstm_sequence_gradient(
    gh: Array, sums: Array, cs: Array, c: Array, w_hh: Array, gc: Array | None = None, gs: Array | None = None
) -> tuple[Array, ...]:
    dtype = sums.dtype
    gh, sums, cs, c, w_hh, gc, gs = _cell_inputs(gh, sums, cs, c, w_hh, gc, gs)
    steps, batch, rows = sums.shape
    n = rows // 4
    found = np.empty(sums.shape, sums.dtype)
    by_h, by_c = np.zeros((batch, n), sums.dtype), np.zeros((batch, n), sums.dtype)
    step = scratch("states", (batch, n), sums.dtype)
    for start, stop in _steps_together(steps, batch * rows):
        kept, by_new = _lstm_slopes(sums[start:stop], cs, c, found[start:stop], start, stop)
        for t in range(stop - 1, start - 1, -1):
            slopes = found[t]
            np.add(by_h, gh[t], out=by_h)
            np.multiply(by_h, by_new[t - start], out=step)
            np.add(by_c, step, out=by_c)
            if gc is not None:
                np.add(by_c, gc[t], out=by_c)
            by_gates = slopes[:, : 3 * n].reshape(batch, 3, n)
            np.multiply(by_gates, by_c[:, None], out=by_gates)
            np.multiply(slopes[:, 3 * n :], by_h, out=slopes[:, 3 * n :])
            if gs is not None:
                np.add(slopes, gs[t], out=slopes)
            np.multiply(by_c, kept[t - start], out=by_c)
            multiply(slopes, w_hh, by_h)
    return _narrow(dtype, found, by_h, by_c)


def _lstm_slopes(sums: Array, cs: Array, c: Array, slopes: Array, start: int, stop: int) -> tuple[Array, Array]:
    """Writes what the gradients of c (for i, f, g) and h (for o) are to be multiplied with into `slopes`.

    Returns:
        What of the gradient of c goes on to the step before, and what the gradient of h adds to that of c.
    """
    n = c.shape[1]
    values = scratch("gates", sums.shape, sums.dtype)
    scale, shift = _constants(c.shape[0], n, sums.dtype)
    np.multiply(sums, scale, out=values)
    np.tanh(values, out=values)
    np.multiply(values, scale, out=values)
    np.add(values, shift, out=values)
    np.subtract(1, values, out=slopes)
    np.multiply(slopes, values, out=slopes)
    i, f, g, o = (values[..., k * n : (k + 1) * n] for k in range(4))
    by_i, by_f, by_g, by_o = (slopes[..., k * n : (k + 1) * n] for k in range(4))
    np.multiply(by_i, g, out=by_i)
    np.multiply(by_f, _previous(cs, c, start, stop), out=by_f)
    np.multiply(g, g, out=by_g)
    np.subtract(1, by_g, out=by_g)
    np.multiply(by_g, i, out=by_g)
    tanh, by_new = scratch("slopes", (2, *i.shape), sums.dtype)
    np.tanh(cs[start:stop], out=tanh)
    np.multiply(by_o, tanh, out=by_o)
    np.multiply(tanh, tanh, out=by_new)
    np.subtract(1, by_new, out=by_new)
    np.multiply(by_new, o, out=by_new)
    return f, by_new


# gru_sequence


@kernels.register(ops.gru_sequence)
def gru_sequence(given: Array, h: Array, w_hh: Array, b_hh: Array | None = None) -> tuple[Array, ...]:
    dtype = given.dtype
    given, h, w_hh, b_hh = _cell_inputs(given, h, w_hh, b_hh)
    steps, batch, rows = given.shape
    n = rows // 3
    hs, sums, weight = np.empty((steps, batch, n), given.dtype), np.empty(given.shape, given.dtype), _by_columns(w_hh)
    gates, new = scratch("gates", (batch, 2 * n), given.dtype), scratch("states", (batch, n), given.dtype)
    r, z = gates[:, :n], gates[:, n:]
    for x, made, out in _each(given, sums, hs):
        multiply(h, weight, made)
        if b_hh is not None:
            np.add(made, b_hh, out=made)
        np.add(made[:, : 2 * n], x[:, : 2 * n], out=gates)
        _sigmoid(gates)
        np.multiply(made[:, 2 * n :], r, out=new)
        np.add(new, x[:, 2 * n :], out=new)
        np.tanh(new, out=new)
        np.subtract(h, new, out=out)
        np.multiply(out, z, out=out)
        np.add(out, new, out=out)
        h = out
    return _narrow(dtype, hs, sums)


def _sigmoid(x: Array) -> None:
    """In place."""
    np.multiply(x, 0.5, out=x)
    np.tanh(x, out=x)
    np.multiply(x, 0.5, out=x)
    np.add(x, 0.5, out=x)


@kernels.register(ops.gru_sequence_gradient)
def gru_sequence_gradient(
    g: Array, given: Array, sums: Array, hs: Array, h: Array, w_hh: Array, gs: Array | None = None
) -> tuple[Array, ...]:
    dtype = given.dtype
    g, given, sums, hs, h, w_hh, gs = _cell_inputs(g, given, sums, hs, h, w_hh, gs)
    steps, batch, rows = given.shape
    n = rows // 3
    by_given, by_sums = np.empty(given.shape, given.dtype), np.empty(given.shape, given.dtype)
    by_h, by_new = np.zeros((batch, n), given.dtype), scratch("states", (batch, n), given.dtype)
    for start, stop in _steps_together(steps, batch * rows):
        here = slice(start, stop)
        z = _gru_slopes(given[here], sums[here], hs, h, by_given[here], by_sums[here], start, stop)
        for t in range(stop - 1, start - 1, -1):
            np.add(by_h, g[t], out=by_new)
            for slopes in (by_given[t].reshape(batch, 3, n), by_sums[t].reshape(batch, 3, n)):
                np.multiply(slopes, by_new[:, None], out=slopes)
            if gs is not None:
                np.add(by_sums[t], gs[t], out=by_sums[t])
            multiply(by_sums[t], w_hh, by_h)
            np.multiply(by_new, z[t - start], out=by_new)
            np.add(by_h, by_new, out=by_h)
    return _narrow(dtype, by_given, by_sums, by_h)


def _gru_slopes(
    given: Array, sums: Array, hs: Array, h: Array, by_given: Array, by_sums: Array, start: int, stop: int
) -> Array:
    """Writes what the gradient of the new h is to be multiplied with into both; returns the gates z."""
    n = h.shape[1]
    gates = scratch("gates", (*given.shape[:2], 2 * n), given.dtype)
    np.add(given[..., : 2 * n], sums[..., : 2 * n], out=gates)
    _sigmoid(gates)
    r, z = gates[..., :n], gates[..., n:]
    new, rest = scratch("slopes", (2, *r.shape), given.dtype)
    np.multiply(sums[..., 2 * n :], r, out=new)
    np.add(new, given[..., 2 * n :], out=new)
    np.tanh(new, out=new)
    by_r, by_z, by_n = (by_given[..., k * n : (k + 1) * n] for k in range(3))
    np.subtract(1, z, out=rest)
    np.subtract(_previous(hs, h, start, stop), new, out=by_z)
    np.multiply(by_z, z, out=by_z)
    np.multiply(by_z, rest, out=by_z)
    np.multiply(new, new, out=by_n)
    np.subtract(1, by_n, out=by_n)
    np.multiply(by_n, rest, out=by_n)
    np.subtract(1, r, out=by_r)
    np.multiply(by_r, r, out=by_r)
    np.multiply(by_r, by_n, out=by_r)
    np.multiply(by_r, sums[..., 2 * n :], out=by_r)
    np.copyto(by_sums[..., : 2 * n], by_given[..., : 2 * n])
    np.multiply(by_n, r, out=by_sums[..., 2 * n :])
    return z
