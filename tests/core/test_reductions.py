"""Reductions beyond their samples: sums that lose little, ties that share, decompositions of every length."""

from __future__ import annotations

import numpy as np
import pytest

import hal
from hal import ops
from hal.errors import ShapeError

Axis = int | tuple[int, ...] | None


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((70_000,), None), ((70_000, 3), 0), ((70_001, 1), 0), ((3, 70_001), 1), ((5, 300, 40), 1), ((300, 100), 0),
        ((40, 6, 11, 13), (0, 2, 3)), ((40, 600, 3), (0, 2)), ((2, 1000, 5, 7), (1,)), ((1_000_003,), 0), ((64, 5), 0),
    ],
)  # fmt: skip
def test_a_sum_of_equal_numbers_stays_within_the_bound(value: float, shape: tuple[int, ...], axis: Axis) -> None:
    # All roundings of one running sum go the same way here, so this is where summing one after another fails.
    x = np.full(shape, value, np.float32)
    want = x.sum(axis=axis, dtype=np.float64)
    terms = x.size // want.size

    for strided in (x, np.full(shape[::-1], value, np.float32).T):
        got = ops.sum(hal.from_numpy(strided), axis=axis).numpy()
        units = np.abs(got - want) / (2.0**-24 * want)
        assert units.max() <= min(terms, 8 + 2 * np.sqrt(terms)), f"{units.max():.0f} units"


def test_a_sum_takes_the_axes_of_a_permuted_array_from_where_they_are() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((30, 40, 5, 60), dtype=np.float32)
    for order in [(3, 1, 0, 2), (2, 3, 0, 1), (0, 2, 1, 3)]:
        moved = x.transpose(order)
        for axis in [(0,), (1, 3), (0, 2), (0, 1, 2), (2, 3)]:
            for keepdims in (False, True):
                got = ops.sum(hal.from_numpy(moved), axis=axis, keepdims=keepdims).numpy()
                np.testing.assert_allclose(got, moved.sum(axis=axis, keepdims=keepdims), rtol=1e-5)


@pytest.mark.parametrize("op", [ops.max, ops.min])
def test_ties_share_the_gradient_over_several_axes(op: hal.Op) -> None:
    x = hal.tensor([[[1.0, 3.0], [3.0, 0.0]], [[2.0, 2.0], [2.0, 2.0]]], requires_grad=True)
    (g,) = hal.grad(op(x, axis=(1, 2)), [x], [hal.tensor([6.0, 8.0])])
    hits = [[0.0, 3.0], [3.0, 0.0]] if op is ops.max else [[0.0, 0.0], [0.0, 6.0]]
    assert g.numpy().tolist() == [hits, [[2.0, 2.0], [2.0, 2.0]]]


@pytest.mark.parametrize("op", [ops.prod, ops.cumprod])
def test_products_have_their_gradients_where_there_are_zeros(op: hal.Op) -> None:
    x = hal.tensor([[2.0, 0.0, 3.0], [0.0, 5.0, 0.0]], requires_grad=True)
    (g,) = hal.grad(ops.sum(op(x, axis=1)), [x])
    assert g.numpy().tolist() == (
        [[0.0, 6.0, 0.0], [0.0, 0.0, 0.0]] if op is ops.prod else [[1.0, 8.0, 0.0], [6.0, 0.0, 0.0]]
    )


def test_logsumexp_has_a_finite_gradient_where_rows_are_masked() -> None:
    rows = [[-np.inf, -np.inf], [0.0, -np.inf], [np.inf, 0.0]]
    x = hal.tensor(rows, requires_grad=True)
    out = ops.logsumexp(x, axis=1)
    (g,) = hal.grad(ops.sum(out), [x])
    assert out.detach().numpy().tolist() == [-np.inf, 0.0, np.inf]
    assert g.numpy().tolist() == [[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("length", range(18))
def test_decompositions_take_every_length(length: int) -> None:
    x = np.random.default_rng(length).uniform(0.5, 1.5, (2, length)).astype(np.float32)
    for op, want in [(ops.prod, np.prod(x, 1)), (ops.cumsum, np.cumsum(x, 1)), (ops.cumprod, np.cumprod(x, 1))]:
        assert op.decompose is not None
        settings = {"keepdims": False} if op is ops.prod else {}
        np.testing.assert_allclose(op.decompose(hal.from_numpy(x), axis=1, **settings).numpy(), want, rtol=1e-5)


@pytest.mark.parametrize(
    ("op", "shape", "settings", "message"),
    [
        (ops.max, (0, 3), {"axis": 0}, r"max needs at least one element along the axes it reduces, got shape \(0, 3\)"),
        (ops.argmax, (3, 0), {"axis": 1}, r"argmax needs at least one element along its axis, got shape \(3, 0\)"),
        (ops.argmax, (3, 2), {"axis": (0, 1)}, r"argmax takes one axis or None for all, got axis=\(0, 1\)"),
        (ops.sum, (3, 2), {"axis": 2}, "sum got axis 2, but its input has 2 axes: use -2 to 1"),
        (ops.sum, (3, 2), {"axis": (0, -2)}, r"sum got axis \(0, -2\), which names an axis of its 2-axis input twice"),
    ],
)  # fmt: skip
def test_errors_say_what_was_needed(
    op: hal.Op, shape: tuple[int, ...], settings: dict[str, Axis], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        op(hal.zeros(shape), **settings)
