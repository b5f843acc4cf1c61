"""Reverse-mode differentiation: accumulation, freed graphs, stale inputs, higher orders, custom rules."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hal
from hal.errors import GradientError


@pytest.fixture(autouse=True, params=["cpu", "fake"])
def on_each_kind_of_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", request.param)


def leaf(*values: float) -> hal.Tensor:
    return hal.tensor(list(values), requires_grad=True)


def grad_of(x: hal.Tensor) -> list[float]:
    assert x.grad is not None
    values: list[float] = x.grad.tolist()
    return values


def test_gradients_add_up_over_backwards_and_uses() -> None:
    x = leaf(1.0, 2.0)
    (x * x + x).sum().backward()
    assert grad_of(x) == [3.0, 5.0]
    (x * 2.0).sum().backward()
    assert grad_of(x) == [5.0, 7.0]
    x.grad = None
    (x * 2.0).sum().backward()
    assert grad_of(x) == [2.0, 2.0]


def test_gradients_of_two_leaves_do_not_share_memory() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (x + y).backward(hal.tensor([1.0, 1.0]))
    assert x.grad is not None
    x.grad.zero_()
    assert grad_of(y) == [1.0, 1.0]


def test_the_gradient_given_to_backward_is_not_kept() -> None:
    x, start = leaf(1.0, 2.0), hal.tensor([1.0, 1.0])
    (x + 0.0).backward(start)
    start.zero_()
    assert grad_of(x) == [1.0, 1.0]


def test_backward_of_a_leaf_itself() -> None:
    x = hal.tensor(2.0, requires_grad=True)
    x.backward()
    assert x.grad is not None
    assert x.grad.item() == 1.0


def test_the_graph_is_freed_unless_kept() -> None:
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert grad_of(x) == [4.0, 8.0]
    with pytest.raises(GradientError, match=r"the graph was freed by an earlier backward.*retain_graph=True"):
        y.backward()


def test_what_needs_no_gradient_gets_none() -> None:
    x, w = hal.tensor([1.0]), leaf(2.0)
    (x * w).sum().backward()
    assert x.grad is None
    assert grad_of(w) == [1.0]


def test_no_grad_enable_grad_and_set_grad_enabled() -> None:
    x = leaf(1.0)
    with hal.no_grad():
        assert not (x * 2.0).requires_grad
        with hal.enable_grad():
            assert (x * 2.0).requires_grad
        assert not hal.is_grad_enabled()
    assert (x * 2.0).requires_grad
    with hal.set_grad_enabled(False):
        assert not (x * 2.0).requires_grad
    hal.set_grad_enabled(False)
    assert not hal.is_grad_enabled()
    hal.set_grad_enabled(True)

    @hal.no_grad()
    def called() -> bool:
        return hal.is_grad_enabled()

    @hal.no_grad
    def bare() -> bool:
        return hal.is_grad_enabled()

    assert (called(), bare(), hal.is_grad_enabled()) == (False, False, True)


def test_recording_is_switched_per_thread() -> None:
    seen = []
    with hal.no_grad():
        thread = threading.Thread(target=lambda: seen.append(hal.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_higher_orders() -> None:
    x = leaf(1.0, 2.0)
    (first,) = hal.grad((x * x * x).sum(), x, create_graph=True)
    (second,) = hal.grad(first.sum(), x, create_graph=True)
    (third,) = hal.grad(second.sum(), x)
    assert (first.tolist(), second.tolist(), third.tolist()) == ([3.0, 12.0], [6.0, 12.0], [6.0, 6.0])


def test_grad_penalty_reaches_parameters() -> None:
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (g,) = hal.grad((w * x * x).sum(), x, create_graph=True)
    (g * g).sum().backward()
    assert grad_of(w) == [24.0, 128.0]


def test_grad_leaves_dot_grad_alone_and_checks_its_inputs() -> None:
    x, unused = leaf(1.0), leaf(1.0)
    hal.grad((x * 2.0).sum(), x)
    assert x.grad is None
    with pytest.raises(GradientError, match="input 1 was not used"):
        hal.grad((x * 2.0).sum(), [x, unused])
    assert hal.grad((x * 2.0).sum(), [x, unused], allow_unused=True)[1] is None
    with pytest.raises(GradientError, match="input 0 does not require a gradient"):
        hal.grad((x * 2.0).sum(), hal.tensor([1.0]))


def test_grad_of_something_in_the_middle() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3.0
    z = (y * y).sum()
    assert hal.grad(z, y)[0].tolist() == [6.0, 12.0]


def test_value_and_grad() -> None:
    value, (da, db) = hal.value_and_grad(lambda a, b: (a * b).sum(), argnums=(0, 1))(
        hal.tensor([2.0]), hal.tensor([5.0])
    )
    assert (value.item(), da.tolist(), db.tolist()) == (10.0, [5.0], [2.0])


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (lambda: hal.tensor([1.0]).sum(), "backward\\(\\) starts from a tensor that does not require a gradient"),
        (lambda: leaf(1.0, 2.0) * 2.0, r"without a gradient needs a single number, got shape \(2,\): sum\(\) it"),
    ],
)
def test_a_backward_that_cannot_start_says_why(start: Callable[[], hal.Tensor], message: str) -> None:
    with pytest.raises(GradientError, match=message):
        start().backward()


def test_a_gradient_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(GradientError, match=r"got a gradient of shape \(3,\) for a tensor of shape \(2,\)"):
        (leaf(1.0, 2.0) * 2.0).backward(hal.ones(3))


def test_integers_cannot_require_gradients() -> None:
    with pytest.raises(GradientError, match="only floating-point tensors can require gradients, this one is int64"):
        hal.tensor([1, 2], requires_grad=True)


def test_a_saved_tensor_changed_in_place_is_named_when_it_is_needed() -> None:
    x = leaf(1.0, 2.0)
    y = x * 2.0
    z = y * y
    y.add_(1.0)
    with pytest.raises(
        GradientError, match=r"the gradient of mul needs the contents of input [01], shape \(2,\).*clone\(\)"
    ):
        z.sum().backward()


def test_a_saved_result_changed_in_place_is_named() -> None:
    y = hal.exp(leaf(1.0, 2.0))
    y.mul_(2.0)
    with pytest.raises(GradientError, match="the gradient of exp needs the contents of the result"):
        y.sum().backward()


def test_an_in_place_change_that_no_gradient_needs_is_fine() -> None:
    x = leaf(1.0, -2.0)
    y = x + 1.0
    y.relu_()
    y.sum().backward()
    assert grad_of(x) == [1.0, 0.0]


def test_a_leaf_cannot_be_changed_in_place_while_recording() -> None:
    x = leaf(1.0)
    with pytest.raises(GradientError, match="add would change in place a leaf tensor that requires a gradient"):
        x.add_(1.0)
    with hal.no_grad():
        x.add_(1.0)
    x.data.mul_(10.0)
    assert x.tolist() == [20.0]


def test_custom_gradients() -> None:
    @hal.custom_gradient
    def clipped(x: hal.Tensor, y: hal.Tensor) -> Any:
        return x * y, lambda g: (g * 100.0, None)

    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    z = clipped(x, y)
    assert z.tolist() == [3.0, 8.0]
    z.sum().backward()
    assert grad_of(x) == [100.0, 100.0]
    assert y.grad is None


def test_several_results_get_their_own_gradients() -> None:
    x = leaf(3.0, 1.0, 2.0)
    values, _ = hal.ops.topk(x, k=2)
    (values * hal.tensor([10.0, 1.0])).sum().backward()
    assert grad_of(x) == [10.0, 0.0, 1.0]


def test_a_long_chain_does_not_run_out_of_stack() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(5000):
        y = y + 0.0
    y.sum().backward()
    assert grad_of(x) == [1.0]
    del y


def test_an_op_without_its_own_gradient_goes_through_its_decomposition() -> None:
    op = hal.Op(
        "twice_the_exp_for_a_test", lambda x: x, lambda x: 2 * np.exp(x), lambda rng: iter(()),
        decompose=lambda x: hal.exp(x) * 2.0,
    )  # fmt: skip
    x = leaf(0.0, 1.0)
    op(x).sum().backward()
    np.testing.assert_allclose(grad_of(x), 2 * np.exp([0.0, 1.0]), rtol=1e-6)
