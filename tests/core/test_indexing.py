"""x[key] and x[key] = value against NumPy, on a device with views and on one without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hal
from hal.errors import GradientError, ShapeError

S = np.s_


@pytest.fixture(autouse=True, params=["cpu", "fake"])
def on_each_kind_of_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", request.param)


def array(shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


MASK = (array((4, 5)) % 3) == 0
ROWS = np.array([True, False, True, True])

# Keys that NumPy and torch read alike.
BASIC = [
    S[0], S[-1], S[1, 2], S[1, 2, 3], S[1, -2, -3], S[:], S[...], S[()], S[1:3], S[1:3, 2], S[..., 0], S[..., -1, 2:],
    S[:, 1], S[:, :, 1], S[::2], S[1::2, ::3], S[None], S[:, None], S[..., None], S[None, 1, None, 2:4],
    S[1, ..., None, 2], S[5:2], S[10:], S[-100:100], S[2:2, 1], S[::-1], S[3:0:-2], S[:, ::-1, ::-2], S[::-1, 2],
    S[np.int64(1)], S[np.array(2)], S[:, np.uint8(3)], S[None, None, ..., None],
]  # fmt: skip
ADVANCED = [
    S[[0, 2]], S[[2, 0, 2, -1]], S[[]], S[[[0, 1], [2, 3]]], S[np.array([3, 1], np.int32)], S[:, [1, 3]],
    S[..., [0, -1]], S[[0, 1], [2, 3]], S[[0, 1], :, [2, 3]], S[:, [0, 1], [2, 3]], S[[[0], [1]], [2, 3]],
    S[[0, 1], [2, 3], [4, 5]], S[1:3, [0, 4]], S[1:3, [0, 4], ::2], S[::-1, [0, 4]], S[None, [0, 1]],
    S[[0, 1], None, [2, 3]], S[range(3)], S[np.array([], np.int64)], S[[1], :, ::-1], S[:, [[1, 2]], 1:3],
    S[np.array([0, 3], np.uint8), [1, 1]], S[[0, 1], ..., [1, 2]],
]  # fmt: skip
MASKS = [
    S[MASK], S[ROWS], S[ROWS, 1], S[:, MASK.T[:5, :4].T[0]], S[ROWS, :, 2:4], S[MASK, 2], S[MASK, ::2], S[True],
    S[False], S[..., array((6,)) > 2], S[~MASK & False], S[ROWS, ..., array((6,))[:3].astype(int)],
    S[:, [True, False, True, False, True]], S[array() > 50], S[ROWS.tolist()], S[None, MASK], S[1:3, MASK[0]],
    S[ROWS, [0, 1, 2]],
]  # fmt: skip


def on_device(key: Any) -> Any:
    """The key with its arrays as tensors."""
    if isinstance(key, tuple):
        return tuple(on_device(k) for k in key)
    return hal.tensor(key) if isinstance(key, np.ndarray) else key


@pytest.mark.parametrize("convert", [lambda k: k, on_device], ids=["as it is", "tensors"])
@pytest.mark.parametrize("key", BASIC + ADVANCED + MASKS, ids=str)
def test_reading_agrees_with_numpy(key: Any, convert: Callable[[Any], Any]) -> None:
    x = array()
    got = hal.tensor(x)[convert(key)]
    np.testing.assert_array_equal(got.detach().cpu().numpy(), x[key])


@pytest.mark.parametrize("key", BASIC, ids=str)
def test_numbers_and_slices_give_a_view(key: Any) -> None:
    x = hal.tensor(array())
    view = x[key]
    expected = array()
    expected[key] += 100
    view += 100.0
    np.testing.assert_array_equal(x.cpu().numpy(), expected)


@pytest.mark.parametrize("key", ADVANCED + MASKS, ids=str)
def test_lists_and_masks_give_a_copy(key: Any) -> None:
    x = hal.tensor(array())
    x[key].add_(100.0)
    np.testing.assert_array_equal(x.cpu().numpy(), array())


def test_numbers_beside_lists_are_taken_first() -> None:
    """torch's rule; NumPy counts the number as one of the lists and puts the new axis in front."""
    x = array()
    assert hal.tensor(x)[0, :, [1, 2, 3]].shape == (5, 3)
    np.testing.assert_array_equal(hal.tensor(x)[0, :, [1, 2, 3]].cpu().numpy(), x[0][:, [1, 2, 3]])
    np.testing.assert_array_equal(hal.tensor(x)[:, 1, [0, 2]].cpu().numpy(), x[:, 1][:, [0, 2]])


def test_a_single_number_in_a_tensor_is_a_number() -> None:
    x = hal.tensor(array())
    assert x[hal.tensor(2)].shape == (5, 6)
    assert x[:, hal.tensor(-1), 1:].tolist() == array()[:, -1, 1:].tolist()


def test_a_key_on_another_device_is_brought_along() -> None:
    x = hal.tensor(array())
    index = hal.tensor([2, 0], device="cpu")
    np.testing.assert_array_equal(x[index].cpu().numpy(), array()[[2, 0]])
    np.testing.assert_array_equal(
        x[:, hal.tensor([0, 1], device="cpu"), index].cpu().numpy(), array()[:, [0, 1], [2, 0]]
    )


@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 2), (1, 1)])
def test_small_and_empty_tensors(shape: tuple[int, ...]) -> None:
    x = array(shape)
    for key in (S[...], S[None], S[..., None]):
        assert hal.tensor(x)[key].tolist() == x[key].tolist()


WRONG = [
    (S[4], "index 4 is out of range for axis 0 of size 4"),
    (S[:, -6], "index -6 is out of range for axis 1 of size 5"),
    (S[0, 0, 0, 0], "too many indices: 4 for a tensor with 3 axes"),
    (S[..., 0, ...], "one ellipsis"),
    (S[[0, 4]], "index 4 is out of"),
    (S[[0, 1], [0, 7]], "index 7 is out of range for axis 1 of size 5"),
    (S[[0, 1], [0, -7]], "index -7 is out of range for axis 1 of size 5"),
    (S[np.array([True, False])], "a mask of shape"),
    (S[:, np.ones((5, 5), bool)], "a mask of shape"),
    (S[1.0], "an index is made of"),
    (S["a"], "an index is made of"),
    (S[[0.5]], "an index is made of"),
    (S[::0], "a step that is not 0"),
    (S[1.5:], "whole numbers"),
]


@pytest.mark.parametrize(("key", "message"), WRONG, ids=str)
def test_what_is_no_index_is_an_index_error(key: Any, message: str) -> None:
    x = hal.tensor(array())
    with pytest.raises(IndexError, match=message):
        x[key]
    with pytest.raises(IndexError, match=message):
        x[key] = 0.0
    assert x.tolist() == array().tolist()


def test_lists_that_do_not_broadcast_are_a_shape_error() -> None:
    with pytest.raises(ShapeError, match="broadcast"):
        hal.tensor(array())[[0, 1], [0, 1, 2]]


# Assignment.


@pytest.mark.parametrize("key", BASIC + ADVANCED + MASKS, ids=str)
@pytest.mark.parametrize("what", ["number", "row", "whole", "list"])
def test_assignment_agrees_with_numpy(key: Any, what: str) -> None:
    x, expected = hal.tensor(array()), array()
    part = expected[key]
    values = np.arange(part.size, dtype=np.float32).reshape(part.shape) - 500
    value: Any = -1.5
    if what == "row" and part.ndim and part.size:
        value = values[(0,) * (part.ndim - 1)]
    elif what == "whole" or (what == "list" and not part.size):  # an empty list has lost its shape
        value = hal.tensor(values)
    elif what == "list":
        value = values.tolist()
    expected[key] = values if hal.is_tensor(value) else value
    x[key] = value
    np.testing.assert_array_equal(x.cpu().numpy(), expected)


@pytest.mark.parametrize("key", BASIC + ADVANCED + MASKS, ids=str)
def test_assignment_through_a_transposed_view_reaches_the_base(key: Any) -> None:
    base, expected = hal.tensor(array((6, 5, 4))), array((6, 5, 4))
    base.permute(2, 1, 0)[key] = -7.0
    expected.transpose(2, 1, 0)[key] = -7.0
    np.testing.assert_array_equal(base.cpu().numpy(), expected)


def test_assignment_converts_to_the_dtype_of_the_tensor() -> None:
    x = hal.arange(4)
    x[1], x[2:] = 2.9, hal.tensor([7.9, -7.9])
    assert x.tolist() == [0, 2, 7, -7]
    assert x.dtype is hal.int64


def test_assignment_to_itself_shifted() -> None:
    x = hal.arange(6)
    x[1:] = x[:-1]
    assert x.tolist() == [0, 0, 1, 2, 3, 4]
    x[[0, 5]] = x[[5, 0]]
    assert x.tolist() == [4, 0, 1, 2, 3, 0]


def test_of_equal_numbers_the_last_wins() -> None:
    x = hal.zeros(3)
    x[[0, 1, 0]] = hal.tensor([1.0, 2.0, 3.0])
    assert x.tolist() == [3.0, 2.0, 0.0]


def test_leading_ones_of_the_value_do_not_matter() -> None:
    x = hal.zeros(2, 3)
    x[0] = hal.ones(1, 1, 3)
    x[[1]] = hal.ones(1, 1, 3) * 2
    assert x.tolist() == [[1, 1, 1], [2, 2, 2]]


@pytest.mark.parametrize("key", [S[0], S[[0, 1]], S[np.array([True, False])], S[:, 1:]], ids=str)
def test_a_value_that_does_not_fit_changes_nothing(key: Any) -> None:
    x = hal.zeros(2, 3)
    with pytest.raises(ShapeError):
        x[key] = hal.ones(4, 5, 7)
    assert not x.any()


# Gradients.


@pytest.mark.parametrize("key", BASIC + ADVANCED + MASKS, ids=str)
def test_the_gradient_of_reading(key: Any) -> None:
    x = hal.tensor(array(), requires_grad=True)
    part = x[key]
    weights = np.arange(1, part.numel() + 1, dtype=np.float32).reshape(part.shape)
    (part * hal.tensor(weights)).sum().backward()
    expected = np.zeros_like(array())
    np.add.at(expected, key, weights)
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.cpu().numpy(), expected)


@pytest.mark.parametrize("key", BASIC + ADVANCED + MASKS, ids=str)
def test_the_gradient_of_assignment(key: Any) -> None:
    shape = array()[key].shape
    x = hal.tensor(array(), requires_grad=True)
    value = hal.ones(shape, requires_grad=True)
    y = x * 2.0
    y[key] = value * 5.0
    weights = array() + 1
    (y * hal.tensor(weights)).sum().backward()

    touched = np.zeros_like(weights, dtype=bool)
    touched[key] = True
    if not touched.all():  # else nothing of x is left in y
        assert x.grad is not None
        np.testing.assert_array_equal(x.grad.cpu().numpy(), np.where(touched, 0, 2 * weights))
    if np.unique(np.arange(120).reshape(4, 5, 6)[key]).size == np.prod(shape):  # no element is assigned twice
        assert value.grad is not None
        np.testing.assert_array_equal(value.grad.cpu().numpy(), 5 * weights[key])


def test_a_value_that_requires_a_gradient_gives_the_tensor_a_history() -> None:
    value = hal.tensor(3.0, requires_grad=True)
    x = hal.zeros(3)
    x[1] = value
    (x * x).sum().backward()
    assert value.grad is not None
    assert value.grad.item() == 6.0


def test_a_leaf_that_requires_a_gradient_is_not_assigned_to() -> None:
    x = hal.zeros(3, requires_grad=True)
    with pytest.raises(GradientError, match="leaf"):
        x[0] = 1.0
    with pytest.raises(GradientError, match="leaf"):
        x[0].fill_(1.0)
    with hal.no_grad():
        x[0] = 1.0
    assert x.tolist() == [1.0, 0.0, 0.0]


def test_masks_and_prints_that_wait_for_a_device_are_counted() -> None:
    x = hal.tensor(array())
    with hal.placement_report() as report:
        x[x > 3] = 0.0  # chosen on the device: nobody waits
        waited = len(report.syncs)
        x[x == 0]
    assert waited == 0
    assert len(report.syncs) == (0 if x.device.backend.host_memory else 1)
