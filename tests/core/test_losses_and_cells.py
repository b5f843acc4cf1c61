"""Losses, softmax, attention and recurrent cells beyond their samples: identities, conventions, and what errors say."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import pytest

import hal
from hal import ops
from hal.errors import DTypeError, SettingError, ShapeError

RNG = np.random.default_rng(3)


def randn(*shape: int, requires_grad: bool = False) -> hal.Tensor:
    """A float64 tensor of normal numbers."""
    return hal.tensor(RNG.normal(size=shape), requires_grad=requires_grad)


# --- losses -----------------------------------------------------------------------------------------------------------


def test_equal_scores_cost_the_logarithm_of_the_number_of_classes() -> None:
    loss = ops.cross_entropy(hal.zeros((3, 7)), hal.tensor([0, 6, 2]))
    assert loss.item() == pytest.approx(log(7), rel=1e-6)


def test_class_indices_and_certain_probabilities_cost_the_same() -> None:
    x, target = randn(4, 5, 3), hal.tensor(RNG.integers(0, 5, (4, 3)))
    certain = hal.tensor(np.moveaxis(np.eye(5)[target.numpy()], -1, 1))
    for settings in ({"reduction": "none"}, {"label_smoothing": 0.3}, {"reduction": "sum", "label_smoothing": 0.1}):
        want = ops.cross_entropy(x, target, **settings).numpy()
        np.testing.assert_allclose(ops.cross_entropy(x, certain, **settings).numpy(), want, rtol=1e-12)


def test_an_ignored_target_costs_nothing_and_moves_nothing() -> None:
    x = randn(3, 5, requires_grad=True)
    ops.cross_entropy(x, hal.tensor([1, -100, 2]), reduction="sum").backward()
    assert np.all(x.grad.numpy()[1] == 0)
    assert np.all(x.grad.numpy()[[0, 2]] != 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_where_all_targets_are_ignored_the_mean_is_nan_but_nothing_moves(smoothing: float) -> None:
    x = randn(3, 5, requires_grad=True)
    loss = ops.cross_entropy(x, hal.tensor([-100] * 3), label_smoothing=smoothing)
    loss.backward()
    assert np.isnan(loss.item())
    assert np.all(x.grad.numpy() == 0)


@pytest.mark.parametrize("op", [ops.cross_entropy, ops.nll_loss])
@pytest.mark.parametrize("wrong", [5, -1, -101])
def test_a_target_that_is_no_class_is_an_index_error(op: Any, wrong: int) -> None:
    x = randn(2, 5)
    with pytest.raises(IndexError, match=f"target {wrong} is no class"):
        op(x, hal.tensor([0, wrong]))


def test_a_loss_of_scores_that_are_far_apart_is_finite() -> None:
    x = hal.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = ops.cross_entropy(x, hal.tensor([1]))
    loss.backward()
    assert loss.item() == 2e4
    assert x.grad.tolist() == [[1.0, -1.0, 0.0]]
    far = ops.bce_with_logits(hal.tensor([200.0, -200.0]), hal.tensor([0.0, 1.0]), reduction="none")
    assert far.tolist() == [200.0, 200.0]


def test_a_confident_loss_keeps_its_last_digits() -> None:
    """log(1 + exp(-30)) is lost if it is added to 30 first, and then 30 taken away."""
    loss = ops.bce_with_logits(hal.tensor([30.0, -30.0]), hal.tensor([1.0, 0.0]), reduction="none")
    np.testing.assert_allclose(loss.numpy(), np.log1p(np.exp(-30.0)), rtol=1e-6)


# --- softmax ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 500), (70, 9), (2, 40_000), (5, 3, 2, 2)])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_probabilities_sum_to_one(shape: tuple[int, ...], axis: int) -> None:
    x = hal.tensor(RNG.normal(size=shape).astype(np.float32))
    p = ops.softmax(x, axis=axis).numpy()
    np.testing.assert_allclose(p.sum(axis, dtype=np.float64), 1, rtol=1e-6)
    np.testing.assert_allclose(np.log(p), ops.log_softmax(x, axis=axis).numpy(), atol=1e-5)


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3, 40, 8), (1, 2, 400, 16), (5, 7, 4)])
def test_causal_attention_is_attention_with_a_triangular_mask(shape: tuple[int, ...]) -> None:
    q, k, v = (randn(*shape, requires_grad=True) for _ in range(3))
    n = shape[-2]
    mask = hal.tensor(np.tri(n, dtype=bool))
    g = randn(*shape)
    a = ops.attention(q, k, v, causal=True)
    b = ops.attention(q, k, v, mask)
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-12)
    for x, y in zip(hal.grad(a, [q, k, v], g), hal.grad(b, [q, k, v], g), strict=True):
        np.testing.assert_allclose(x.numpy(), y.numpy(), atol=1e-11)


def test_a_query_that_may_attend_to_nothing_gets_zeros_and_gives_none() -> None:
    q, k, v = (randn(4, 3, requires_grad=True) for _ in range(3))
    mask = hal.tensor([[False] * 4, [True] * 4, [False] * 4, [True, False, True, False]])
    out = ops.attention(q, k, v, mask)
    out.sum().backward()
    assert np.all(out.detach().numpy()[[0, 2]] == 0)
    assert np.all(q.grad.numpy()[[0, 2]] == 0)
    assert all(np.all(np.isfinite(x.grad.numpy())) for x in (q, k, v))


def test_heads_may_share_keys_and_values() -> None:
    q, k, v = randn(2, 4, 5, 3), randn(2, 1, 6, 3), randn(2, 1, 6, 2)
    repeated = ops.attention(q, ops.broadcast_to(k, shape=(2, 4, 6, 3)), ops.broadcast_to(v, shape=(2, 4, 6, 2)))
    np.testing.assert_allclose(ops.attention(q, k, v).numpy(), repeated.numpy(), rtol=1e-12)


# --- recurrent cells --------------------------------------------------------------------------------------------------


def test_an_lstm_whose_gates_are_shut_keeps_its_memory() -> None:
    gates = hal.tensor([[-1e3, 1e3, 5.0, 1e3]], dtype=hal.float64)  # nothing in, all kept, all shown
    h, c = ops.lstm_gates(gates, hal.tensor([[0.7]], dtype=hal.float64))
    assert c.item() == 0.7
    assert h.item() == pytest.approx(np.tanh(0.7), rel=1e-12)


@pytest.mark.parametrize("which", [0, 1])
def test_one_of_the_two_results_of_an_lstm_may_go_without_a_gradient(which: int) -> None:
    x, h, c, w_ih, w_hh = (randn(*s, requires_grad=True) for s in ((3, 4), (3, 2), (3, 2), (8, 4), (8, 2)))
    weight = randn(3, 2)
    ops.lstm_cell(x, h, c, w_ih, w_hh)[which].backward(weight)
    got = [t.grad.numpy() for t in (x, h, c, w_ih, w_hh)]
    result = ops.lstm_cell.decompose(*(t.detach() for t in (x, h, c, w_ih, w_hh)))[which]
    assert result.shape == (3, 2)
    for t in (x, h, c, w_ih, w_hh):
        t.grad = None
    ops.lstm_cell.decompose(x, h, c, w_ih, w_hh)[which].backward(weight)
    for t, g in zip((x, h, c, w_ih, w_hh), got, strict=True):
        np.testing.assert_allclose(g, t.grad.numpy(), atol=1e-12)


def test_a_gru_with_its_update_gate_open_keeps_its_state() -> None:
    gi = hal.tensor([[0.0, 1e3, 3.0]], dtype=hal.float64)
    assert ops.gru_gates(gi, gi * 0, hal.tensor([[0.7]], dtype=hal.float64)).item() == 0.7


# --- errors -----------------------------------------------------------------------------------------------------------

INDICES = hal.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (
            lambda x: ops.cross_entropy(x, hal.tensor([0, 1, 2])),
            ShapeError,
            r"shape \(2,\) for scores of shape \(2, 3\)",
        ),
        (lambda x: ops.cross_entropy(x, hal.zeros((3, 2))), ShapeError, "if it holds class indices"),
        (lambda x: ops.nll_loss(x, hal.zeros(2)), DTypeError, "int64 class indices"),
        (lambda x: ops.cross_entropy(x, hal.tensor([True, False])), DTypeError, "or probabilities"),
        (lambda x: ops.cross_entropy(x, INDICES, hal.ones(2)), ShapeError, "each of 3 classes"),
        (lambda x: ops.cross_entropy(x, INDICES, reduction="avg"), SettingError, "mean, sum, none"),
        (lambda x: ops.cross_entropy(x, INDICES, label_smoothing=1.5), SettingError, "between 0 and 1"),
        (lambda x: ops.cross_entropy(hal.tensor(1.0), hal.tensor(0)), ShapeError, "single number"),
        (lambda x: ops.bce_with_logits(x, hal.zeros(3)), ShapeError, "reshape one of them"),
        (lambda x: ops.mse_loss(x, hal.zeros(4)), ShapeError, "mse_loss"),
        (lambda x: ops.huber_loss(x, x, delta=0.0), SettingError, "delta above 0"),
        (lambda x: ops.softmax(x, axis=2), ShapeError, "softmax got axis 2"),
        (lambda x: ops.attention(x, x, hal.zeros((3, 3))), ShapeError, "queries"),
        (lambda x: ops.attention(x, x, x, hal.zeros((3, 3))), ShapeError, "mask that broadcasts"),
        (lambda x: ops.attention(x, x, x, hal.zeros((2, 2), dtype=hal.int64)), DTypeError, "mask of bool"),
        (lambda x: ops.embedding(x, x), DTypeError, "integer indices"),
        (lambda x: ops.embedding(hal.zeros(3), INDICES), ShapeError, "rows, features"),
        (lambda x: ops.embedding(x, INDICES, padding_idx=2), SettingError, "2 rows"),
        (lambda x: ops.embedding(x, hal.tensor([7])), IndexError, "table of 2 rows"),
        (lambda x: ops.rnn_cell(x, hal.zeros(4), x, x), ShapeError, "both without batch"),
        (lambda x: ops.gru_cell(x, hal.zeros((2, 4)), hal.zeros((4, 3)), hal.zeros((4, 4))), ShapeError, r"\(12, 3\)"),
        (
            lambda x: ops.rnn_cell(x, x, hal.zeros((3, 3)), hal.zeros((3, 3)), nonlinearity="sin"),
            SettingError,
            "tanh, relu",
        ),
        (lambda x: ops.lstm_gates(x, x), ShapeError, "4 gates side by side"),
    ],
)
def test_a_call_that_does_not_fit_says_why(call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call(hal.ones((2, 3)))
