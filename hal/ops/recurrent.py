"""Recurrent cells, one time step each: rnn_cell, lstm_cell, gru_cell, with torch's gates and weight layouts.

A cell is two matrix products and the gates that follow. `lstm_gates` and `gru_gates` are the second part alone: a layer
that multiplies all its time steps by the input's weights in one product needs only those for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hal import ops
from hal.errors import SettingError, ShapeError
from hal.op import Cost, Grads, Op, Specs, in_norm
from hal.ops.common import FLOATS, check_kind, floating
from hal.ops.precision import widened
from hal.ops.recurrent_reference import (
    reference_gru,
    reference_gru_gates,
    reference_gru_gates_gradient,
    reference_lstm,
    reference_lstm_gates,
    reference_lstm_gates_gradient,
    reference_rnn,
    samples_of_cell,
    samples_of_gates,
)
from hal.ops.steps import cut, zeros
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor

_GATES = in_norm(32, "sums of rounded products, through functions whose slope is at most 1 and whose limits are 5 ULP")
NONLINEARITIES = ("tanh", "relu")


def _check_floats(who: str, *specs: Spec) -> None:
    for spec in specs:
        check_kind(who, spec, FLOATS)


def _check_cell(who: str, gates: int, x: Spec, h: Spec, w_ih: Spec, w_hh: Spec, *biases: Spec | None) -> None:
    given = [b for b in biases if b is not None]
    _check_floats(who, x, h, w_ih, w_hh, *given)
    if x.ndim not in (1, 2) or h.ndim != x.ndim or x.shape[:-1] != h.shape[:-1]:
        raise ShapeError(f"{who} needs x (batch, inputs) and h (batch, hidden), or both without batch; "
                         f"got {x.shape} and {h.shape}")  # fmt: skip
    rows = gates * h.shape[-1]
    if w_ih.shape != (rows, x.shape[-1]) or w_hh.shape != (rows, h.shape[-1]):
        raise ShapeError(
            f"{who} needs weights of shape {(rows, x.shape[-1])} for x and {(rows, h.shape[-1])} for h ({gates} times "
            f"the hidden size by what they multiply), got {w_ih.shape} and {w_hh.shape}"
        )
    for bias in given:
        if bias.shape != (rows,):
            raise ShapeError(f"{who} needs biases of shape ({rows},), got {bias.shape}")


def _check_gates(who: str, count: int, gates: Spec, h: Spec) -> None:
    _check_floats(who, gates, h)
    if not h.ndim or gates.shape != (*h.shape[:-1], count * h.shape[-1]):
        raise ShapeError(f"{who} needs {count} gates side by side, (..., {count} n), for a state (..., n); "
                         f"got {gates.shape} and {h.shape}")  # fmt: skip


# The matrix products, and their gradients.


def _products(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, *biases: Tensor) -> tuple[Tensor, Tensor]:
    return ops.linear(x, w_ih, *biases[:1]), ops.linear(h, w_hh, *biases[1:])


def _matrix(x: Tensor) -> Tensor:
    return x if x.ndim == 2 else ops.reshape(x, shape=(1, x.shape[0]))


def _gradients_of_product(slope: Callable[[], Tensor], x: Tensor, weight: Tensor) -> list[Callable[[], Tensor]]:
    """The gradients of x, weight and bias in linear(x, weight, bias), from that of the result."""

    def by_weight() -> Tensor:
        return ops.matmul(ops.permute(_matrix(slope()), axes=(1, 0)), _matrix(x))

    return [lambda: ops.matmul(slope(), weight), by_weight, lambda: ops.sum(_matrix(slope()), axis=0)]


def _once(function: Callable[[], Any]) -> Callable[[], Any]:
    """`function`, called when first needed and then remembered."""
    found: list[Any] = []

    def value() -> Any:
        if not found:
            found.append(function())
        return found[0]

    return value


def _or_zeros(g: Tensor | None, like: Tensor) -> Tensor:
    return zeros(like, like.shape) if g is None else g


def _parts(x: Tensor, count: int) -> list[Tensor]:
    """The gates that lie side by side along the last axis."""
    n = x.shape[-1] // count
    return [cut(x, x.ndim - 1, i * n, (i + 1) * n) for i in range(count)]


# rnn_cell


def _infer_rnn(
    x: Spec, h: Spec, w_ih: Spec, w_hh: Spec, b_ih: Spec | None = None, b_hh: Spec | None = None, /, *,
    nonlinearity: str = "tanh",
) -> Spec:  # fmt: skip
    _check_cell("rnn_cell", 1, x, h, w_ih, w_hh, b_ih, b_hh)
    if nonlinearity not in NONLINEARITIES:
        raise SettingError(f"rnn_cell needs nonlinearity= one of {', '.join(NONLINEARITIES)}, got {nonlinearity!r}")
    return h


@widened
def _decompose_rnn(x: Tensor, h: Tensor, *rest: Tensor, nonlinearity: str) -> Tensor:
    first, second = _products(x, h, *rest)
    return ops.tanh(first + second) if nonlinearity == "tanh" else ops.relu(first + second)


def _gradient_rnn(
    g: Tensor, out: Tensor, x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, *biases: Tensor, nonlinearity: str
) -> Grads:
    slope = _once(lambda: g * (1.0 - out * out) if nonlinearity == "tanh" else ops.where(ops.less(0.0, out), g, 0.0))
    by_x, by_w_ih, by_bias = _gradients_of_product(slope, x, w_ih)
    by_h, by_w_hh, _ = _gradients_of_product(slope, h, w_hh)
    return (by_x, by_h, by_w_ih, by_w_hh, *[by_bias] * len(biases))


# lstm_cell


def _infer_lstm_gates(gates: Spec, c: Spec) -> tuple[Spec, Spec]:
    _check_gates("lstm_gates", 4, gates, c)
    return c, c


def _infer_lstm_gates_gradient(gh: Spec, gc: Spec, gates: Spec, c: Spec, new: Spec) -> tuple[Spec, Spec]:
    _check_gates("lstm_gates_gradient", 4, gates, c)
    if not gh.shape == gc.shape == new.shape == c.shape:
        raise ShapeError(
            f"lstm_gates_gradient needs states of one shape, got {gh.shape}, {gc.shape}, {c.shape}, {new.shape}"
        )
    return gates, c


def _infer_lstm(
    x: Spec, h: Spec, c: Spec, w_ih: Spec, w_hh: Spec, b_ih: Spec | None = None, b_hh: Spec | None = None, /
) -> tuple[Spec, Spec]:
    _check_cell("lstm_cell", 4, x, h, w_ih, w_hh, b_ih, b_hh)
    if c.shape != h.shape:
        raise ShapeError(f"lstm_cell needs c of the shape of h, {h.shape}, got {c.shape}")
    return h, c


def lstm_values(i: Tensor, f: Tensor, g: Tensor, o: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The new h and c from the four gates and the old c."""
    new = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
    return ops.sigmoid(o) * ops.tanh(new), new


def lstm_slopes(
    gh: Tensor, gc: Tensor, i: Tensor, f: Tensor, g: Tensor, o: Tensor, c: Tensor, new: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of the four gates and of the old c, from those of h and c."""
    i, f, g, o, t = ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o), ops.tanh(new)
    slope = gc + gh * o * (1.0 - t * t)
    slopes = (slope * g * i * (1.0 - i), slope * c * f * (1.0 - f), slope * i * (1.0 - g * g), gh * t * o * (1.0 - o))
    return *slopes, slope * f


@widened
def _decompose_lstm_gates(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = _parts(gates, 4)
    return lstm_values(i, f, g, o, c)


@widened
def _decompose_lstm_gates_gradient(
    gh: Tensor, gc: Tensor, gates: Tensor, c: Tensor, new: Tensor
) -> tuple[Tensor, Tensor]:
    i, f, g, o = _parts(gates, 4)
    *slopes, by_c = lstm_slopes(gh, gc, i, f, g, o, c, new)
    return ops.concat(*slopes, axis=gates.ndim - 1), by_c


def _gradient_lstm_gates(
    gs: tuple[Tensor | None, Tensor | None], outs: tuple[Tensor, Tensor], gates: Tensor, c: Tensor
) -> Grads:
    found = ops.lstm_gates_gradient(_or_zeros(gs[0], c), _or_zeros(gs[1], c), gates, c, outs[1])
    return found[0], found[1]


@widened
def _decompose_lstm(x: Tensor, h: Tensor, c: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    first, second = _products(x, h, *rest)
    h, c = ops.lstm_gates(first + second, c)
    return h, c


def _gradient_lstm(
    gs: tuple[Tensor | None, Tensor | None], outs: tuple[Tensor, Tensor],
    x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, *biases: Tensor,
) -> Grads:  # fmt: skip
    def slopes() -> tuple[Tensor, Tensor]:
        first, second = _products(x, h, w_ih, w_hh, *biases)
        by_gates, by_c = ops.lstm_gates_gradient(_or_zeros(gs[0], c), _or_zeros(gs[1], c), first + second, c, outs[1])
        return by_gates, by_c

    found = _once(slopes)
    by_x, by_w_ih, by_bias = _gradients_of_product(lambda: found()[0], x, w_ih)
    by_h, by_w_hh, _ = _gradients_of_product(lambda: found()[0], h, w_hh)
    return (by_x, by_h, lambda: found()[1], by_w_ih, by_w_hh, *[by_bias] * len(biases))


# gru_cell


def _infer_gru_gates(gi: Spec, gh: Spec, h: Spec) -> Spec:
    _check_gates("gru_gates", 3, gi, h)
    _check_gates("gru_gates", 3, gh, h)
    return h


def _infer_gru_gates_gradient(g: Spec, gi: Spec, gh: Spec, h: Spec) -> tuple[Spec, Spec, Spec]:
    _check_gates("gru_gates_gradient", 3, gi, h)
    _check_gates("gru_gates_gradient", 3, gh, h)
    if g.shape != h.shape:
        raise ShapeError(f"gru_gates_gradient needs a gradient of the shape of h, {h.shape}, got {g.shape}")
    return gi, gh, h


def _infer_gru(x: Spec, h: Spec, w_ih: Spec, w_hh: Spec, b_ih: Spec | None = None, b_hh: Spec | None = None, /) -> Spec:
    _check_cell("gru_cell", 3, x, h, w_ih, w_hh, b_ih, b_hh)
    return h


def gru_values(gi: Sequence[Tensor], gh: Sequence[Tensor], h: Tensor) -> Tensor:
    """The new h from what the input and the state give to the gates r, z and n."""
    z, n = ops.sigmoid(gi[1] + gh[1]), ops.tanh(gi[2] + ops.sigmoid(gi[0] + gh[0]) * gh[2])
    return n + z * (h - n)


def gru_slopes(g: Tensor, gi: Sequence[Tensor], gh: Sequence[Tensor], h: Tensor) -> tuple[Tensor, ...]:
    """The gradients of gi's r, z and n, of gh's n (r and z are gi's) and of h."""
    r, z = ops.sigmoid(gi[0] + gh[0]), ops.sigmoid(gi[1] + gh[1])
    n = ops.tanh(gi[2] + r * gh[2])
    by_n = g * (1.0 - z) * (1.0 - n * n)
    return by_n * gh[2] * r * (1.0 - r), g * (h - n) * z * (1.0 - z), by_n, by_n * r, g * z


@widened
def _decompose_gru_gates(gi: Tensor, gh: Tensor, h: Tensor) -> Tensor:
    return gru_values(_parts(gi, 3), _parts(gh, 3), h)


@widened
def _decompose_gru_gates_gradient(g: Tensor, gi: Tensor, gh: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    by_r, by_z, by_n, by_hn, by_h = gru_slopes(g, _parts(gi, 3), _parts(gh, 3), h)
    axis = gi.ndim - 1
    return ops.concat(by_r, by_z, by_n, axis=axis), ops.concat(by_r, by_z, by_hn, axis=axis), by_h


def _gradient_gru_gates(g: Tensor, out: Tensor, gi: Tensor, gh: Tensor, h: Tensor) -> Grads:
    return tuple(ops.gru_gates_gradient(g, gi, gh, h))


@widened
def _decompose_gru(x: Tensor, h: Tensor, *rest: Tensor) -> Tensor:
    return ops.gru_gates(*_products(x, h, *rest), h)


def _gradient_gru(g: Tensor, out: Tensor, x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, *biases: Tensor) -> Grads:
    found = _once(lambda: ops.gru_gates_gradient(g, *_products(x, h, w_ih, w_hh, *biases), h))
    by_x, by_w_ih, by_b_ih = _gradients_of_product(lambda: found()[0], x, w_ih)
    through, by_w_hh, by_b_hh = _gradients_of_product(lambda: found()[1], h, w_hh)
    return (by_x, lambda: through() + found()[2], by_w_ih, by_w_hh, *[by_b_ih, by_b_hh][: len(biases)])


# Costs, and the table.


def _cost_of_cell(*specs: Spec, out: Specs, **settings: Any) -> Cost:
    outs = out if isinstance(out, tuple) else (out,)
    weights = sum(s.size for s in specs if s.ndim == 2 and s.shape[0] != specs[0].shape[0])
    batch = specs[0].shape[0] if specs[0].ndim == 2 else 1
    return Cost(2 * batch * weights + 30 * outs[0].size, sum(s.nbytes for s in (*specs, *outs)))


def _cost_of_gates(*specs: Spec, out: Specs, **settings: Any) -> Cost:
    outs = out if isinstance(out, tuple) else (out,)
    return Cost(30 * specs[-1].size, sum(s.nbytes for s in (*specs, *outs)))


rnn_cell = Op(
    "rnn_cell", _infer_rnn, reference_rnn, samples_of_cell(1, 1, ({}, {"nonlinearity": "relu"})), _gradient_rnn,
    _decompose_rnn, _cost_of_cell, promote=floating, tolerance=_GATES,
    doc="""tanh (or relu) of x @ w_ih.T + b_ih + h @ w_hh.T + b_hh.

    x: (batch, inputs), h: (batch, hidden), or both without batch; w_ih: (hidden, inputs), w_hh: (hidden, hidden),
    biases: (hidden,). Source: torch.nn.RNNCell.""",
)  # fmt: skip

lstm_gates = Op(
    "lstm_gates", _infer_lstm_gates, reference_lstm_gates, samples_of_gates(4, 1), _gradient_lstm_gates,
    _decompose_lstm_gates, _cost_of_gates, promote=floating, tolerance=_GATES,
    doc="""The new (h, c) of an LSTM from its gates i, f, g, o side by side, (..., 4 n), and its cell state c (..., n):
    c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c').""",
)  # fmt: skip

lstm_gates_gradient = Op(
    "lstm_gates_gradient", _infer_lstm_gates_gradient, reference_lstm_gates_gradient,
    samples_of_gates(1, 1, 4, 1, 1, far=False), None, _decompose_lstm_gates_gradient, _cost_of_gates, promote=floating,
    tolerance=_GATES, doc="The gradients of lstm_gates by gates and c, from those of h and c and the new c.",
)  # fmt: skip

lstm_cell = Op(
    "lstm_cell", _infer_lstm, reference_lstm, samples_of_cell(4, 2), _gradient_lstm, _decompose_lstm, _cost_of_cell,
    promote=floating, tolerance=_GATES, doc="""One step of an LSTM: the new (h, c).

    x: (batch, inputs), h and c: (batch, hidden), or all without batch; w_ih: (4 hidden, inputs), w_hh: (4 hidden,
    hidden), biases: (4 hidden,), each for the gates i, f, g, o in this order. Source: torch.nn.LSTMCell.""",
)  # fmt: skip

gru_gates = Op(
    "gru_gates", _infer_gru_gates, reference_gru_gates, samples_of_gates(3, 3, 1), _gradient_gru_gates,
    _decompose_gru_gates, _cost_of_gates, promote=floating, tolerance=_GATES,
    doc="""The new h of a GRU from what its weights make of the input and of h, r, z, n side by side, (..., 3 n) each:
    n = tanh(gi_n + sigmoid(gi_r + gh_r) gh_n), h' = (1 - z) n + z h with z = sigmoid(gi_z + gh_z).""",
)  # fmt: skip

gru_gates_gradient = Op(
    "gru_gates_gradient", _infer_gru_gates_gradient, reference_gru_gates_gradient,
    samples_of_gates(1, 3, 3, 1, far=False), None, _decompose_gru_gates_gradient, _cost_of_gates, promote=floating,
    tolerance=_GATES, doc="The gradients of gru_gates by gi, gh and h, from that of its result: (g, gi, gh, h).",
)  # fmt: skip

gru_cell = Op(
    "gru_cell", _infer_gru, reference_gru, samples_of_cell(3, 1), _gradient_gru, _decompose_gru, _cost_of_cell,
    promote=floating, tolerance=_GATES, doc="""One step of a GRU: the new h.

    x: (batch, inputs), h: (batch, hidden), or both without batch; w_ih: (3 hidden, inputs), w_hh: (3 hidden, hidden),
    biases: (3 hidden,), each for the gates r, z, n in this order. Source: torch.nn.GRUCell.""",
)  # fmt: skip
