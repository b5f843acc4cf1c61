"""Recurrent layers over all steps of time: rnn_sequence, lstm_sequence, gru_sequence, and their gradients.

What the input gives to the gates is one matrix product for all steps, made before; these ops take it and go through
time. Their gradients go back through time once, and give what all steps add to the weights as one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from hal import ops
from hal.errors import SettingError, ShapeError
from hal.op import Cost, Grads, Op, Specs, in_norm
from hal.ops.common import floating
from hal.ops.precision import widened
from hal.ops.recurrent import NONLINEARITIES, _check_floats
from hal.ops.recurrent_reference import (
    reference_gru_sequence,
    reference_gru_sequence_gradient,
    reference_lstm_sequence,
    reference_lstm_sequence_gradient,
    reference_rnn_sequence,
    reference_rnn_sequence_gradient,
    samples_of_sequence,
)
from hal.ops.steps import cut, shaped, zeros
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor

_STEPS = in_norm(64, "as a cell, and what is rounded in one step goes on through slopes of at most 1")


def _check(who: str, gates: int, given: Spec, weight: Spec, *states: Spec) -> None:
    """given (time, batch, gates n), weight (gates n, n), states (batch, n) or (time, batch, n)."""
    _check_floats(who, given, weight, *states)
    if given.ndim != 3 or given.shape[0] < 1 or given.shape[2] % gates:
        raise ShapeError(f"{who} needs what the input gives to {gates} gates, (time, batch, {gates} n), with at least "
                         f"one step of time; got {given.shape}")  # fmt: skip
    steps, batch, rows = given.shape
    n = rows // gates
    if weight.shape != (rows, n):
        raise ShapeError(f"{who} needs weights of shape {(rows, n)} for {given.shape}, got {weight.shape}")
    for state in states:
        if state.shape not in ((batch, n), (steps, batch, n)):
            raise ShapeError(f"{who} needs states of shape {(batch, n)} for {given.shape}, got {state.shape}")


def _states(given: Spec, gates: int) -> Spec:
    return Spec((*given.shape[:2], given.shape[2] // gates), given.dtype)


def _at(x: Tensor, t: int) -> Tensor:
    """The entry of one step of time."""
    return shaped(cut(x, 0, t, t + 1), x.shape[1:])


def _before(states: Tensor, first: Tensor) -> Tensor:
    """The states that the steps began with: the first, and all but the last of those they ended with."""
    steps = states.shape[0]
    begin = shaped(first, (1, *first.shape))
    return begin if steps == 1 else ops.concat(begin, cut(states, 0, 0, steps - 1), axis=0)


def _by_weight(slopes: Tensor, states: Tensor, first: Tensor) -> Tensor:
    """The gradient of the weights that every step multiplies its state with, from those of its products."""
    steps, batch, rows = slopes.shape
    flat = ops.reshape(slopes, shape=(steps * batch, rows))
    before = ops.reshape(_before(states, first), shape=(steps * batch, first.shape[1]))
    return ops.matmul(ops.permute(flat, axes=(1, 0)), before)


def _plus(x: Tensor, y: Tensor | None) -> Tensor:
    return x if y is None else x + y


# rnn_sequence


def _infer_rnn(given: Spec, h: Spec, w_hh: Spec, *, nonlinearity: str = "tanh") -> Spec:
    _check("rnn_sequence", 1, given, w_hh, h)
    if nonlinearity not in NONLINEARITIES:
        raise SettingError(f"rnn_sequence needs nonlinearity= one of {', '.join(NONLINEARITIES)}, got {nonlinearity!r}")
    return given


def _infer_rnn_gradient(g: Spec, hs: Spec, w_hh: Spec, *, nonlinearity: str = "tanh") -> tuple[Spec, Spec]:
    _check("rnn_sequence_gradient", 1, hs, w_hh, g)
    return hs, Spec(hs.shape[1:], hs.dtype)


@widened
def _decompose_rnn(given: Tensor, h: Tensor, w_hh: Tensor, *, nonlinearity: str) -> Tensor:
    function = ops.tanh if nonlinearity == "tanh" else ops.relu
    hs = []
    for t in range(given.shape[0]):
        h = function(_at(given, t) + ops.linear(h, w_hh))
        hs.append(h)
    return ops.stack(*hs, axis=0)


@widened
def _decompose_rnn_gradient(g: Tensor, hs: Tensor, w_hh: Tensor, *, nonlinearity: str) -> tuple[Tensor, Tensor]:
    slopes = 1.0 - hs * hs if nonlinearity == "tanh" else ops.cast(ops.less(0.0, hs), dtype=hs.dtype)
    found, by_h = [], None
    for t in reversed(range(hs.shape[0])):
        found.append(_plus(_at(g, t), by_h) * _at(slopes, t))
        by_h = ops.matmul(found[-1], w_hh)
    assert by_h is not None
    return ops.stack(*reversed(found), axis=0), by_h


def _gradient_rnn(g: Tensor, out: Tensor, given: Tensor, h: Tensor, w_hh: Tensor, *, nonlinearity: str) -> Grads:
    found = cache(lambda: ops.rnn_sequence_gradient(g, out, w_hh, nonlinearity=nonlinearity))
    return lambda: found()[0], lambda: found()[1], lambda: _by_weight(found()[0], out, h)


# lstm_sequence


def _infer_lstm(given: Spec, h: Spec, c: Spec, w_hh: Spec) -> tuple[Spec, Spec, Spec]:
    _check("lstm_sequence", 4, given, w_hh, h, c)
    return _states(given, 4), _states(given, 4), given


def _infer_lstm_gradient(
    gh: Spec, sums: Spec, cs: Spec, c: Spec, w_hh: Spec, gc: Spec | None = None, gs: Spec | None = None
) -> tuple[Spec, Spec, Spec]:
    _check("lstm_sequence_gradient", 4, sums, w_hh, gh, cs, c, *([] if gc is None else [gc]))
    if gs is not None and gs.shape != sums.shape:
        raise ShapeError(f"lstm_sequence_gradient needs a gradient of shape {sums.shape}, got {gs.shape}")
    return sums, c, c


@widened
def _decompose_lstm(given: Tensor, h: Tensor, c: Tensor, w_hh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    hs, cs, sums = [], [], []
    for t in range(given.shape[0]):
        sums.append(_at(given, t) + ops.linear(h, w_hh))
        h, c = ops.lstm_gates(sums[-1], c)
        hs.append(h)
        cs.append(c)
    return ops.stack(*hs, axis=0), ops.stack(*cs, axis=0), ops.stack(*sums, axis=0)


@widened
def _decompose_lstm_gradient(
    gh: Tensor, sums: Tensor, cs: Tensor, c: Tensor, w_hh: Tensor, gc: Tensor | None = None, gs: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    found: list[Tensor] = []
    by_h, by_c = None, zeros(c, c.shape)
    for t in reversed(range(sums.shape[0])):
        by_c = _plus(by_c, None if gc is None else _at(gc, t))
        before = _at(cs, t - 1) if t else c
        slopes, by_c = ops.lstm_gates_gradient(_plus(_at(gh, t), by_h), by_c, _at(sums, t), before, _at(cs, t))
        found.append(_plus(slopes, None if gs is None else _at(gs, t)))
        by_h = ops.matmul(found[-1], w_hh)
    assert by_h is not None
    return ops.stack(*reversed(found), axis=0), by_h, by_c


def _gradient_lstm(
    gs: tuple[Tensor | None, ...], outs: tuple[Tensor, ...], given: Tensor, h: Tensor, c: Tensor, w_hh: Tensor
) -> Grads:
    hs, cs, sums = outs

    @cache
    def found() -> tuple[Tensor, Tensor, Tensor]:
        gh, gc, by_sums = gs
        others = [zeros(cs, cs.shape) if gc is None else gc, by_sums] if by_sums is not None else [gc]
        given_others = [x for x in others if x is not None]
        results: tuple[Tensor, Tensor, Tensor] = ops.lstm_sequence_gradient(
            zeros(hs, hs.shape) if gh is None else gh, sums, cs, c, w_hh, *given_others
        )
        return results

    return lambda: found()[0], lambda: found()[1], lambda: found()[2], lambda: _by_weight(found()[0], hs, h)


# gru_sequence


def _infer_gru(given: Spec, h: Spec, w_hh: Spec, b_hh: Spec | None = None) -> tuple[Spec, Spec]:
    _check("gru_sequence", 3, given, w_hh, h)
    if b_hh is not None and b_hh.shape != w_hh.shape[:1]:
        raise ShapeError(f"gru_sequence needs a bias of shape {w_hh.shape[:1]}, got {b_hh.shape}")
    return _states(given, 3), given


def _infer_gru_gradient(
    g: Spec, given: Spec, sums: Spec, hs: Spec, h: Spec, w_hh: Spec, gs: Spec | None = None
) -> tuple[Spec, Spec, Spec]:
    _check("gru_sequence_gradient", 3, given, w_hh, g, hs, h)
    for spec in (sums, gs):
        if spec is not None and spec.shape != given.shape:
            raise ShapeError(f"gru_sequence_gradient needs products of shape {given.shape}, got {spec.shape}")
    return given, given, h


@widened
def _decompose_gru(given: Tensor, h: Tensor, w_hh: Tensor, *bias: Tensor) -> tuple[Tensor, Tensor]:
    hs, sums = [], []
    for t in range(given.shape[0]):
        sums.append(ops.linear(h, w_hh, *bias))
        h = ops.gru_gates(_at(given, t), sums[-1], h)
        hs.append(h)
    return ops.stack(*hs, axis=0), ops.stack(*sums, axis=0)


@widened
def _decompose_gru_gradient(
    g: Tensor, given: Tensor, sums: Tensor, hs: Tensor, h: Tensor, w_hh: Tensor, gs: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    by_given, by_sums, by_h = [], [], None
    for t in reversed(range(given.shape[0])):
        before = _at(hs, t - 1) if t else h
        first, second, direct = ops.gru_gates_gradient(_plus(_at(g, t), by_h), _at(given, t), _at(sums, t), before)
        by_given.append(first)
        by_sums.append(_plus(second, None if gs is None else _at(gs, t)))
        by_h = direct + ops.matmul(by_sums[-1], w_hh)
    assert by_h is not None
    return ops.stack(*reversed(by_given), axis=0), ops.stack(*reversed(by_sums), axis=0), by_h


def _gradient_gru(
    gs: tuple[Tensor | None, ...], outs: tuple[Tensor, ...], given: Tensor, h: Tensor, w_hh: Tensor, *bias: Tensor
) -> Grads:
    hs, sums = outs
    g, *others = (zeros(hs, hs.shape) if gs[0] is None else gs[0]), *([] if gs[1] is None else [gs[1]])
    found = cache(lambda: ops.gru_sequence_gradient(g, given, sums, hs, h, w_hh, *others))
    entries: tuple[Callable[[], Tensor], ...] = (
        lambda: found()[0],
        lambda: found()[2],
        lambda: _by_weight(found()[1], hs, h),
        lambda: ops.sum(found()[1], axis=(0, 1)),
    )
    return entries[: 3 + len(bias)]


# Costs, and the table.


def _cost(*specs: Spec, out: Specs, **settings: Any) -> Cost:
    outs = out if isinstance(out, tuple) else (out,)
    steps, batch, rows = max((s.shape for s in specs if s.ndim == 3), key=lambda shape: shape[2])
    n = min(s.shape[-1] for s in specs)
    return Cost(2 * steps * batch * rows * n + 30 * steps * batch * n, sum(s.nbytes for s in (*specs, *outs)))


rnn_sequence = Op(
    "rnn_sequence", _infer_rnn, reference_rnn_sequence, samples_of_sequence("rnn"), _gradient_rnn, _decompose_rnn,
    _cost, promote=floating, tolerance=_STEPS,
    doc="""The states of an RNN after each step, h_t = tanh (or relu) of given_t + h_(t-1) @ w_hh.T.

    given: (time, batch, n), what the input and the biases give; h: (batch, n), the state to begin with; w_hh: (n, n).
    Source: torch.nn.RNN.""",
)  # fmt: skip

rnn_sequence_gradient = Op(
    "rnn_sequence_gradient", _infer_rnn_gradient, reference_rnn_sequence_gradient, samples_of_sequence("rnn", True),
    None, _decompose_rnn_gradient, _cost, promote=floating, tolerance=_STEPS,
    doc="The gradients of rnn_sequence by given and h, from those of its states and the states: (g, hs, w_hh).",
)  # fmt: skip

lstm_sequence = Op(
    "lstm_sequence", _infer_lstm, reference_lstm_sequence, samples_of_sequence("lstm"), _gradient_lstm, _decompose_lstm,
    _cost, promote=floating, tolerance=_STEPS,
    doc="""An LSTM over all steps: its states h and c after each, and the sums that its gates were made of.

    given: (time, batch, 4 n), what the input and the biases give to the gates i, f, g, o side by side; h and c:
    (batch, n), the states to begin with; w_hh: (4 n, n). sums_t = given_t + h_(t-1) @ w_hh.T, and the new h and c are
    `lstm_gates` of them. Source: torch.nn.LSTM.""",
)  # fmt: skip

lstm_sequence_gradient = Op(
    "lstm_sequence_gradient", _infer_lstm_gradient, reference_lstm_sequence_gradient,
    samples_of_sequence("lstm", True), None, _decompose_lstm_gradient, _cost, promote=floating, tolerance=_STEPS,
    doc="""The gradients of lstm_sequence by given, h and c: from those of its states h, its sums and states c, the
    first c and the weights; then, where there are such, the gradients of its states c and of its sums.""",
)  # fmt: skip

gru_sequence = Op(
    "gru_sequence", _infer_gru, reference_gru_sequence, samples_of_sequence("gru"), _gradient_gru, _decompose_gru,
    _cost, promote=floating, tolerance=_STEPS,
    doc="""A GRU over all steps: its states after each, and what its weights made of the states before.

    given: (time, batch, 3 n), what the input gives to r, z, n side by side; h: (batch, n), the state to begin with;
    w_hh: (3 n, n), b_hh: (3 n,). sums_t = h_(t-1) @ w_hh.T + b_hh, and the new h is `gru_gates` of both.
    Source: torch.nn.GRU.""",
)  # fmt: skip

gru_sequence_gradient = Op(
    "gru_sequence_gradient", _infer_gru_gradient, reference_gru_sequence_gradient, samples_of_sequence("gru", True),
    None, _decompose_gru_gradient, _cost, promote=floating, tolerance=_STEPS,
    doc="""The gradients of gru_sequence by given, by the products of its weights, and by h: from that of its states,
    what was given, the sums, the states, the first state and the weights; then, where there is one, that of the sums.
    """,
)  # fmt: skip
