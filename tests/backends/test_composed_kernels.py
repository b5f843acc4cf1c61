"""Composites that are few kernels on OpenCL: statistics and what is made of them, in all layouts, and own functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hal
from hal import ops
from hal.decision import decision_for
from hal.graph.graph import Group
from hal.op import Op

pytestmark = pytest.mark.device("opencl")
RNG = np.random.default_rng(0)


def on_device(array: Any) -> hal.Tensor:
    """A tensor with these elements, which lie row by row."""
    return hal.tensor(np.array(array, order="C"), device="opencl")


# How elements of (N, C, H, W) may lie in memory.
def rows(x: np.ndarray) -> hal.Tensor:
    return on_device(x)


def images_last(x: np.ndarray) -> hal.Tensor:
    return on_device(x.transpose(0, 2, 3, 1)).permute(0, 3, 1, 2)


def every_second(x: np.ndarray) -> hal.Tensor:
    return on_device(np.repeat(x, 2, axis=3)[..., 1:])[..., ::2]


def backwards(x: np.ndarray) -> hal.Tensor:
    return on_device(x[:, ::-1])[:, ::-1]


SHAPE = (6, 20, 9, 11)
PARTED = (3, 4, 90, 91)  # few results of many elements, which several work items share
EPS = {"eps": 1e-5}
# fmt: off
NORMS: list[tuple[Op, int, bool, dict[str, Any]]] = [  # inputs of x's shape, and whether a weight and bias follow
    (ops.batch_norm_train, 1, True, EPS),
    (ops.group_norm, 1, True, {"groups": 2, **EPS}),
    (ops.instance_norm, 1, True, EPS),
    (ops.layer_norm_gradient, 2, False, {"dims": 2, **EPS}),
    (ops.rms_norm_gradient, 2, False, {"dims": 1, **EPS}),
    (ops.group_norm_gradient, 2, False, {"groups": 4, **EPS}),
    (ops.var, 1, False, {"axis": (0, 2, 3), "keepdims": True, "correction": 1}),
    (ops.std, 1, False, {"axis": 1, "keepdims": False, "correction": 0}),
    (ops.logsumexp, 1, False, {"axis": (1, 3), "keepdims": False}),
    (ops.mse_loss, 2, False, {"reduction": "mean"}),
    (ops.adaptive_avg_pool2d, 1, False, {"output": (4, 3)}),
    (ops.adaptive_max_pool2d, 1, False, {"output": (3, 1)}),
]
# fmt: on


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def check(op: Op, given: list[hal.Tensor], settings: dict[str, Any]) -> None:
    """Raise unless the kernel gives what the reference does."""
    with hal.fallback("error"):
        found = op(*given, **settings)
    wanted = op.reference(*(_wide(x.cpu().numpy()) for x in given), **op.bind(len(given), settings))
    for got, want in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, wanted)), strict=True):
        np.testing.assert_allclose(got.cpu().numpy(), want, rtol=1e-4, atol=2e-5 * max(1, np.abs(want).max()))


@pytest.mark.parametrize("op", NORMS, ids=lambda n: n[0].name)
def test_every_layout_gives_what_the_reference_does(op: tuple[Op, int, bool, dict[str, Any]]) -> None:
    called, count, affine, settings = op
    for layout, shape in (
        (rows, SHAPE),
        (images_last, SHAPE),
        (every_second, SHAPE),
        (backwards, SHAPE),
        (rows, PARTED),
    ):
        xs = [layout(RNG.normal(1, 2, size=shape).astype(np.float32)) for _ in range(count)]
        more = [on_device(RNG.normal(size=shape[1]).astype(np.float32)) for _ in range(2)] if affine else []
        check(called, [*xs, *more], settings)


def test_the_gradient_of_batch_norm_in_every_layout() -> None:
    for layout in (rows, images_last, every_second):
        g, x = (RNG.normal(size=SHAPE).astype(np.float32) for _ in range(2))
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
        weight = RNG.normal(size=SHAPE[1]).astype(np.float32)
        check(ops.batch_norm_train_gradient, [layout(g), layout(x), *map(on_device, (mean, var, weight))], EPS)


def test_a_variance_is_accurate_far_from_zero_and_after_an_outlier() -> None:
    x = RNG.normal(size=(4, 5000)).astype(np.float32)
    x[1] += 1000
    x[2, 0] = 1e4
    x[3] = 7
    for var in (ops.var(on_device(x), axis=1, correction=0), ops.batch_norm_train(on_device(x[None]), **EPS)[2]):
        found = var.cpu().numpy()
        np.testing.assert_allclose(found, x.astype(np.float64).var(1), rtol=1e-5)
        assert found[3] == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_classes_have_weights_and_some_targets_do_not_count(smoothing: float, reduction: str) -> None:
    x, weight = RNG.normal(size=(7, 5, 3)).astype(np.float32), RNG.random(5).astype(np.float32)
    target = RNG.integers(0, 5, (7, 3))
    target[2, 1] = 4
    settings = {"reduction": reduction, "ignore_index": 4, "label_smoothing": smoothing}
    given = [on_device(x), on_device(target), on_device(weight)]
    g = on_device(np.float32(0.5) if reduction == "mean" else RNG.normal(size=(7, 3)).astype(np.float32))
    check(ops.cross_entropy, given, settings)
    check(ops.cross_entropy_gradient, [g, *given], settings)
    if not smoothing:
        settings.pop("label_smoothing")
        check(ops.nll_loss, given, settings)
        check(ops.nll_loss_gradient, [g, *given], settings)


def test_results_go_into_memory_that_is_given_even_that_of_an_input() -> None:
    x = RNG.normal(size=SHAPE).astype(np.float32)
    wanted = ops.group_norm(on_device(x), groups=4, eps=1e-5).cpu().numpy()
    target = on_device(x)
    hal.run_into((target,), ops.group_norm, (target,), {"groups": 4, "eps": 1e-5})
    np.testing.assert_array_equal(target.cpu().numpy(), wanted)
    pooled = hal.zeros(6, 20, 4, 4, device="opencl")
    hal.run_into((pooled,), ops.adaptive_avg_pool2d, (on_device(x),), {"output": (4, 4)})
    np.testing.assert_array_equal(
        pooled.cpu().numpy(), ops.adaptive_avg_pool2d(on_device(x), output=(4, 4)).cpu().numpy()
    )


def test_what_is_one_map_is_part_of_a_group_when_compiled() -> None:
    x, *numbers = (
        on_device(RNG.normal(size=SHAPE).astype(np.float32)),
        *(hal.rand(20, device="opencl") for _ in range(4)),
    )
    alone = ops.relu(ops.batch_norm(x, *numbers)) * 2
    assert decision_for(ops.batch_norm, x.device, (x.spec, *(n.spec for n in numbers)), {}).how == "native"
    f = hal.compile(lambda x, *numbers: ops.relu(ops.batch_norm(x, *numbers)) * 2)
    np.testing.assert_allclose(f(x, *numbers).cpu().numpy(), alone.cpu().numpy(), rtol=1e-5)
    group = f.plans[0].steps[-1].node.op
    assert isinstance(group, Group)
    assert {"sub", "relu", "mul"} <= {node.op.name for node in group.graph.nodes}
    assert not any(step.node.op is ops.batch_norm for step in f.plans[0].steps)


def test_a_graph_that_must_be_exact_has_the_kernel_of_single_calls() -> None:
    x, y = (on_device(RNG.normal(size=(64, 10)).astype(np.float32)) for _ in range(2))
    f = hal.compile(ops.mse_loss, exact=True)
    assert [f(x, y).item() for _ in range(3)] == [ops.mse_loss(x, y).item()] * 3
    assert [step.node.op for step in f.plans[0].steps] == [ops.mse_loss]


# fmt: off
FUNCTIONS: list[tuple[Op, Callable[..., Any], float, float]] = [  # the range that is drawn from, and the most ULP
    (ops.tanh, np.tanh, 11, 4),
    (ops.erf, ops.erf.reference, 5, 6),
    (ops.expm1, np.expm1, 80, 2),
    (ops.log1p, np.log1p, 100, 2),
]
# fmt: on


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f[0].name)
def test_own_functions_are_accurate_everywhere(function: tuple[Op, Callable[..., Any], float, float]) -> None:
    op, reference, end, most = function
    x = np.concatenate(
        [RNG.uniform(-end, end, 20000), np.exp(RNG.uniform(-60, np.log(end), 20000)) * RNG.choice([-1, 1], 20000)]
    )
    x = x[x > -0.999] if op is ops.log1p else x
    x = x.astype(np.float32)
    want = reference(x.astype(np.float64))
    got = op(on_device(x)).cpu().numpy()
    assert np.max(np.abs(got - want) / np.spacing(np.abs(want).astype(np.float32)).astype(np.float64)) < most
    ends = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 200.0, -200.0, -1.0], np.float32)
    with np.errstate(all="ignore"):
        wanted = reference(ends.astype(np.float64)).astype(np.float32)
    found = op(on_device(ends)).cpu().numpy()
    np.testing.assert_allclose(found, wanted, rtol=3e-7)
    assert np.signbit(found[:2]).tolist() == [False, True]
