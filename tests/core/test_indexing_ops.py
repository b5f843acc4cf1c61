"""Indexing and sorting beyond their samples: duplicates, ties, what is out of range, and writing into an input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hal
from hal import ops
from hal.dispatch import run_into
from hal.errors import DTypeError, ShapeError

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


def tensors(*arrays: Array) -> list[hal.Tensor]:
    return [hal.from_numpy(x) for x in arrays]


# Few rows or many, narrow or wide, each index once, often, or nearly always the same: the kernel has a way for each.
@pytest.mark.parametrize("skew", ["once", "often", "same"])
@pytest.mark.parametrize(
    ("places", "row", "n"),
    [(5, 300, 40), (300, 50, 900), (300, 4, 900), (40_000, 4, 900), (40_000, 64, 900), (3, 1, 70_000)],
)
def test_index_add_adds_every_update(places: int, row: int, n: int, skew: str) -> None:
    rng = np.random.default_rng(0)
    index = rng.integers(-places, places, n)
    if skew == "once":
        n = min(n, places)
        index = rng.permutation(places)[:n]
    if skew == "same":
        index[: n - n // 50] = places // 2
    x, updates = np.zeros((places, row), np.float32), np.full((n, row), 0.1, np.float32)
    want = np.zeros((places, row))
    np.add.at(want, index, updates.astype(np.float64))

    got = ops.index_add(*tensors(x, index, updates), axis=0).numpy()

    terms = int(np.bincount(index % places).max())
    bound = min(terms, 8 + 2 * np.sqrt(terms)) * 2.0**-24 * want
    assert (np.abs(got - want) <= bound).all()


def test_index_add_works_along_a_middle_axis() -> None:
    rng = np.random.default_rng(0)
    for front, places, row, n in [(3, 7, 40, 30), (200, 7, 1, 3), (3, 700, 2, 500), (70, 50, 33, 80)]:
        x, updates = rng.random((front, places, row)), rng.random((front, n, row))
        index = rng.integers(0, places, n)
        want = x.copy()
        for k, place in enumerate(index):
            want[:, place] += updates[:, k]
        np.testing.assert_allclose(ops.index_add(*tensors(x, index, updates), axis=1).numpy(), want, rtol=1e-12)


@pytest.mark.parametrize("native", [True, False])
def test_of_equal_indices_the_last_one_stays(native: bool) -> None:
    rng = np.random.default_rng(0)
    index = rng.integers(-4, 4, (30, 5))
    x, values = np.zeros((2, 4)), rng.random((2, 30, 5))
    put = ops.put if native else ops.put.decompose
    scatter = ops.scatter if native else ops.scatter.decompose
    assert put is not None
    assert scatter is not None
    want = x.copy()
    for i, place in enumerate(index.ravel()):
        want[:, place] = values.reshape(2, -1)[:, i]

    assert put(*tensors(x, index, values), axis=1).numpy().tolist() == want.tolist()

    rows = np.stack([index.ravel(), index.ravel()])
    assert scatter(*tensors(x, rows, values.reshape(2, -1)), axis=1).numpy().tolist() == want.tolist()


def test_an_overwritten_value_has_no_gradient() -> None:
    x = hal.tensor([1.0, 2.0, 3.0], requires_grad=True)
    values = hal.tensor([4.0, 5.0, 6.0], requires_grad=True)
    index = hal.tensor([2, 0, 2])
    for out in (ops.put(x, index, values, axis=0), ops.scatter(x, index, values, axis=0)):
        of_x, of_values = hal.grad(out, [x, values], [hal.tensor([10.0, 20.0, 30.0])])
        assert of_x.numpy().tolist() == [0.0, 20.0, 0.0]
        assert of_values.numpy().tolist() == [0.0, 10.0, 30.0]


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("n", "k"), [(7, 3), (300, 1), (1000, 5), (1003, 60), (40_000, 7)])
@pytest.mark.parametrize("values", ["distinct", "ties", "one value", "nan", "infinite"])
def test_topk_is_the_front_of_a_stable_sort(n: int, k: int, values: str, largest: bool) -> None:
    rng = np.random.default_rng(n)
    x = rng.permutation(4 * n).reshape(4, n).astype(np.float32)
    if values == "ties":
        x = rng.integers(0, 20, (4, n)).astype(np.float32)
    if values == "one value":
        x[:] = 3
    if values == "nan":
        x[1:3, rng.integers(0, n, 3)] = np.nan
    if values == "infinite":
        x[:, rng.integers(0, n, 10)] = np.inf
        x[:, rng.integers(0, n, 10)] = -np.inf

    for axis, given in ((1, x), (0, x.T)):
        got, where = ops.topk(*tensors(given), k=k, axis=axis, largest=largest)
        want = ops.topk.reference(given, k=k, axis=axis, largest=largest)
        np.testing.assert_array_equal(where.numpy(), want[1])
        np.testing.assert_array_equal(got.numpy(), want[0])


@pytest.mark.parametrize("length", range(1, 35))
def test_the_sorting_network_takes_every_length(length: int) -> None:
    rng = np.random.default_rng(length)
    x = rng.integers(0, max(length // 2, 1), (3, length)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[rng.random(x.shape) < 0.1] = np.inf
    x[rng.random(x.shape) < 0.1] = -np.inf
    assert ops.argsort.decompose is not None
    for descending in (False, True):
        got = ops.argsort.decompose(*tensors(x), axis=1, descending=descending, stable=True)
        np.testing.assert_array_equal(got.numpy(), ops.argsort.reference(x, axis=1, descending=descending))


def test_sort_keeps_the_signs_of_zeros() -> None:
    x = np.array([0.0, -0.0, 1.0, -0.0, 0.0, -1.0], np.float32)
    assert np.signbit(ops.sort(*tensors(x), axis=0).numpy()).tolist() == [True, False, True, True, False, False]
    back = ops.sort(*tensors(x), axis=0, descending=True)
    assert np.signbit(back.numpy()).tolist() == [False, False, True, True, False, True]


def test_small_index_types_reach_the_end_of_a_long_axis() -> None:
    x = np.arange(200, dtype=np.float32)
    index = np.array([-1, 100, -128], np.int8)
    for op in (ops.put, ops.scatter):
        assert op.decompose is not None
        got = op.decompose(*tensors(x, index, np.zeros(3, np.float32)), axis=0).numpy()
        assert np.flatnonzero(got == 0).tolist() == [0, 72, 100, 199]


def test_a_kernel_may_write_into_its_input() -> None:
    x = hal.arange(6, dtype=hal.float32)
    view = ops.slice(x, start=(0,), stop=(4,), step=(1,))
    run_into((x,), ops.slice_update, (x, view), {"start": (2,), "stop": (6,), "step": (1,)})
    assert x.numpy().tolist() == [0.0, 1.0, 0.0, 1.0, 2.0, 3.0]
    run_into((x,), ops.index_add, (x, hal.tensor([0, 0, 1, 1, 2, 2]), x), {"axis": 0})
    assert x.numpy().tolist() == [1.0, 2.0, 5.0, 1.0, 2.0, 3.0]
    run_into((x,), ops.put, (x, hal.tensor([5, 4, 3, 2, 1, 0]), x), {"axis": 0})
    assert x.numpy().tolist() == [3.0, 2.0, 1.0, 5.0, 2.0, 1.0]
    run_into((x,), ops.scatter_add, (x, hal.tensor([0, 0, 0, 0, 0, 5]), x), {"axis": 0})
    assert x.numpy().tolist() == [16.0, 2.0, 1.0, 5.0, 2.0, 2.0]


@pytest.mark.parametrize("op", [ops.take, ops.put, ops.index_add, ops.gather, ops.scatter, ops.scatter_add])
def test_an_index_out_of_range_is_named(op: hal.Op) -> None:
    x, index, values = hal.zeros((4,)), hal.tensor([0, -5]), hal.zeros((2,))
    with pytest.raises(IndexError, match=rf"{op.name} got index -5 into axis 0 of shape \(4,\): use -4 to 3"):
        op(x, index, *(() if op in (ops.take, ops.gather) else (values,)), axis=0)


@pytest.mark.parametrize(
    ("op", "shapes", "settings", "message"),
    [
        (ops.take, [(0, 3), (2,)], {"axis": 0}, r"take got 2 indices into axis 0 of \(0, 3\), which is empty"),
        (ops.index_add, [(4, 3), (2,), (2, 4)], {"axis": 0}, r"needs updates of shape \(2, 3\), got \(2, 4\)"),
        (ops.put, [(4, 3), (2,), (4,)], {"axis": 0}, r"put needs values that broadcast to \(2, 3\)"),
        (ops.gather, [(4, 3), (5, 2)], {"axis": 1}, r"gather needs an index with the axes of its input, none longer"),
        (ops.scatter, [(4, 3), (2, 3), (2, 2)], {"axis": 1}, r"scatter needs a single value, or one for each index"),
        (ops.one_hot, [(3,)], {"classes": 0}, "one_hot needs one class or more, got classes=0"),
    ],
)  # fmt: skip
def test_errors_say_what_was_needed(
    op: hal.Op, shapes: list[tuple[int, ...]], settings: dict[str, int], message: str
) -> None:
    whole = 0 if op is ops.one_hot else 1
    given = [hal.zeros(s, dtype=hal.int64 if i == whole else hal.float32) for i, s in enumerate(shapes)]
    with pytest.raises(ShapeError, match=message):
        op(*given, **settings)


def test_indices_must_be_integers() -> None:
    with pytest.raises(DTypeError, match="take needs integer indices, got bool; for a mask use"):
        ops.take(hal.zeros((3,)), hal.tensor([True, False, True]), axis=0)


def test_topk_takes_no_more_than_there_is() -> None:
    with pytest.raises(ShapeError, match=r"topk got k=4, but axis -1 of \(2, 3\) has 3 elements"):
        ops.topk(hal.zeros((2, 3)), k=4)
