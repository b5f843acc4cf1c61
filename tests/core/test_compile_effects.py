"""What compiled functions do besides their results: to state, memory, gradients, random numbers, other threads."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest

import hal
import nn
from hal import tracing


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


def test_in_place_changes_reach_arguments_state_and_views() -> None:
    total = hal.zeros(3)
    part = total[1:]

    @hal.compile
    def f(x: hal.Tensor) -> None:
        total.add_(x)
        part.mul_(2)
        x[0] = 7

    data = hal.ones(2, 3)
    for i in range(2):
        f(data[i])  # a view: the change is one of `data`
    assert total.tolist() == [2, 6, 6]
    assert part.tolist() == [6, 6]
    assert data.tolist() == [[7, 1, 1], [7, 1, 1]]


def test_a_gradient_that_is_a_view_of_another_parameter() -> None:
    """Steps may not write over what another step still reads under another name."""
    found = []
    for compiled in (True, False):
        hal.manual_seed(0)
        p, q = (nn.Parameter(hal.randn(300, 300)) for _ in range(2))
        optimizer = nn.optim.SGD([p, q], lr=0.1)

        def step(p: Any = p, q: Any = q, optimizer: nn.optim.Optimizer = optimizer) -> None:
            p.grad, q.grad = q.detach().T * 1, p.detach().T * 1
            optimizer.step()

        run = hal.compile(step) if compiled else step
        for _ in range(3):
            run()
        found.append([p.tolist(), q.tolist()])
    assert found[0] == found[1]


def test_swapping_two_states() -> None:
    a, b = hal.zeros(2), hal.ones(2)

    @hal.compile
    def swap() -> None:
        old = a.clone()
        a.copy_(b)
        b.copy_(old)

    for want in ([1, 1], [0, 0], [1, 1]):
        swap()
        assert a.tolist() == want
        assert b.tolist() == [1 - n for n in want]


def test_results_have_memory_of_their_own() -> None:
    state = hal.zeros(2)

    @hal.compile
    def f(x: hal.Tensor) -> tuple[hal.Tensor, ...]:
        before = state.clone()
        state.add_(1)
        return before, x * 2, x * 2, hal.ones(2)

    x = hal.ones(2)
    first = f(x)
    second = f(x)
    assert [t.tolist() for t in first] == [[0, 0], [2, 2], [2, 2], [1, 1]]
    assert second[0].tolist() == [1, 1]
    for t in second:
        t.fill_(9)
    assert [t.tolist() for t in first] == [[0, 0], [2, 2], [2, 2], [1, 1]]
    assert [t.tolist() for t in f(x)] == [[2, 2], [2, 2], [2, 2], [1, 1]]
    assert state.tolist() == [3, 3]


def test_gradients_add_up_and_are_forgotten_as_eagerly() -> None:
    w = hal.tensor([2.0], requires_grad=True)

    def step(x: hal.Tensor) -> None:
        (w * x).sum().backward()

    compiled = hal.compile(step)
    for n in (1.0, 2.0, 3.0):
        compiled(hal.tensor([n]))
    assert w.grad is not None
    assert w.grad.tolist() == [6]
    w.grad = None
    compiled(hal.tensor([5.0]))
    assert w.grad is not None
    assert w.grad.tolist() == [5]
    assert (compiled.counters.traces, compiled.counters.replays) == (2, 2)  # with a gradient to add to, and without


def test_random_numbers_go_on_from_call_to_call() -> None:
    def draw() -> tuple[hal.Tensor, hal.Tensor]:
        return hal.rand(3), hal.randn(2)

    compiled = hal.compile(draw)
    hal.manual_seed(1)
    want = [t.tolist() for _ in range(3) for t in draw()] + hal.rand(2).tolist()
    hal.manual_seed(1)
    assert [t.tolist() for _ in range(3) for t in compiled()] + hal.rand(2).tolist() == want


def test_numbers_that_change_with_every_call() -> None:
    rate = [1.0]
    seen: list[float] = []

    @hal.compile
    def f(x: hal.Tensor) -> hal.Tensor:
        tracing.on_success(lambda: seen.append(rate[0]))
        return x * tracing.number(lambda: rate[0], hal.float32, x.device)

    for value in (1.0, 2.0, 3.0):
        rate[0] = value
        assert f(hal.ones(1)).item() == value
    assert seen == [1, 2, 3]
    assert f.counters.traces == 1


def test_threads_take_turns() -> None:
    f = hal.compile(lambda x: ((x * 2).tanh() + x).sum())
    want = f(hal.ones(100)).item()
    got: list[float] = []

    def work() -> None:
        got.extend(f(hal.ones(100)).item() for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert got == [want] * 80


def test_a_plan_may_be_made_while_another_function_is_traced() -> None:
    """Inside of `eagerly`, as when a lazy layer makes its parameters, and in another thread."""
    inner = hal.compile(lambda x: x + 1)
    other = hal.compile(lambda x: x * 3)
    got: list[list[float]] = []

    @hal.compile
    def outer(x: hal.Tensor) -> hal.Tensor:
        thread = threading.Thread(target=lambda: got.append(other(hal.ones(1)).tolist()))
        thread.start()
        with tracing.eagerly():
            made = inner(hal.ones(2))
        return x * made

    assert outer(hal.ones(2)).tolist() == outer(hal.ones(2)).tolist() == [2, 2]
    assert (inner.counters.traces, inner.counters.replays) == (1, 0)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    assert got == [[3]]


def test_plans_of_one_function_share_a_block_as_large_as_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    backend = hal.device("cpu").backend
    reserve = backend.reserve
    monkeypatch.setattr(backend, "reserve", lambda n, device: taken.append(n) or reserve(n, device))
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    f = hal.compile(net)

    def check(n: int) -> None:
        x = hal.randn(n, 8, requires_grad=True)
        y = f(x)
        assert y.tolist() == net(x).tolist()
        y.sum().backward()

    for n in (8, 4, 64, 8, 4, 64, 32):
        check(n)
    sizes = [memory.bytes for plan in f.plans for memory in plan.memory.values()]
    assert len(sizes) > 4
    assert taken[-1] == max(sizes)
    assert taken == sorted(taken)
    assert sum(taken) < sum(sizes)
    taken.clear()
    f.forget()
    check(4)
    assert max(taken) < max(sizes)


def test_plans_that_share_memory_take_turns() -> None:
    f = hal.compile(lambda x: (((x * 2).tanh() + x) @ x.T).sum())
    wanted = {n: f(hal.ones(n, 5)).item() for n in (3, 7, 30)}
    wrong: list[int] = []

    def work(n: int) -> None:
        wrong.extend(n for _ in range(30) if f(hal.ones(n, 5)).item() != wanted[n])

    threads = [threading.Thread(target=work, args=(n,)) for n in (3, 7, 30, 7)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_compiled_modules_are_copied_and_pickled() -> None:
    net = nn.Linear(3, 2)
    net.compile(exact=True)
    x = hal.ones(1, 3)
    want = net(x).tolist()
    assert copy.deepcopy(net)(x).tolist() == pickle.loads(pickle.dumps(net))(x).tolist() == want
