"""A compiled plan on OpenCL becomes a list of launches: what it gives is what its steps give, whatever moves."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal import ops
from hal.dispatch import run_into
from hal.plugin import Array

pytestmark = pytest.mark.device("opencl")
CALLS = 7  # the first ones watch, one records, the others enqueue what was recorded


def batches(count: int) -> list[Array]:
    """So many batches."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(5, 6)).astype(np.float32) for _ in range(count)]


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many launches each call enqueued that was recorded before."""
    from hal_opencl.recording import Launches

    run, seen = Launches.run, []

    def noted(self: Any, buffers: Any) -> Any:
        seen.append(len(self.launches))
        return run(self, buffers)

    monkeypatch.setattr(Launches, "run", noted)
    with hal.device("opencl"):
        yield seen


def test_training_is_the_same_with_moving_batches_and_results_that_are_kept(replays: list[int]) -> None:
    def losses(wrap: Callable[[Any], Any]) -> tuple[Array, Array]:
        hal.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
        optimizer = nn.optim.Adam(model.parameters(), lr=1e-2)

        def step(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = wrap(step)
        kept = [run(hal.tensor(x), hal.tensor(np.arange(5) % 3)) for x in batches(CALLS)]
        return np.array([k.item() for k in kept]), model[0].weight.detach().cpu().numpy()

    eager, of_eager = losses(lambda step: step)
    replays.clear()
    compiled, of_compiled = losses(hal.compile)
    assert max(replays) > 6  # more than the backward pass of one layer
    np.testing.assert_array_equal(compiled, eager)
    np.testing.assert_array_equal(of_compiled, of_eager)


def test_inputs_that_share_memory_begin_to_share_it_and_lie_elsewhere_in_it(replays: list[int]) -> None:
    compiled = hal.compile(lambda x, y: (x * 2 + y, x.T))
    a, b, whole = (hal.tensor(x) for x in (*batches(2), np.concatenate(batches(2))))
    pairs = [(a, b)] * 5 + [(b, a), (a, a), (a, a), (whole[5:], b), (whole[:5], whole[5:]), (b, b)]
    results = [compiled(x, y) for x, y in pairs]
    for (x, y), (first, second) in zip(pairs, results, strict=True):
        np.testing.assert_array_equal(first.cpu().numpy(), x.cpu().numpy() * 2 + y.cpu().numpy())
        np.testing.assert_array_equal(second.cpu().numpy(), x.cpu().numpy().T)
    assert replays


def test_random_numbers_are_new_in_each_call(replays: list[int]) -> None:
    draw = hal.compile(lambda x: x + hal.rand(5, 6))
    zero = hal.zeros(5, 6)
    hal.manual_seed(3)
    compiled = [draw(zero).cpu().numpy() for _ in range(CALLS)]
    hal.manual_seed(3)
    for found in compiled:
        np.testing.assert_array_equal(found, hal.rand(5, 6).cpu().numpy())
    assert replays


def test_what_the_host_computes_is_not_recorded(replays: list[int]) -> None:
    from hal_opencl.recording import Recorded

    runtime = hal.device("opencl").backend.runtime

    def through_the_host(x: Any) -> Any:
        array = runtime.download(x)
        return (runtime.upload(array + 1, x.spec),)

    run = Recorded(runtime, through_the_host)
    for x in batches(CALLS):
        (found,) = run(hal.tensor(x).buffer)
        np.testing.assert_array_equal(runtime.download(found), x + 1)
    assert not replays
    assert run.recordings > 1  # it is not tried again


def test_state_is_written_where_it_is(replays: list[int]) -> None:
    state, other = hal.zeros(5, 6), hal.ones(5, 6)

    def add(x: hal.Tensor) -> None:
        state.add_(x)
        other.mul_(2)

    compiled = hal.compile(add)
    for x in batches(CALLS):
        compiled(hal.tensor(x))
    assert replays
    np.testing.assert_allclose(state.cpu().numpy(), sum(batches(CALLS)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(other.cpu().numpy(), 2.0**CALLS)


def test_a_batch_that_nobody_needs_is_not_kept(replays: list[int]) -> None:
    total = hal.compile(lambda x: x.sum())
    pool = hal.device("opencl").backend.runtime.pool
    x = hal.ones(1 << 18)
    results = [total(x) for _ in range(CALLS)]
    before = pool.used
    del x
    total(hal.ones(4, 4))  # another plan: what was given back is counted when memory is taken
    assert pool.used <= before - (1 << 20) + (1 << 16)
    assert replays
    assert results[-1].item() == 1 << 18


def test_single_calls_are_noted_too_and_make_results_of_their_own(replays: list[int]) -> None:
    rng = np.random.default_rng(0)
    images, weights = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 9, 9), (4, 3, 3, 3)))
    calls: dict[str, Callable[[hal.Tensor, hal.Tensor], Any]] = {
        "matmul": lambda x, y: x[0] @ x[1].mT,
        "transposed": lambda x, y: x[0].mT @ x[1],
        "conv2d": lambda x, y: ops.conv2d(x, y, padding=(1, 1)),
        "its own input": lambda x, y: ops.conv2d(x, x[:, :, :3, :3]),
        "sum": lambda x, y: x.sum(1),
        "largest": lambda x, y: x.topk(2, 1),
        "softmax": lambda x, y: x.softmax(-1),
    }
    for name, call in calls.items():
        kept = []
        for i in range(CALLS):
            x, y = hal.tensor(images + i), hal.tensor(weights - i)
            kept.append((call(x, y), call(x.cpu(), y.cpu())))
        for found, expected in kept:
            pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
            for one, other in pairs:
                np.testing.assert_allclose(one.cpu().numpy(), other.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)
        assert replays, name
        replays.clear()


def test_a_single_call_into_given_memory_writes_there(replays: list[int]) -> None:
    a, b = (hal.tensor(x) for x in batches(2))
    for _ in range(CALLS):
        out = hal.zeros(5, 5)
        run_into((out,), ops.matmul, (a, b.mT), {})
        np.testing.assert_allclose(out.cpu().numpy(), a.cpu().numpy() @ b.cpu().numpy().T, rtol=1e-5, atol=1e-5)
    square = hal.ones(5, 5)
    for _ in range(CALLS):
        square.fill_(1.0)
        run_into((square,), ops.matmul, (square, square), {})
        np.testing.assert_array_equal(square.cpu().numpy(), 5.0)
    assert replays


def test_single_calls_keep_no_more_memory_than_they_return(replays: list[int]) -> None:
    pool = hal.device("opencl").backend.runtime.pool
    x, w = hal.ones(4, 8, 20, 20), hal.ones(8, 8, 3, 3)
    before = []
    for _ in range(CALLS):
        ops.conv2d(x, w, padding=(1, 1))
        hal.ones(3)
        before.append(pool.used)
    assert replays
    assert before[-1] <= before[0]
