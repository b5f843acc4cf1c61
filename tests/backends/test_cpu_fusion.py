"""Groups on the CPU: what runs as one gives what its ops give, whichever way the arrays lie in memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import hal
from hal import Tensor, ops
from hal.graph.compiler import Compiled

Case = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ROWS, COLUMNS = 300, 517  # more than a block, and no multiple of one

# fmt: off
FOLDS: dict[str, Case] = {
    "reduction_sub_mul_sum":     lambda x, y, b, c: ((x - y) * (x - y)).sum(),
    "reduction_sub_abs_mean":    lambda x, y, b, c: (x - y).abs().mean(),
    "reduction_mul_sum":         lambda x, y, b, c: (x * y).sum(dim=1),
    "reduction_mul_add_mean":    lambda x, y, b, c: (x * b + c).mean(dim=-1, keepdim=True),
    "reduction_mul_add_sum":     lambda x, y, b, c: (x * c + b).sum(dim=0),
    "reduction_mul_sub_max":     lambda x, y, b, c: ops.max(x * y - c, axis=1),
    "reduction_mul_add_min":     lambda x, y, b, c: ops.min(x * y + b, axis=0, keepdims=True),
    "reduction_add_greater_any": lambda x, y, b, c: ops.any(x > y + 3),
    "reduction_mul_cast_mul_sum": lambda x, y, b, c: ((x * 8).to(hal.int32) * 2).sum(),
}
# fmt: on


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


def arrays(transposed: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, y = (hal.randn(COLUMNS, ROWS).T if transposed else hal.randn(ROWS, COLUMNS) for _ in range(2))
    return x, y, hal.randn(COLUMNS), hal.randn(ROWS, 1)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", FOLDS)
def test_reductions_of_chains(name: str, transposed: bool) -> None:
    function, given = FOLDS[name], arrays(transposed)
    compiled, exact = hal.compile(function), hal.compile(function, exact=True)
    want = function(*given).numpy()
    for _ in range(2):  # step by step, and the written function
        np.testing.assert_allclose(compiled(*given).numpy(), want, rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(exact(*given).numpy(), want)
    (step,) = [s for s in compiled.plans[0].steps if s.how == "fused"]
    assert step.node.op.name.startswith("reduction")
    assert all(not s.node.op.name.startswith("reduction") for s in exact.plans[0].steps)


def test_a_reduction_over_no_axes_is_none() -> None:
    x, y, _, _ = arrays(transposed=False)
    compiled = hal.compile(lambda x, y: ops.max(x * y, axis=()))
    np.testing.assert_array_equal(compiled(x, y).numpy(), (x * y).numpy())


def test_what_is_half_is_not_summed_in_parts() -> None:
    """Each part would be rounded to half precision."""
    x = hal.rand(ROWS, COLUMNS).to(hal.float16)
    compiled = hal.compile(lambda x: (x * x).sum())
    np.testing.assert_array_equal(compiled(x).numpy(), (x * x).sum().numpy())


def test_several_producers_run_as_one() -> None:
    x, y, b, c = arrays(transposed=False)
    compiled = hal.compile(lambda x, y: x * y + c - x * b)
    np.testing.assert_array_equal(compiled(x, y).numpy(), (x * y + c - x * b).numpy())
    assert [s.node.op.name for s in compiled.plans[0].steps] == ["elementwise_mul_add_sub"]
    assert compiled.plans[0].steps[0].how == "fused"


def test_small_updates_run_as_one() -> None:
    """Parameters of a few elements side by side, large ones by themselves; bits as in eager steps."""

    def trained(compiled: bool) -> list[Tensor]:
        hal.manual_seed(0)
        params = [hal.randn(*shape, requires_grad=True) for shape in ((3,), (), (4, 5), (200, 100), (2, 3, 4))]
        states = [[hal.zeros(*p.shape) for _ in range(2)] for p in params]
        rates = [hal.tensor(0.1), hal.tensor(0.1), hal.tensor(0.01)]

        def step() -> None:
            for p, (m, v) in zip(params, states, strict=True):
                hal.run_into((p.detach(), m, v), ops.adam_step, (p.detach(), p.detach() * 0.5, m, v, *rates), {})

        run = hal.compile(step) if compiled else step
        for _ in range(3):
            run()
        if isinstance(run, Compiled):
            assert run.plans[0].steps[-1].node.op.name == "updates_adam_step"
        return [*params, *(s for pair in states for s in pair)]

    for got, want in zip(trained(True), trained(False), strict=True):
        np.testing.assert_array_equal(got.detach().numpy(), want.detach().numpy())
