"""Views share memory: the same programs give the same contents on devices with views and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hal
from hal.errors import ShapeError
from hal.views import strides_as


@pytest.fixture(autouse=True, params=["cpu", "fake"])
def on_each_kind_of_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", request.param)


def change_a_reshape(x: Any) -> Any:
    v = x.reshape(6)
    v[1:3] = 50.0
    return v


def change_the_base(x: Any) -> Any:
    v = x.reshape(3, 2)[1]
    x += 1.0
    return v


def change_a_view_of_a_view(x: Any) -> Any:
    v = x[:, 1:].T[0]
    v *= 10.0
    return v


def change_backwards(x: Any) -> Any:
    v = x.reshape(6)[1:6:2]
    v += 5.0
    w = x[1]
    w -= 1.0
    return v


def change_through_two_views(x: Any) -> Any:
    a, b = x[0], x[:, 0]
    a += 100.0
    b *= 2.0
    return a


def overlap(x: Any) -> Any:
    v = x.reshape(6)
    v[1:] = v[:5] * 1.0
    return v


PROGRAMS = [
    change_a_reshape, change_the_base, change_a_view_of_a_view, change_backwards, change_through_two_views, overlap,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_programs_mean_what_they_mean_in_numpy(program: Callable[[Any], Any]) -> None:
    want_base = np.arange(6, dtype=np.float32).reshape(2, 3)
    want = program(want_base)
    base = hal.arange(6, dtype=hal.float32).reshape(2, 3)
    got = program(base)
    assert base.tolist() == want_base.tolist()
    assert got.tolist() == want.tolist()


@pytest.mark.parametrize("program", PROGRAMS[:5], ids=lambda p: p.__name__)
def test_gradients_flow_through_changed_views(program: Callable[[Any], Any]) -> None:
    """The gradient of each element of the base is how often, and times what, it was used: a finite difference."""
    start = np.arange(6, dtype=np.float32).reshape(2, 3)
    weights = np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]], np.float32)

    def value(array: Any) -> float:
        base = array.copy()
        program(base)
        return float((base * weights).sum())

    want = np.zeros((2, 3), np.float32)
    for i in range(6):
        step = np.zeros(6, np.float32)
        step[i] = 1.0
        want.reshape(-1)[i] = value(start + step.reshape(2, 3)) - value(start)
    x = hal.tensor(start, requires_grad=True)
    base = x * 1.0
    program(base)
    (base * hal.tensor(weights)).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy() if x.device.type == "cpu" else x.grad.cpu().numpy(), want)


def test_detached_tensors_and_data_share_memory() -> None:
    x = hal.zeros(2, 2)
    x.detach().reshape(4)[3:4].fill_(7.0)
    x.data[0, 0] = 5.0
    assert x.tolist() == [[5.0, 0.0], [0.0, 7.0]]


def test_data_can_be_replaced() -> None:
    x = hal.zeros(2, requires_grad=True)
    x.data = hal.ones(3)
    assert (x.shape, x.tolist(), x.requires_grad) == ((3,), [1.0, 1.0, 1.0], True)


def test_a_broadcast_view_cannot_be_changed() -> None:
    x = hal.zeros(3)
    with pytest.raises(ShapeError, match=r"a broadcast view in place.*clone\(\)"):
        x.expand(2, 3).add_(1.0)
    assert x.tolist() == [0.0] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x.add_(hal.ones(4, 3)),
            r"add gives shape \(4, 3\), which cannot be put into a tensor of shape \(3,\) in place",
        ),
        (lambda x: x.long().mul_(1.5), r"mul gives float32, which cannot be put into a int64 tensor in place"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_and_changes_nothing(change: Callable[[Any], Any], message: str) -> None:
    x = hal.tensor([1.0, 2.0, 3.0])
    with pytest.raises(hal.errors.HalError, match=message):
        change(x)
    assert x.tolist() == [1.0, 2.0, 3.0]


def test_from_numpy_and_numpy_share_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")
    array = np.zeros(3, np.float32)
    x = hal.from_numpy(array)
    array[0] = 1.0
    x[1] = 2.0
    x.numpy()[2] = 3.0
    assert x.tolist() == array.tolist() == [1.0, 2.0, 3.0]


def test_a_result_is_contiguous_however_it_lies_in_memory() -> None:
    x = hal.conv2d(hal.ones(32, 3, 12, 12), hal.ones(8, 3, 3, 3))  # the CPU keeps the images last
    assert x.is_contiguous()
    assert x.contiguous() is x
    assert x.stride() == (800, 100, 10, 1)
    assert x.view(-1).is_contiguous()
    assert not x.permute(0, 2, 3, 1).is_contiguous()


def test_a_copy_shares_nothing() -> None:
    x = hal.zeros(2)
    for y in (x.clone(), hal.tensor(x), x + 0.0, x.to(hal.float64) if x.device.type == "cpu" else x.clone()):
        y.add_(1.0)
    assert x.tolist() == [0.0, 0.0]


# Which reshapes are views is the same on every device: those for which the elements need not be copied.


def test_a_reshape_that_has_to_copy_is_no_view() -> None:
    x = hal.tensor(np.arange(6.0).reshape(2, 3), dtype=hal.float32)
    for copy in (x.T.reshape(6), x[:, :2].reshape(4), hal.broadcast_to(x[0], (2, 3)).reshape(6)):
        copy += 100
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]
    for view in (x.reshape(6), x[None].reshape(3, 2), x.T[None].reshape(3, 2), x[::-1].reshape(2, 3, 1)):
        view += 100
    assert x.tolist() == [[400, 401, 402], [403, 404, 405]]


@pytest.mark.parametrize(
    ("take", "shape"),
    [
        (lambda x: x[:, 2:3, 0], (4,)),
        (lambda x: x[:, :, 3], (2, 2, 5)),
        (lambda x: x.transpose(0, 2, 1)[1:], (3, 2, 3, 5)),
        (lambda x: x[::2, ::-1], (1, 2, 5, 3, 2)),
        (lambda x: x[:0], (7, 0)),
        (lambda x: np.broadcast_to(x[0, 0, 0], (3, 4)), (6, 2)),
        (lambda x: x.T, (120,)),
        (lambda x: x[:, :4], (16, 6)),
        (lambda x: x[::2], (60,)),
        (lambda x: x[0, 0, 0], (1, 1)),
    ],
)
def test_a_reshape_is_a_view_where_one_of_numpy_is(take: Any, shape: tuple[int, ...]) -> None:
    memory = np.arange(120).reshape(4, 5, 6)
    x = np.asarray(take(memory))
    strides = strides_as(x.shape, tuple(s // 8 for s in x.strides), shape)
    wanted = x.reshape(shape)
    assert (strides is not None) == (np.shares_memory(wanted, x) or not x.size)
    if strides is not None and x.size:
        seen = np.lib.stride_tricks.as_strided(x, shape, [8 * s for s in strides])
        np.testing.assert_array_equal(seen, wanted)


def test_what_a_reshape_has_to_copy_is_what_numpy_copies() -> None:
    rng = np.random.default_rng(0)
    seen = {False: 0, True: 0}
    for _ in range(3000):
        x = np.empty(rng.integers(1, 5, rng.integers(1, 4)), np.int8)
        x = x.transpose(rng.permutation(x.ndim))[tuple(slice(None, None, s) for s in rng.choice([1, 2, -1], x.ndim))]
        if rng.random() < 0.3:
            x = np.broadcast_to(x, (2, *(3 if n == 1 else n for n in x.shape)))
        sizes, rest = [], x.size
        while rest > 1 and rng.random() < 0.8:
            sizes.append(int(rng.choice([n for n in range(1, rest + 1) if rest % n == 0])))
            rest //= sizes[-1]
        shape = tuple(int(n) for n in rng.permutation([*sizes, rest]))
        found, reshaped = strides_as(x.shape, x.strides, shape), x.reshape(shape)
        view = np.shares_memory(x, reshaped)
        assert (found is not None) == view, f"{x.shape} {x.strides} to {shape}"
        if found is not None:
            assert all(a == b for a, b, n in zip(found, reshaped.strides, shape, strict=True) if n > 1)
        seen[view] += 1
    assert min(seen.values()) > 300
