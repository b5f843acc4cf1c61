"""Fake devices: what they declare holds, views share memory, and work that runs later gives what it would now."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import hal
from hal import dtypes, ops
from hal.errors import DeviceError
from hal.testing import later
from hal.testing.fake import Fake
from hal.testing.later import Later, Trail

ASYNCHRONOUS = {"asynchronous": True, "views": True, "out": True, "host_memory": True, "dtypes": dtypes.ALL}


def array(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


# views


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("permute", {"axes": (2, 0, 1)}),
        ("permute", {"axes": (-1, 0, -2)}),
        ("broadcast_to", {"shape": (5, 3, 4, 6)}),
        ("reshape", {"shape": (6, 12)}),
        ("slice", {"start": (1, 3, 5), "stop": (3, -1, 0), "step": (1, -2, -1)}),
        ("slice", {"start": (1, 1, 1), "stop": (1, 4, 6), "step": (1, 1, 1)}),
    ],
)
def test_a_view_shows_what_the_reference_says_and_shares_memory(name: str, settings: dict) -> None:
    op = ops.TABLE[name]
    with Fake("viewing", views=True).registered() as backend:
        x = hal.tensor(array(3, 4, 6), device="viewing")
        y = op(x, **settings)
        assert backend.shares(y.buffer, x.buffer)
        np.testing.assert_array_equal(y.cpu().numpy(), op.reference(array(3, 4, 6), **settings))


def test_views_of_views_add_up() -> None:
    with Fake("viewing", views=True).registered() as backend:
        x = hal.tensor(array(4, 6), device="viewing")
        y = x[1:, ::-2].T[1:]
        assert backend.shares(y.buffer, x.buffer)
        np.testing.assert_array_equal(y.cpu().numpy(), array(4, 6)[1:, ::-2].T[1:])
        y.mul_(10.0)
        expected = array(4, 6)
        expected[1:, ::-2].T[1:] *= 10
        np.testing.assert_array_equal(x.cpu().numpy(), expected)


def test_a_reshape_that_no_strides_can_say_is_a_copy() -> None:
    with Fake("viewing", views=True).registered() as backend:
        x = hal.tensor(array(3, 4), device="viewing")
        y = x.T.reshape(12)
        assert not backend.shares(y.buffer, x.buffer)
        np.testing.assert_array_equal(y.cpu().numpy(), array(3, 4).T.reshape(12))


def test_views_hold_their_memory_and_no_more() -> None:
    with Fake("small", views=True, memory=400).registered():
        x = hal.tensor(array(100), device="small")
        y = x[50:]
        del x
        with pytest.raises(hal.errors.OutOfMemoryError, match="400 in use by 1 buffers"):
            hal.zeros(1, device="small")
        del y
        hal.tensor(array(100), device="small")


# host memory, and buffers to write into


def test_host_memory_is_shared_both_ways() -> None:
    given = array(2, 3)
    with Fake("host", host_memory=True, views=True).registered(), hal.device("host"):
        x = hal.from_numpy(given)
        x.add_(1.0)
        np.testing.assert_array_equal(given, array(2, 3) + 1)
        assert np.shares_memory(x.numpy(), given)


def test_kernels_write_into_what_they_are_given() -> None:
    with Fake("into", out=True).registered():
        x = hal.tensor(array(4), device="into")
        buffer = x.buffer
        hal.run_into((x,), ops.mul, (x, x), {})
        assert x.buffer is buffer
        np.testing.assert_array_equal(x.cpu().numpy(), array(4) ** 2)


def test_memory_that_nothing_was_written_into_is_not_zero() -> None:
    backend = Fake("raw")
    with backend.registered():
        buffer = backend.allocate(hal.Spec((3,), hal.uint8), hal.device("raw"))
        assert buffer.contents.tolist() == [0xA5] * 3


# work that runs later


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work does not begin by itself, however long the test takes."""
    monkeypatch.setattr(later, "PATIENCE", 60.0)


@pytest.mark.usefixtures("patient")
def test_nothing_runs_before_somebody_asks() -> None:
    order: list[str] = []
    queue, a = Later(), Trail()
    queue.add(lambda: order.append("a"), [], [a])
    assert not order
    queue.wait(a)
    assert order == ["a"]


@pytest.mark.usefixtures("patient")
def test_independent_work_is_reordered() -> None:
    order: list[int] = []
    queue = Later(seed=1)
    for i in range(20):
        queue.add(lambda i=i: order.append(i), [], [Trail()])
    queue.finish()
    assert sorted(order) == list(range(20))
    assert order != sorted(order)


@pytest.mark.parametrize("seed", range(10))
def test_work_keeps_the_order_that_memory_asks_for(seed: int) -> None:
    memory = {"a": 0, "b": 0, "c": 0}
    trails = {name: Trail() for name in memory}
    seen: list[tuple[int, int]] = []
    queue = Later(seed)

    def add(name: str, source: str, more: int) -> None:
        def work() -> None:
            memory[name] = memory[source] + more

        queue.add(work, [trails[source]], [trails[name]])

    for i in range(5):
        add("a", "a", 1)  # writes what others still read
        add("b", "a", 10)
        add("c", "b", 100)
        queue.add(lambda i=i: seen.append((i, memory["a"])), [trails["a"]], [Trail()])
    queue.finish()
    assert memory == {"a": 5, "b": 15, "c": 115}
    assert sorted(seen) == [(i, i + 1) for i in range(5)]


def test_what_fails_is_told_to_who_waits_and_only_once() -> None:
    queue, a, b, c = Later(), Trail(), Trail(), Trail()

    def fail() -> None:
        raise DeviceError("unit 3 is on fire")

    queue.add(fail, [], [a])
    queue.add(lambda: None, [a], [b])
    queue.add(lambda: None, [], [c])
    queue.wait(c)
    with pytest.raises(DeviceError, match="on fire"):
        queue.wait(b)
    queue.finish()
    with pytest.raises(DeviceError, match="on fire"):
        queue.wait(a)


def test_synchronize_tells_what_nobody_asked_about() -> None:
    with Fake("frail", fail_after=1, asynchronous=True).registered() as backend:
        x = hal.tensor([1.0], device="frail")
        y = x + x
        z = x + y
        backend.wait(y.buffer)
        with pytest.raises(DeviceError, match="frail failed at add: it was declared to fail after 1 calls"):
            backend.synchronize(x.device)
        backend.synchronize(x.device)
        with pytest.raises(DeviceError, match="failed at add"):
            z.cpu()
        assert y.cpu().tolist() == [2.0]


@pytest.mark.usefixtures("patient")
def test_a_reader_that_does_not_wait_reads_what_is_not_there() -> None:
    with Fake("late", asynchronous=True).registered() as backend:
        x = hal.tensor([1, 2, 3], dtype=hal.uint8, device="late")
        y = x + x
        assert y.buffer.contents.tolist() == [0xA5] * 3
        backend.synchronize(x.device)
        assert y.buffer.contents.tolist() == [2, 4, 6]


@pytest.mark.parametrize("seed", range(3))
def test_training_is_the_same_whenever_kernels_run(seed: int) -> None:
    def train(device: str) -> np.ndarray:
        hal.manual_seed(0)
        x = hal.tensor(array(6, 4) / 10, device=device)
        w = hal.tensor(array(4, 3) / 7, device=device, requires_grad=True)
        momentum = hal.zeros(4, 3, device=device)
        lr = hal.tensor(0.1, device=device)
        for _ in range(5):
            w.grad = None
            y = hal.tanh(x @ w)
            y[::2].mul(y[1::2]).sum().backward()
            assert w.grad is not None
            with hal.no_grad():
                settings = {
                    "momentum": 0.9,
                    "dampening": 0.0,
                    "weight_decay": 0.0,
                    "nesterov": False,
                    "maximize": False,
                }
                hal.run_into((w, momentum), ops.sgd_momentum_step, (w, w.grad, momentum, lr), settings)
                w[0].add_(0.01)
        return w.detach().cpu().numpy()

    with Fake("now").registered(), Fake("late", seed=seed, **ASYNCHRONOUS).registered():
        np.testing.assert_array_equal(train("late"), train("now"))


def test_many_threads_may_use_it_at_once() -> None:
    wrong: list[object] = []
    with Fake("late", **ASYNCHRONOUS).registered():
        shared = hal.tensor(array(8), device="late")

        def work(n: int) -> None:
            try:
                y = shared
                for _ in range(20):
                    y = y + float(n)
                if not np.array_equal(y.cpu().numpy(), array(8) + 20 * n):
                    wrong.append(n)
            except Exception as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
