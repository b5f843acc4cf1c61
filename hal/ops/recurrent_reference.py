"""What the recurrent cells mean, in NumPy, and the calls that they must take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hal.op import Array, Rng, Sample
from hal.ops.common import quiet, uniform
from hal.spec import Shape


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _linear(x: Array, weight: Array, bias: Array | None) -> Array:
    y = np.einsum("...i,oi->...o", x, weight)
    return y if bias is None else y + bias


def reference_rnn(
    x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None, *,
    nonlinearity: str = "tanh",
) -> Array:  # fmt: skip
    y = _linear(x, w_ih, b_ih) + _linear(h, w_hh, b_hh)
    return np.tanh(y) if nonlinearity == "tanh" else np.maximum(y, 0)


@quiet
def reference_lstm_gates(gates: Array, c: Array) -> tuple[Array, Array]:
    i, f, g, o = np.split(gates, 4, axis=-1)
    new = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(new), new


@quiet
def reference_lstm_gates_gradient(gh: Array, gc: Array, gates: Array, c: Array, new: Array) -> tuple[Array, Array]:
    i, f, g, o = np.split(gates, 4, axis=-1)
    i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
    by_o = gh * np.tanh(new) * o * (1 - o)
    by_new = gc + gh * o / np.cosh(new) ** 2
    parts = (by_new * g * i * (1 - i), by_new * c * f * (1 - f), by_new * i * (1 - g**2), by_o)
    return np.concatenate(parts, axis=-1), by_new * f


def reference_lstm(
    x: Array, h: Array, c: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None
) -> Any:
    return reference_lstm_gates(_linear(x, w_ih, b_ih) + _linear(h, w_hh, b_hh), c)


@quiet
def reference_gru_gates(gi: Array, gh: Array, h: Array) -> Array:
    (ir, iz, new), (hr, hz, hn) = np.split(gi, 3, axis=-1), np.split(gh, 3, axis=-1)
    z = _sigmoid(iz + hz)
    return np.asarray((1 - z) * np.tanh(new + _sigmoid(ir + hr) * hn) + z * h)


@quiet
def reference_gru_gates_gradient(g: Array, gi: Array, gh: Array, h: Array) -> tuple[Array, Array, Array]:
    (ir, iz, new), (hr, hz, hn) = np.split(gi, 3, axis=-1), np.split(gh, 3, axis=-1)
    r, z = _sigmoid(ir + hr), _sigmoid(iz + hz)
    n = np.tanh(new + r * hn)
    by_n, by_z = g * (1 - z) * (1 - n**2), g * (h - n) * z * (1 - z)
    by_r = by_n * hn * r * (1 - r)
    return np.concatenate((by_r, by_z, by_n), -1), np.concatenate((by_r, by_z, by_n * r), -1), g * z


def reference_gru(
    x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None, b_hh: Array | None = None
) -> Any:
    return reference_gru_gates(_linear(x, w_ih, b_ih), _linear(h, w_hh, b_hh), h)


# Samples.


def samples_of_cell(gates: int, states: int, variants: tuple[dict[str, Any], ...] = ({},)) -> Any:
    def cell(rng: Rng, batch: Shape, inputs: int, hidden: int, biases: int) -> tuple[Array, ...]:
        rows = gates * hidden
        parts = [uniform(rng, (*batch, inputs)), *(uniform(rng, (*batch, hidden)) for _ in range(states))]
        most = hidden**-0.5  # as a layer draws its weights
        weights = (uniform(rng, shape, -most, most) for shape in [(rows, inputs), (rows, hidden), *[(rows,)] * biases])
        return (*parts, *weights)

    def samples(rng: Rng) -> Iterator[Sample]:
        for given in variants:
            for biases in (0, 1, 2):
                yield Sample(cell(rng, (3,), 4, 5, biases), given)
            yield Sample(cell(rng, (), 4, 5, 2), given)
            yield Sample(cell(rng, (0,), 4, 5, 2), given)
            yield Sample(cell(rng, (2,), 0, 1, 2), given)
            x, *rest = cell(rng, (3,), 3, 2, 2)
            yield Sample((x.T, *rest), given)
            yield Sample(cell(rng, (17,), 65, 67, 2), given, smooth=False)

    return samples


def samples_of_gates(*counts: int, far: bool = True) -> Any:
    """Samples of several arrays; a count says how many states wide each is. `far`: also some where exp overflows."""

    def samples(rng: Rng) -> Iterator[Sample]:
        for shape in ((3, 5), (5,), (0, 5), (2, 3, 1)):
            yield Sample(tuple(uniform(rng, (*shape[:-1], n * shape[-1])) for n in counts))
        yield Sample(tuple(uniform(rng, (n * 4, 3)).T for n in counts))
        yield Sample(tuple(uniform(rng, (131, n * 257)) for n in counts), smooth=False)
        if far:
            yield Sample(tuple(uniform(rng, (3, n * 5)) * (200 if n > 1 else 1) for n in counts), smooth=False)

    return samples


# Over all steps.


def reference_rnn_sequence(given: Array, h: Array, w_hh: Array, *, nonlinearity: str = "tanh") -> Array:
    hs = []
    for x in given:
        y = x + _linear(h, w_hh, None)
        h = np.tanh(y) if nonlinearity == "tanh" else np.maximum(y, 0)
        hs.append(h)
    return np.stack(hs)


def reference_rnn_sequence_gradient(g: Array, hs: Array, w_hh: Array, *, nonlinearity: str = "tanh") -> Any:
    slopes, carried = np.zeros_like(hs), np.zeros_like(hs[0])
    for t in reversed(range(len(hs))):
        slopes[t] = (g[t] + carried) * (1 - hs[t] ** 2 if nonlinearity == "tanh" else hs[t] > 0)
        carried = _linear(slopes[t], w_hh.T, None)
    return slopes, carried


def reference_lstm_sequence(given: Array, h: Array, c: Array, w_hh: Array) -> Any:
    steps = []
    for x in given:
        sums = x + _linear(h, w_hh, None)
        h, c = reference_lstm_gates(sums, c)
        steps.append((h, c, sums))
    return tuple(np.stack(parts) for parts in zip(*steps, strict=True))


def reference_lstm_sequence_gradient(
    gh: Array, sums: Array, cs: Array, c: Array, w_hh: Array, gc: Array | None = None, gs: Array | None = None
) -> Any:
    slopes, by_h, by_c = np.zeros_like(sums), np.zeros_like(c), np.zeros_like(c)
    for t in reversed(range(len(sums))):
        by_c = by_c if gc is None else by_c + gc[t]
        found, by_c = reference_lstm_gates_gradient(gh[t] + by_h, by_c, sums[t], cs[t - 1] if t else c, cs[t])
        slopes[t] = found if gs is None else found + gs[t]
        by_h = _linear(slopes[t], w_hh.T, None)
    return slopes, by_h, by_c


def reference_gru_sequence(given: Array, h: Array, w_hh: Array, b_hh: Array | None = None) -> Any:
    steps = []
    for x in given:
        sums = _linear(h, w_hh, b_hh)
        h = reference_gru_gates(x, sums, h)
        steps.append((h, sums))
    return tuple(np.stack(parts) for parts in zip(*steps, strict=True))


def reference_gru_sequence_gradient(
    g: Array, given: Array, sums: Array, hs: Array, h: Array, w_hh: Array, gs: Array | None = None
) -> Any:
    by_given, by_sums, by_h = np.zeros_like(given), np.zeros_like(given), np.zeros_like(h)
    for t in reversed(range(len(given))):
        before = hs[t - 1] if t else h
        by_given[t], found, direct = reference_gru_gates_gradient(g[t] + by_h, given[t], sums[t], before)
        by_sums[t] = found if gs is None else found + gs[t]
        by_h = direct + _linear(by_sums[t], w_hh.T, None)
    return by_given, by_sums, by_h


def samples_of_sequence(kind: str, backward: bool = False) -> Any:
    """Samples of the op `kind`_sequence, or of its gradient: (time, batch, n) from one step of one to many of many."""
    gates, most_extra = {"rnn": (1, 0), "lstm": (4, 2 if backward else 0), "gru": (3, 1)}[kind]

    def inputs(rng: Rng, steps: int, batch: int, n: int, extra: int) -> tuple[Array, ...]:
        wide, states, state, rows = (steps, batch, gates * n), (steps, batch, n), (batch, n), gates * n
        weight = uniform(rng, (rows, n), -(n**-0.5), n**-0.5)
        if not backward:
            first = [uniform(rng, state) for _ in range(2 if kind == "lstm" else 1)]
            return (uniform(rng, wide), *first, weight, *[uniform(rng, (rows,))] * extra)
        between = {
            "rnn": lambda: [uniform(rng, states, -0.9, 0.9)],
            "lstm": lambda: [uniform(rng, wide), uniform(rng, states), uniform(rng, state)],
            "gru": lambda: [uniform(rng, wide), uniform(rng, wide), uniform(rng, states), uniform(rng, state)],
        }[kind]()
        others = [uniform(rng, states), uniform(rng, wide)] if kind == "lstm" else [uniform(rng, wide)]
        return (uniform(rng, states), *between, weight, *others[:extra])

    def samples(rng: Rng) -> Iterator[Sample]:
        for given in ({}, {"nonlinearity": "relu"}) if kind == "rnn" else ({},):
            for extra in range(most_extra + 1):
                yield Sample(inputs(rng, 3, 2, 3, extra), given)
            yield Sample(inputs(rng, 1, 1, 1, most_extra), given)
            yield Sample(inputs(rng, 2, 0, 3, 0), given)
            first, *rest = inputs(rng, 2, 3, 2, 0)
            yield Sample((first[::-1], *rest), given)
            yield Sample(inputs(rng, 6, 17, 67, most_extra), given, smooth=False)

    return samples
