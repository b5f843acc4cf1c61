"""Recurrent cells in NumPy: two matrix products, then the gates in place.

Sigmoids are half angles of tanh, sigmoid(x) = (tanh(x / 2) + 1) / 2, so that one call of tanh makes all gates of a
block; NumPy's tanh is as quick as its exp (measured, NumPy 2.4).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cpu.parallel import scratch
from hal_cpu.table import kernels

BLOCK = 65_536  # elements of the gates of a block of rows


def _wide(x: Array) -> Array:
    """Half precision in float32."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def _narrow(dtype: np.dtype[Any], *results: Array) -> tuple[Array, ...]:
    return tuple(x if x.dtype == dtype else x.astype(dtype) for x in results)


def _rows(x: Array) -> Array:
    """A matrix of rows, in float32 or float64."""
    x = _wide(x)
    return x if x.ndim == 2 else x.reshape(-1 if x.size else 0, x.shape[-1])


@lru_cache(maxsize=64)
def _halves(n: int, gates: str, dtype: np.dtype[Any]) -> Array:
    """What the gates' inputs are multiplied with: a half for a sigmoid (s), one for a tanh (t)."""
    return np.repeat(np.array([0.5 if kind == "s" else 1.0 for kind in gates], dtype), n)


def _in_blocks(function: Callable[..., None], width: int, *arrays: Array) -> None:
    """Run function(*pieces) on blocks of rows, `width` elements wide in all."""
    rows = arrays[0].shape[0]
    step = max(1, BLOCK // max(1, width))
    if rows <= step:
        function(*arrays)
        return
    for i in range(0, rows, step):
        function(*(x[i : i + step] for x in arrays))


def _product(x: Array, weight: Array, bias: Array | None, out: Array | None = None) -> Array:
    result = np.matmul(x, weight.T, out=out)
    return result if bias is None else np.add(result, bias, out=result)


def _cell_inputs(*given: Array | None) -> list[Any]:
    return [None if x is None else _wide(x) for x in given]


# rnn_cell


@kernels.register(ops.rnn_cell)
def rnn_cell(
    x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None, *,
    nonlinearity: str,
) -> Array:  # fmt: skip
    dtype = h.dtype
    x, h, w_ih, w_hh, b_ih, b_hh = _cell_inputs(x, h, w_ih, w_hh, b_ih, b_hh)
    result = _product(x, w_ih, b_ih)
    np.add(result, _product(h, w_hh, b_hh), out=result)
    if nonlinearity == "tanh":
        np.tanh(result, out=result)
    else:
        np.maximum(result, 0, out=result)
    return _narrow(dtype, result)[0]


# lstm_cell


def _lstm(gates: Array, c: Array, new_h: Array, new_c: Array) -> None:
    """The new state; the memory of `gates` is used up. `new_c` may be `c`."""
    n = c.shape[1]
    np.multiply(gates, _halves(n, "ssts", gates.dtype), out=gates)
    np.tanh(gates, out=gates)
    np.add(gates[:, : 2 * n], 1, out=gates[:, : 2 * n])
    i, f, g, o = (gates[:, k * n : (k + 1) * n] for k in range(4))
    np.multiply(f, c, out=new_c)
    np.multiply(i, g, out=i)
    np.add(new_c, i, out=new_c)
    np.multiply(new_c, 0.5, out=new_c)
    np.tanh(new_c, out=new_h)
    np.add(o, 1, out=o)
    np.multiply(new_h, o, out=new_h)
    np.multiply(new_h, 0.5, out=new_h)


def _lstm_results(gates: Array, c: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[Array, ...]:
    new_h, new_c = np.empty(c.shape, c.dtype), np.empty(c.shape, c.dtype)
    _in_blocks(_lstm, gates.shape[1], gates, c, new_h, new_c)
    return _narrow(dtype, new_h.reshape(shape), new_c.reshape(shape))


@kernels.register(ops.lstm_cell)
def lstm_cell(
    x: Array, h: Array, c: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None
) -> tuple[Array, ...]:
    dtype, shape = c.dtype, c.shape
    w_ih, w_hh, b_ih, b_hh = _cell_inputs(w_ih, w_hh, b_ih, b_hh)
    x, h, c = _rows(x), _rows(h), _rows(c)
    gates = _product(x, w_ih, b_ih, scratch("gates", (x.shape[0], w_ih.shape[0]), x.dtype))
    np.add(gates, _product(h, w_hh, b_hh, scratch("gates of h", gates.shape, x.dtype)), out=gates)
    return _lstm_results(gates, c, dtype, shape)


@kernels.register(ops.lstm_gates)
def lstm_gates(gates: Array, c: Array) -> tuple[Array, ...]:
    rows = _rows(gates)
    used = scratch("gates", rows.shape, rows.dtype)
    np.copyto(used, rows)
    return _lstm_results(used, _rows(c), c.dtype, c.shape)


def _lstm_gradient(gh: Array, gc: Array, gates: Array, c: Array, new: Array, by_gates: Array, by_c: Array) -> None:
    n = c.shape[1]
    values = scratch("gates", gates.shape, gates.dtype)
    np.multiply(gates, _halves(n, "ssts", gates.dtype), out=values)
    np.tanh(values, out=values)
    i, f, g, o = (values[:, k * n : (k + 1) * n] for k in range(4))
    for part in (values[:, : 2 * n], o):
        np.add(part, 1, out=part)
        np.multiply(part, 0.5, out=part)
    by_i, by_f, by_g, by_o = (by_gates[:, k * n : (k + 1) * n] for k in range(4))
    np.subtract(1, values, out=by_gates)
    np.multiply(by_gates, values, out=by_gates)  # s (1 - s), the slope of the sigmoids
    np.multiply(g, g, out=by_g)
    np.subtract(1, by_g, out=by_g)
    tanh, slope = scratch("states", (2, *c.shape), c.dtype)
    np.tanh(new, out=tanh)
    np.multiply(tanh, tanh, out=slope)
    np.subtract(1, slope, out=slope)
    np.multiply(slope, o, out=slope)
    np.multiply(slope, gh, out=slope)
    np.add(slope, gc, out=slope)  # the gradient of the new c
    np.multiply(tanh, gh, out=tanh)
    np.multiply(by_o, tanh, out=by_o)
    np.multiply(slope, f, out=by_c)
    np.multiply(g, slope, out=g)
    np.multiply(by_i, g, out=by_i)
    np.multiply(i, slope, out=i)
    np.multiply(by_g, i, out=by_g)
    np.multiply(slope, c, out=slope)
    np.multiply(by_f, slope, out=by_f)


@kernels.register(ops.lstm_gates_gradient)
def lstm_gates_gradient(gh: Array, gc: Array, gates: Array, c: Array, new: Array) -> tuple[Array, ...]:
    given = [_rows(x) for x in (gh, gc, gates, c, new)]
    by_gates, by_c = np.empty(given[2].shape, given[2].dtype), np.empty(given[3].shape, given[3].dtype)
    _in_blocks(_lstm_gradient, given[2].shape[1], *given, by_gates, by_c)
    return _narrow(c.dtype, by_gates.reshape(gates.shape), by_c.reshape(c.shape))


# gru_cell


def _gru_values(gi: Array, gh: Array, n: int) -> tuple[Array, Array, Array]:
    """The gates r and z, and the new values, in this thread's memory."""
    values = scratch("gates", gi.shape, gi.dtype)
    gates, new = values[:, : 2 * n], values[:, 2 * n :]
    np.add(gi[:, : 2 * n], gh[:, : 2 * n], out=gates)
    np.multiply(gates, 0.5, out=gates)
    np.tanh(gates, out=gates)
    np.add(gates, 1, out=gates)
    np.multiply(gates, 0.5, out=gates)
    r, z = gates[:, :n], gates[:, n:]
    np.multiply(r, gh[:, 2 * n :], out=new)
    np.add(new, gi[:, 2 * n :], out=new)
    np.tanh(new, out=new)
    return r, z, new


def _gru(gi: Array, gh: Array, h: Array, out: Array) -> None:
    _, z, new = _gru_values(gi, gh, h.shape[1])
    np.subtract(h, new, out=out)
    np.multiply(out, z, out=out)
    np.add(out, new, out=out)


def _gru_result(gi: Array, gh: Array, h: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    out = np.empty(h.shape, h.dtype)
    _in_blocks(_gru, gi.shape[1], gi, gh, h, out)
    return _narrow(dtype, out.reshape(shape))[0]


@kernels.register(ops.gru_cell)
def gru_cell(
    x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None
) -> Array:
    dtype, shape = h.dtype, h.shape
    w_ih, w_hh, b_ih, b_hh = _cell_inputs(w_ih, w_hh, b_ih, b_hh)
    x, h = _rows(x), _rows(h)
    products = scratch("products", (2, x.shape[0], w_ih.shape[0]), x.dtype)
    return _gru_result(_product(x, w_ih, b_ih, products[0]), _product(h, w_hh, b_hh, products[1]), h, dtype, shape)


@kernels.register(ops.gru_gates)
def gru_gates(gi: Array, gh: Array, h: Array) -> Array:
    return _gru_result(_rows(gi), _rows(gh), _rows(h), h.dtype, h.shape)


def _gru_gradient(g: Array, gi: Array, gh: Array, h: Array, by_gi: Array, by_gh: Array, by_h: Array) -> None:
    n = h.shape[1]
    r, z, new = _gru_values(gi, gh, n)
    by_r, by_z, by_new = (by_gi[:, k * n : (k + 1) * n] for k in range(3))
    rest = scratch("states", h.shape, h.dtype)
    np.subtract(1, z, out=rest)
    np.multiply(new, new, out=by_new)
    np.subtract(1, by_new, out=by_new)
    np.multiply(by_new, g, out=by_new)
    np.multiply(by_new, rest, out=by_new)
    np.multiply(g, z, out=by_h)
    np.subtract(h, new, out=by_z)
    np.multiply(by_z, rest, out=by_z)
    np.multiply(by_z, by_h, out=by_z)
    np.subtract(1, r, out=by_r)
    np.multiply(by_r, r, out=by_r)
    np.multiply(by_r, by_new, out=by_r)
    np.multiply(by_r, gh[:, 2 * n :], out=by_r)
    np.copyto(by_gh[:, : 2 * n], by_gi[:, : 2 * n])
    np.multiply(by_new, r, out=by_gh[:, 2 * n :])


@kernels.register(ops.gru_gates_gradient)
def gru_gates_gradient(g: Array, gi: Array, gh: Array, h: Array) -> tuple[Array, ...]:
    given = [_rows(x) for x in (g, gi, gh, h)]
    results = [np.empty(x.shape, x.dtype) for x in given[1:]]
    _in_blocks(_gru_gradient, given[1].shape[1], *given, *results)
    shaped = (x.reshape(like.shape) for x, like in zip(results, (gi, gh, h), strict=True))
    return _narrow(h.dtype, *shaped)
