"""Optimizer steps: the formulas written out in plain numbers, and changes in place that equal those that are not."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest

import hal
from hal import ops
from hal.errors import DTypeError, ShapeError

P, G, LR = 0.8, 0.3, 0.1


def number(x: float) -> hal.Tensor:
    """A float64 tensor of one number."""
    return hal.tensor(np.array(x))


def sgd(weight_decay: float, maximize: bool) -> list[float]:
    g = -G if maximize else G
    return [P - LR * (g + weight_decay * P)]


def momentum(nesterov: bool, dampening: float) -> list[float]:
    buf = 0.9 * 0.2 + (1 - dampening) * G
    return [P - LR * (G + 0.9 * buf if nesterov else buf), buf]


def adam(weight_decay: float, decoupled: bool) -> list[float]:
    g = G if decoupled else G + weight_decay * P
    m, v = 0.9 * 0.2 + 0.1 * g, 0.99 * 0.05 + 0.01 * g**2
    start = P * (1 - LR * weight_decay) if decoupled else P
    return [start - LR * (m / (1 - 0.9**3)) / (sqrt(v / (1 - 0.99**3)) + 1e-3), m, v]


def rmsprop(momentum: float, centered: bool) -> list[float]:
    square, average = 0.9 * 0.4 + 0.1 * G**2, 0.9 * 0.01 + 0.1 * G
    step = G / (sqrt(square - average**2 if centered else square) + 1e-3)
    buf = momentum * 0.02 + step
    return [P - LR * (buf if momentum else step), square, *[buf] * bool(momentum), *[average] * centered]


def rmsprop_state(momentum: float, centered: bool) -> list[hal.Tensor]:
    return [*[number(0.02)] * bool(momentum), *[number(0.01)] * centered]


STEPS: list[tuple[Any, list[Any], dict[str, Any], list[float]]] = [
    (ops.sgd_step, [], {}, sgd(0.0, False)),
    (ops.sgd_step, [], {"weight_decay": 0.5, "maximize": True}, sgd(0.5, True)),
    (ops.sgd_momentum_step, [0.2], {}, momentum(False, 0.0)),
    (ops.sgd_momentum_step, [0.2], {"nesterov": True}, momentum(True, 0.0)),
    (ops.sgd_momentum_step, [0.2], {"dampening": 0.25}, momentum(False, 0.25)),
    (ops.adam_step, [0.2, 0.05], {}, adam(0.0, False)),
    (ops.adam_step, [0.2, 0.05], {"weight_decay": 0.5}, adam(0.5, False)),
    (ops.adam_step, [0.2, 0.05], {"weight_decay": 0.5, "decoupled": True}, adam(0.5, True)),
    *(
        (ops.rmsprop_step, [0.4], {"momentum": m, "centered": c}, rmsprop(m, c))
        for m in (0.0, 0.5)
        for c in (False, True)
    ),
    (ops.adagrad_step, [0.4], {}, [P - LR * G / (sqrt(0.4 + G**2) + 1e-10), 0.4 + G**2]),
]


@pytest.mark.parametrize(("op", "state", "settings", "want"), STEPS)
def test_a_step_of_one_number_follows_the_formula(
    op: Any, state: list[Any], settings: dict[str, Any], want: list[float]
) -> None:
    numbers = [number(LR)]
    if op is ops.adam_step:
        numbers += [number(1 - 0.9**3), number(1 - 0.99**3)]
        settings = {"beta2": 0.99, "eps": 1e-3, **settings}
    if op is ops.rmsprop_step:
        numbers += rmsprop_state(settings["momentum"], settings["centered"])
        settings = {"alpha": 0.9, "eps": 1e-3, **settings}
    inputs = [number(P), number(G), *map(number, state), *numbers]
    for run in (op, lambda *x, **s: op.decompose(*x, **op.bind(len(x), s))):
        result = run(*inputs, **settings)
        got = [r.item() for r in (result if isinstance(result, tuple) else (result,))]
        np.testing.assert_allclose(got, want, rtol=1e-12)


def same(x: np.ndarray) -> np.ndarray:
    return x.copy()


def every_other(x: np.ndarray) -> np.ndarray:
    """The same numbers, with gaps between them in memory."""
    wide = np.zeros(tuple(2 * n for n in x.shape), x.dtype)
    part = wide[tuple(slice(None, None, 2) for _ in x.shape)]
    part[...] = x
    return part


@pytest.mark.parametrize("layout", [same, np.asfortranarray, every_other])
@pytest.mark.parametrize("op", [ops.sgd_step, ops.sgd_momentum_step, ops.adam_step, ops.rmsprop_step, ops.adagrad_step])
def test_a_step_in_place_equals_one_that_is_not(op: Any, layout: Callable[[np.ndarray], np.ndarray]) -> None:
    """The results take the place of the parameter and its state, which the step reads: in any memory layout."""
    for sample in op.samples(np.random.default_rng(0)):
        arrays = [layout(np.array(x)) if x.ndim else np.array(x) for x in sample.inputs]
        result = op(*map(hal.tensor, sample.inputs), **sample.settings)
        want = [r.numpy() for r in (result if isinstance(result, tuple) else (result,))]
        tensors = [hal.from_numpy(x) for x in arrays]
        numbers = {ops.sgd_step: (2,), ops.sgd_momentum_step: (3,), ops.adam_step: (4, 5, 6)}.get(op, (3,))
        targets = tuple(t for i, t in enumerate(tensors) if i != 1 and i not in numbers)
        hal.run_into(targets, op, tuple(tensors), dict(sample.settings))
        for target, value in zip(targets, want, strict=True):
            np.testing.assert_array_equal(target.numpy(), value)
        np.testing.assert_array_equal(tensors[1].numpy(), sample.inputs[1])  # the gradient is only read


def test_a_parameter_of_half_precision_takes_a_float32_learning_rate() -> None:
    p = hal.tensor(np.array([1.0, 2.0], np.float16))
    g = hal.tensor(np.array([0.5, -0.5], np.float16))
    new = ops.sgd_step(p, g, hal.tensor(np.array(1e-3, np.float32)))
    assert new.dtype is hal.float16
    np.testing.assert_array_equal(new.numpy(), np.array([1 - 5e-4, 2 + 5e-4]).astype(np.float16))


def test_a_step_is_not_differentiated() -> None:
    p = hal.tensor([1.0], requires_grad=True)
    assert not ops.sgd_step(p, hal.tensor([1.0]), hal.tensor(0.1)).requires_grad


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda p, lr: ops.sgd_step(p, hal.ones(3), lr), ShapeError, "grad like its parameter"),
        (lambda p, lr: ops.sgd_step(p, hal.ones(2, dtype=hal.float64), lr), DTypeError, "grad like its parameter"),
        (lambda p, lr: ops.sgd_step(p, p, hal.ones(1)), ShapeError, "single number as its lr"),
        (lambda p, lr: ops.sgd_step(p, p, hal.tensor(0.1, dtype=hal.float64)), DTypeError, "lr in float32"),
        (lambda p, lr: ops.rmsprop_step(p, p, p, lr, centered=True), ShapeError, "needs average after lr"),
        (lambda p, lr: ops.sgd_step(p.long(), p.long(), lr), DTypeError, "int64"),
    ],
)
def test_a_step_that_does_not_fit_says_why(call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call(hal.ones(2), hal.tensor(0.1))
