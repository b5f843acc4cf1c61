"""hal.compile: when it traces and when it replays, what it refuses, and what a backend may do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

import hal
import nn
from hal import ops, tracing
from hal.errors import GradientError, GraphError
from hal.graph.compiler import Compiled
from hal.graph.graph import Group
from hal.graph.plan import Plan
from hal.testing.fake import Fake


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


def counts(compiled: Compiled) -> tuple[int, int]:
    return compiled.counters.traces, compiled.counters.replays


# When it traces.


def test_one_trace_for_each_kind_of_arguments() -> None:
    @hal.compile
    def f(x: hal.Tensor, n: float = 1, *, flag: bool = False) -> hal.Tensor:
        return -(x * n) if flag else x * n

    x = hal.arange(4.0)
    assert f(x).tolist() == f(x + 0).tolist() == [0, 1, 2, 3]
    assert counts(f) == (1, 1)
    assert f(x, 2).tolist() == [0, 2, 4, 6]
    assert f(x, 2.0).tolist() == [0, 2, 4, 6]  # 2.0 is another kind of number than 2
    assert f(x, 2, flag=True).tolist() == [0, -2, -4, -6]
    assert f(hal.arange(3.0), 2).tolist() == [0, 2, 4]
    assert f(x.to(hal.float64), 2).dtype is hal.float64
    assert counts(f) == (6, 1)
    assert f(x, 2).tolist() == [0, 2, 4, 6]
    assert counts(f) == (6, 2)


def test_a_last_smaller_batch_gets_a_plan_of_its_own_and_the_first_is_kept() -> None:
    f = hal.compile(lambda x: x.sum())
    for n in (8, 8, 3, 8, 3):
        assert f(hal.ones(n)).item() == n
    assert counts(f) == (2, 3)


def test_the_number_of_plans_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hal.graph.compiler.MOST_PLANS", 3)
    f = hal.compile(lambda x: x + 1)
    for n in range(6):
        f(hal.ones(n))
    assert len(f.plans) == 3
    assert f.counters.dropped == 3


def test_training_and_eval_mode_have_plans_of_their_own() -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    compiled = hal.compile(net)
    x = hal.randn(4, 3)
    compiled(x)
    net.eval()
    np.testing.assert_array_equal(compiled(x).detach().numpy(), net(x).detach().numpy())
    net.train()
    compiled(x)
    assert counts(compiled) == (2, 1)


def test_gradients_on_and_off_have_plans_of_their_own() -> None:
    layer = nn.Linear(2, 2)
    f = hal.compile(layer)
    x = hal.ones(1, 2)
    assert f(x).requires_grad
    with hal.no_grad():
        assert not f(x).requires_grad
    assert f.counters.traces == 2


def test_a_parameter_that_got_other_memory_or_was_frozen_is_noticed() -> None:
    layer = nn.Linear(2, 2, bias=False)
    f = hal.compile(layer)
    x = hal.ones(1, 2)
    f(x)
    layer.weight.data = hal.zeros(2, 2)
    assert f(x).tolist() == [[0, 0]]
    layer.weight.requires_grad = False
    assert not f(x).requires_grad
    layer.double()
    assert f(x.double()).dtype is hal.float64


def test_new_contents_of_a_parameter_are_seen() -> None:
    layer = nn.Linear(2, 1, bias=False)
    f = hal.compile(layer)
    x = hal.ones(1, 2)
    f(x)
    layer.load_state_dict({"weight": hal.tensor([[3.0, 4.0]])})
    assert f(x).tolist() == [[7.0]]
    assert f.counters.traces == 1


def test_one_tensor_given_twice() -> None:
    f = hal.compile(lambda a, b: (a.add_(1), b * 2)[1])
    x = hal.ones(2)
    assert f(x, x).tolist() == [4, 4]
    y, z = hal.ones(2), hal.ones(2)
    assert f(y, z).tolist() == [2, 2]
    assert (x.tolist(), y.tolist(), z.tolist()) == ([2, 2], [2, 2], [1, 1])


def test_containers_go_in_and_out() -> None:
    @hal.compile
    def f(batch: dict[str, Any], pair: tuple[hal.Tensor, hal.Tensor]) -> dict[str, Any]:
        return {"sum": batch["x"] + pair[0], "rest": [pair[1], (batch["n"], None)], "top": ops.topk(pair[1], k=1)}

    x, y = hal.arange(3.0), hal.ones(3)
    for _ in range(2):
        got = f({"x": x, "n": 5}, (y, x))
        assert got["sum"].tolist() == [1, 2, 3]
        assert got["rest"][0] is x
        assert got["rest"][1] == (5, None)
        assert got["top"][0].tolist() == [2]


def test_modules_compile_themselves() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = hal.randn(5, 3)
    want = net(x).tolist()
    net.compile()
    assert net(x).tolist() == net(x).tolist() == want
    assert isinstance(net._compiled, Compiled)
    assert counts(net._compiled) == (1, 1)
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert copy.deepcopy(net)(x).tolist() == want


def test_a_compiled_module_is_still_the_module() -> None:
    net = nn.Linear(3, 2)
    compiled = hal.compile(net)
    assert compiled.weight is net.weight
    assert [p.shape for p in compiled.parameters()] == [(2, 3), (2,)]
    compiled.eval()
    assert not net.training


def test_compiled_functions_call_each_other_and_methods_work() -> None:
    inner = hal.compile(lambda x: x * 2)

    class Thing:
        scale = 3.0

        @hal.compile
        def scaled(self, x: hal.Tensor) -> hal.Tensor:
            return inner(x) * self.scale

    assert Thing().scaled(hal.ones(2)).tolist() == [6, 6]
    assert counts(inner) == (0, 0)


# What it refuses.


def test_looking_at_contents_names_the_line() -> None:
    def f(x: hal.Tensor) -> hal.Tensor:
        return x * 2 if x.sum() > 0 else x

    with pytest.raises(GraphError, match=r"bool\(\) needs the contents.*test_compile.py:\d+.*hal.where"):
        hal.compile(f)(hal.ones(2))
    line = f.__code__.co_firstlineno + 1
    with pytest.raises(GraphError, match=f":{line}"):
        hal.compile(f)(hal.ones(2))
    for look in (lambda x: x.item(), lambda x: x.numpy(), lambda x: float(x), lambda x: x.tolist(), repr):
        with pytest.raises(GraphError, match="while"):
            hal.compile(lambda x, look=look: look(x * 1))(hal.ones(1))


def test_what_cannot_be_traced_runs_eagerly_on_request() -> None:
    @hal.compile(fallback=True)
    def f(x: hal.Tensor) -> hal.Tensor:
        return x * 2 if x.ndim == 1 or x.sum() > 0 else -x

    for _ in range(2):
        assert f(hal.ones(1, 1)).tolist() == [[2]]
        assert f(-hal.ones(1, 1)).tolist() == [[1]]
        assert f(-hal.ones(1)).tolist() == [-2]
    assert (f.counters.traces, f.counters.replays, f.counters.eager) == (1, 1, 4)


def test_what_was_made_in_a_trace_is_of_no_use_outside() -> None:
    kept: list[hal.Tensor] = []
    f = hal.compile(lambda x: kept.append(x * 2))
    f(hal.ones(2))
    with pytest.raises(GraphError, match="made while a function was traced"):
        kept[0].tolist()
    with pytest.raises(GraphError, match=r"add .*made while a function was traced"):
        kept[0] + 1


def test_a_failed_trace_leaves_everything_as_it_was() -> None:
    layer = nn.Linear(2, 2)
    before = layer.weight.tolist()
    layer.weight.grad = hal.ones(2, 2)

    @hal.compile
    def f(x: hal.Tensor) -> None:
        layer.weight.grad = None
        layer(x).sum().backward()
        with hal.no_grad():
            layer.weight.sub_(1)
        x.sum().item()

    with pytest.raises(GraphError):
        f(hal.ones(1, 2))
    assert layer.weight.tolist() == before
    assert layer.weight.grad.tolist() == [[1, 1], [1, 1]]
    assert tracing.tracer is None
    layer(hal.ones(1, 2)).sum().backward()


def test_arguments_that_cannot_be_compared() -> None:
    with pytest.raises(GraphError, match="ndarray"):
        hal.compile(lambda x: x)(np.ones(2))
    with pytest.raises(GraphError, match="policy"):
        hal.compile(lambda x: x, policy="best")


def test_second_derivatives_through_a_plan() -> None:
    x = hal.ones(2, requires_grad=True)
    y = hal.compile(lambda x: (x * x * x).sum())(x)
    with pytest.raises(GradientError, match="gradients of its gradients"):
        hal.grad(y, x, create_graph=True)
    whole = hal.compile(lambda x: hal.grad(hal.grad((x * x * x).sum(), x, create_graph=True)[0].sum(), x)[0])
    assert whole(x).tolist() == [6, 6]


# What a backend may do.


def test_a_backend_may_take_over_a_whole_plan() -> None:
    class Recording(Fake):
        captured: ClassVar[list[Plan]] = []
        runs: ClassVar[list[int]] = []

        def capture(self, plan: Plan, replay: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
            self.captured.append(plan)

            def run(*inputs: Any) -> tuple[Any, ...]:
                self.runs.append(len(inputs))
                return replay(*inputs)

            return run

    with Recording("recording").registered():
        f = hal.compile(lambda x: (x * 2 + 1).sum())
        x = hal.ones(3, device="recording")
        assert [f(x).item() for _ in range(3)] == [9, 9, 9]
    assert [len(plan.steps) for plan in Recording.captured] == [3]
    assert Recording.runs == [1, 1]


def test_groups_that_a_backend_declines_run_one_by_one() -> None:
    asked: list[str] = []

    class Declining(Fake):
        def fuse(self, group: Group, device: hal.Device) -> None:
            asked.append(group.kind)

    with Declining("declining").registered():
        f = hal.compile(lambda x: (x * 2 + 1).tanh())
        x = hal.ones(3, device="declining")
        assert f(x).tolist() == f(x).tolist()
        assert [step.how for step in f.plans[0].steps] == ["native"] * 3
    assert asked == ["elementwise"]


def test_what_a_device_lacks_runs_elsewhere_with_copies_in_the_plan() -> None:
    with Fake("poor", only=["add", "mul"]).registered(), hal.fallback("allow"):
        f = hal.compile(lambda x: (x * 2).exp() + 1)
        x = hal.ones(3, device="poor")
        want = f(x).tolist()
        assert f(x).tolist() == want == ((x * 2).exp() + 1).tolist()
        assert [step.how for step in f.plans[0].steps] == ["native", "copy", "native", "copy", "native"]
