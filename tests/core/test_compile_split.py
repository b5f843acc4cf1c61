"""Functions that are split where Python looks at contents: the bits of eager calls, ways to go on, what is refused."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal.errors import DeviceError, GraphError
from hal.graph.compiler import Compiled
from hal.graph.parts import MOST_PATHS
from hal.testing.fake import Fake
from nn import functional as F

Step = Callable[[hal.Tensor, hal.Tensor], Any]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


def counts(compiled: Compiled) -> tuple[int, int, int, int]:
    c = compiled.counters
    return c.traces, c.ways, c.replays, c.eager


def contents(x: Any) -> list[Any]:
    if isinstance(x, hal.Tensor):
        return [x.detach().numpy().copy()]
    if isinstance(x, (tuple, list)):
        return [a for part in x for a in contents(part)]
    return [x]


def batches(count: int) -> Iterator[tuple[hal.Tensor, hal.Tensor]]:
    rng = np.random.default_rng(0)
    for i in range(count):
        x = rng.normal(size=(5, 8)) * (10 if i % 3 == 1 else 1)
        yield hal.tensor(x.astype(np.float32)), hal.tensor(rng.integers(0, 3, 5))


# Training steps that look at what they compute.


def branches(net: nn.Module, optimizer: nn.optim.Optimizer) -> Step:
    def step(x: hal.Tensor, y: hal.Tensor) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        if loss.item() > 1.3:
            loss = loss * 0.5
        loss.backward()
        optimizer.step()
        return loss

    return step


def clips(net: nn.Module, optimizer: nn.optim.Optimizer) -> Step:
    def step(x: hal.Tensor, y: hal.Tensor) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        norm = hal.stack([(g * g).sum() for g in gradients]).sum().sqrt().item()
        if norm > 1.0:
            for g in gradients:
                g.mul_(1.0 / (norm + 1e-6))
        optimizer.step()
        return loss.item(), norm, {"square": norm * norm}

    return step


def looks_after_the_update(net: nn.Module, optimizer: nn.optim.Optimizer) -> Step:
    def step(x: hal.Tensor, y: hal.Tensor) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        weight = net[0].weight
        if loss.item() > 1.2 and weight.abs().max() < 3:
            with hal.no_grad():
                weight.mul_(0.5)
        if not hal.isfinite(loss):
            raise ValueError("the loss is not finite")
        return loss

    return step


def leaves_out_steps(net: nn.Module, optimizer: nn.optim.Optimizer) -> Step:
    def step(x: hal.Tensor, y: hal.Tensor) -> Any:
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        if all(bool(p.grad.abs().max() < 0.6) for p in net.parameters() if p.grad is not None):
            optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


@pytest.mark.parametrize("build", [branches, clips, looks_after_the_update, leaves_out_steps])
@pytest.mark.parametrize("stepper", [nn.optim.Adam, lambda p: nn.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_training_steps_have_the_bits_of_eager_ones(build: Any, stepper: Any) -> None:
    found = []
    for compiled in (True, False):
        hal.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))
        optimizer = stepper(net.parameters())
        step = build(net, optimizer)
        run = hal.compile(step, split=True, exact=True) if compiled else step
        got: list[Any] = []
        for x, y in batches(9):
            result = run(x, y)
            got += contents(list(result) if isinstance(result, tuple) else result)
            got += contents([*net.state_dict().values(), hal.get_rng_state()])
            got += contents([p.grad for p in net.parameters() if p.grad is not None])
        found.append(got)
        if compiled:
            traces, ways, replays, eager = counts(run)
            assert (eager, traces + replays) == (0, 9)
            assert ways > 0
            assert replays > 2
    assert len(found[0]) == len(found[1])
    for a, b in zip(*found, strict=True):
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert type(a) is type(b)
            assert a == b


def test_gradients_flow_through_all_parts() -> None:
    found = []
    for compiled in (True, False):
        hal.manual_seed(0)
        first, second = nn.Linear(8, 6), nn.Linear(6, 3)

        def scores(x: hal.Tensor, first: nn.Module = first, second: nn.Module = second) -> tuple[hal.Tensor, float]:
            h = first(x)
            largest = h.abs().max().item()
            if largest > 2:
                h = h / largest
            return second(h.tanh()), largest

        run = hal.compile(scores, split=True, exact=True) if compiled else scores
        got: list[Any] = []
        for x, y in batches(5):
            x.requires_grad = True
            out, largest = run(x)
            F.cross_entropy(out, y).backward()
            got += [*contents([out, x.grad, first.weight.grad, second.bias.grad]), np.array(largest)]
        found.append(got)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


# Ways to go on.


def test_a_way_for_each_answer_and_the_part_before_is_shared() -> None:
    @hal.compile(split=True)
    def f(x: hal.Tensor) -> hal.Tensor:
        y = (x * 2).exp()
        return y + 1 if y.sum() > 5 else -y

    small, large = -hal.ones(2), hal.ones(2)
    for x, want in ((small, -math.exp(-2)), (large, math.exp(2) + 1), (small, -math.exp(-2)), (large, math.exp(2) + 1)):
        assert f(x)[0].item() == pytest.approx(want)
    assert counts(f) == (2, 1, 2, 0)
    assert [len(plan.steps) for plan in f.plans] == [4, 1, 1]  # the first is the part before the question
    assert ["exp" in plan.graph.text() for plan in f.plans] == [True, False, False]


def test_where_it_is_split_is_told() -> None:
    def f(x: hal.Tensor) -> hal.Tensor:
        y = x.exp()
        if y.sum() > 5:
            return y + 1
        return -y

    compiled = hal.compile(f, split=True)
    compiled(hal.ones(2))
    compiled(-hal.ones(2))
    line = f"{__file__}:{f.__code__.co_firstlineno + 2}: bool()"
    told = compiled.explain()
    assert told.startswith("f(float32[2])")
    assert f"up to {line}\n" in told
    assert "if it gives True:\n" in told
    assert "if it gives False:\n" in told
    assert f"it ends at {line}" in str(compiled.plans[0].report())


def test_numbers_go_into_later_parts_without_another_way() -> None:
    @hal.compile(split=True)
    def f(x: hal.Tensor) -> tuple[hal.Tensor, Any]:
        largest = x.max().item()
        return x / largest + (2 - largest), [largest // 1, -largest]

    for n in (2.0, 3.0, 4.0):
        scaled, told = f(hal.tensor([1.0, n]))
        assert scaled.tolist() == (np.array([1, n], np.float32) / np.float32(n) + np.float32(2 - n)).tolist()
        assert told == [n // 1, -n]
        assert type(told[0]) is float
    assert counts(f) == (1, 0, 2, 0)


BINARY = (
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.lt,
    operator.le, operator.gt, operator.ge, operator.eq, operator.ne, operator.pow,
)  # fmt: skip
UNARY = (
    operator.neg, operator.pos, abs, bool, int, float, complex, repr, round, math.floor, math.sqrt, str,
    lambda n: f"{n:.3f}", lambda n: n.is_integer(), lambda n: n.real, lambda n: float(np.asarray(n)),
    lambda n: [0] * int(n), lambda n: {n + 0.0: 1} if False else max(n, 2), lambda n: 1 < n < 3,
)  # fmt: skip


@pytest.mark.parametrize("dtype", [hal.float32, hal.int64])
def test_what_python_does_with_a_number_it_does_in_each_call(dtype: hal.DType) -> None:
    def all_of_it(x: hal.Tensor) -> list[Any]:
        n = x.sum().item()
        if dtype is hal.int64:
            return [n + 1, 7 // n, n % 2, list(range(n)), [1, 2, 3, 4, 5, 6, 7][n], n * n]
        found = [op(n, other) for op in BINARY for other in (2, 1.5)]
        found += [op(other, n) for op in BINARY for other in (2, 1.5)]
        found += [op(n, n) for op in BINARY]
        return found + [op(n) for op in UNARY]

    compiled = hal.compile(all_of_it, split=True)
    for _ in range(2):
        for n in (3, 1):
            x = hal.tensor([n, 2], dtype=dtype)
            got, want = compiled(x), all_of_it(x)
            assert got == want
            assert [type(a) for a in got] == [type(b) for b in want]
    assert counts(compiled) == (2, 1, 2, 0)


def test_contents_decide_shapes() -> None:
    f = hal.compile(lambda x: (x[x > 0] * 2, x.tolist()[0], hal.nonzero(x)[0]), split=True)
    for _ in range(2):
        for row in ([1.0, -1.0, 2.0], [-1.0, 0.0, 5.0]):
            x = hal.tensor(row)
            positive, first, places = f(x)
            assert positive.tolist() == [2 * n for n in row if n > 0]
            assert first == row[0]
            assert places.tolist() == [i for i, n in enumerate(row) if n]
    assert counts(f) == (2, 1, 2, 0)


def test_loops_until_something_holds() -> None:
    @hal.compile(split=True)
    def halved(x: hal.Tensor) -> hal.Tensor:
        while x.abs().max() > 1:
            x = x / 2
        return x

    for n, want in ((0.5, 0.5), (7.0, 0.875), (3.0, 0.75), (7.0, 0.875), (0.5, 0.5)):
        assert halved(hal.tensor([n])).tolist() == [want]
    assert counts(halved) == (3, 2, 2, 0)


def test_what_is_taken_for_granted_is_checked_after_a_split_as_well() -> None:
    first, second = nn.Linear(2, 2), nn.Dropout(0.5)

    @hal.compile(split=True)
    def f(x: hal.Tensor) -> hal.Tensor:
        y = first(x)
        return second(y) if y.sum() < 1e9 else y

    x = hal.ones(3, 2)
    f(x)
    second.eval()
    assert f(x).tolist() == first(x).tolist()
    first.weight.data = hal.zeros(2, 2)
    assert f(x).tolist() == first(x).tolist()
    assert counts(f) == (3, 1, 0, 0)


def test_a_constant_is_no_question() -> None:
    f = hal.compile(lambda x: x * 2 if hal.tensor(3.0).item() > 2 else x, split=True)
    assert f(hal.ones(2)).tolist() == f(hal.ones(2)).tolist() == [2, 2]
    assert (counts(f), len(f.plans)) == ((1, 0, 1, 0), 1)


def test_errors_that_depend_on_contents_are_raised_in_every_call_and_change_nothing() -> None:
    total = hal.zeros(1)

    @hal.compile(split=True)
    def f(x: hal.Tensor) -> hal.Tensor:
        total.add_(x)
        if not hal.isfinite(x).all():
            raise ValueError("not finite")
        return 1 / x.sum().item()

    assert f(hal.ones(1)) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="not finite"):
            f(hal.tensor([math.inf]))
        with pytest.raises(ZeroDivisionError):
            f(hal.zeros(1))
    assert total.tolist() == [1]
    assert f(hal.tensor([2.0])) == 0.5
    assert total.tolist() == [3]


def test_random_numbers_go_on_over_a_split() -> None:
    def draw(x: hal.Tensor) -> tuple[hal.Tensor, ...]:
        a = hal.rand(3)
        return (a, hal.randn(2)) if a.sum() + x > 1.5 else (a, hal.rand(1), hal.rand(4))

    compiled = hal.compile(draw, split=True)
    found = []
    for run in (draw, compiled):
        hal.manual_seed(1)
        found.append([[t.tolist() for t in run(hal.zeros(1))] for _ in range(8)] + [hal.rand(2).tolist()])
    assert found[0] == found[1]
    assert counts(compiled) == (2, 1, 6, 0)


# What is refused, and what runs eagerly.


def test_another_answer_in_each_call_runs_eagerly_after_a_while() -> None:
    seen: list[float] = []

    @hal.compile(split=True)
    def f(x: hal.Tensor) -> hal.Tensor:
        seen.append(float(x.sum()))
        return x * seen[-1]

    for n in range(1, 3 * MOST_PATHS):
        assert f(hal.tensor([float(n)])).tolist() == [float(n * n)]
    assert seen == [float(n) for n in range(1, 3 * MOST_PATHS)]
    traces, ways, replays, eager = counts(f)
    assert (traces, ways, replays) == (MOST_PATHS, MOST_PATHS - 1, 0)
    assert eager == 3 * MOST_PATHS - 1 - MOST_PATHS
    assert "eagerly: f goes another way in almost every call" in f.explain()


def test_a_number_that_python_keeps_is_refused() -> None:
    losses: list[Any] = []

    @hal.compile(split=True)
    def f(x: hal.Tensor) -> hal.Tensor:
        losses.append(x.sum().item())
        return x * 2

    line = f.function.__code__.co_firstlineno + 2
    with pytest.raises(GraphError, match=rf"keeps a number that item\(\) gave at .*:{line} .*return it"):
        f(hal.ones(2))
    with pytest.raises(GraphError, match="has no value now"):
        float(losses[0])


def test_a_function_that_does_something_else_each_time_runs_eagerly() -> None:
    calls = [0]

    @hal.compile(split=True)
    def f(x: hal.Tensor) -> hal.Tensor:
        calls[0] += 1
        y = x * calls[0]
        return y + 1 if x.sum() > 0 else y

    assert f(hal.ones(2)).tolist() == [2, 2]
    assert f(-hal.ones(2)).tolist() == [-3, -3]  # traced, which came to nothing, and run
    assert counts(f) == (1, 0, 0, 1)


def test_gradients_of_its_own_may_not_look_at_contents() -> None:
    @hal.custom_gradient
    def square(x: hal.Tensor) -> tuple[hal.Tensor, Any]:
        return x * x, lambda g: 2 * x * g if g.sum() > 0 else g

    f = hal.compile(lambda x: square(x) if x.sum() > 0 else x, split=True)
    x = hal.tensor([3.0], requires_grad=True)
    f(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [6]
    assert counts(f)[3] == 1
    assert "while the gradients of a lambda are traced" in f.explain()


def test_a_failing_kernel_in_the_computation_of_an_answer_is_named() -> None:
    class Breaking(Fake):
        def prepare(self, op: Any, kernel: Any, specs: Any, outs: Any, settings: Any) -> Any:
            if op.name != "exp":
                return super().prepare(op, kernel, specs, outs, settings)

            def fail(*buffers: Any, **given: Any) -> Any:
                raise ValueError("the chip melted")

            return fail

    with Breaking("answering").registered():
        f = hal.compile(lambda x: x if x.exp().sum() > 0 else -x, split=True)
        with pytest.raises(DeviceError, match=r"exp on answering, called at .*test_compile_split.py:\d+.*melted"):
            f(hal.ones(2, device="answering"))
