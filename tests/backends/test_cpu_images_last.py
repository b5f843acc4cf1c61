"""Images that lie last in memory: convolutions and pooling give what they give for few images, and keep the layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal import dtypes, ops
from hal.spec import Spec
from hal_cpu.all_kernels import kernels
from hal_cpu.images_last import LEAST, empty, lie_last
from hal_cpu.reduction import sum_of_rows

Array = np.ndarray[Any, Any]
IMAGES = LEAST + 3
rng = np.random.default_rng(0)


def numbers(*shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def last(x: Array) -> Array:
    """A copy whose images lie last."""
    result = empty(x.shape, x.dtype)
    result[...] = x
    return result


def run(op: Any, *inputs: Array, **settings: Any) -> Array:
    kernel = kernels.find(op, tuple(Spec(x.shape, dtypes.of(x.dtype)) for x in inputs), settings)
    assert kernel is not None
    result: Array = kernel.run(*inputs, **settings)
    return result


# fmt: off
CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"padding": (2, 1)},
    {"stride": (2, 3), "padding": (1, 0)},
    {"dilation": (2, 1), "padding": (0, 2)},
    {"stride": (3, 2), "dilation": (1, 2), "padding": (2, 2)},
]
POOLS: list[dict[str, Any]] = [
    {"kernel": (2, 2), "stride": (2, 2)},
    {"kernel": (3, 2), "stride": (1, 2), "padding": (1, 1)},
    {"kernel": (2, 3), "stride": (3, 2), "ceil_mode": True},
]
# fmt: on


@pytest.mark.parametrize("given", CONVOLUTIONS)
@pytest.mark.parametrize("biased", [False, True])
def test_convolutions(given: dict[str, Any], biased: bool) -> None:
    settings = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, **given}
    x, weight = numbers(IMAGES, 3, 9, 11), numbers(5, 3, 3, 2)
    bias = (numbers(5),) if biased else ()
    want = np.concatenate([run(ops.conv2d, part, weight, *bias, **settings) for part in (x[:9], x[9:])])
    for images in (x, last(x)):  # the colours of a picture are turned
        got = run(ops.conv2d, images, weight, *bias, **settings)
        assert lie_last(got)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)

    g = numbers(*want.shape)
    shape = {"weight_shape": weight.shape}
    want = sum(run(ops.conv2d_weight_gradient, a, b, **shape, **settings) for a, b in ((x[:9], g[:9]), (x[9:], g[9:])))
    got = run(ops.conv2d_weight_gradient, x, last(g), **shape, **settings)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)

    # The gradient by the input, and a layer: the sizes that the stride leaves out are added.
    for more in (0, 1):
        padding = tuple(min(more, s - 1) for s in settings["stride"])
        bias = (numbers(3),) if biased else ()
        parts = [
            run(ops.conv_transpose2d, part, weight, *bias, output_padding=padding, **settings)
            for part in (g[:9], g[9:])
        ]
        got = run(ops.conv_transpose2d, last(g), weight, *bias, output_padding=padding, **settings)
        assert lie_last(got)
        np.testing.assert_allclose(got, np.concatenate(parts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("given", POOLS)
def test_pooling(given: dict[str, Any]) -> None:
    settings = {"padding": (0, 0), "ceil_mode": False, **given}
    wide = {**settings, "dilation": (1, 1)}
    x = np.round(numbers(IMAGES, 5, 8, 9), 1)  # with ties
    want = run(ops.max_pool2d, x, **wide)
    got = run(ops.max_pool2d, last(x), **wide)
    assert lie_last(got)
    np.testing.assert_array_equal(got, want)
    g = numbers(*want.shape)
    for slopes in (g, last(g)):
        got = run(ops.max_pool2d_gradient, slopes, last(x), **wide)
        assert lie_last(got)
        np.testing.assert_array_equal(got, run(ops.max_pool2d_gradient, g, x, **wide))
    for included in (True, False):
        want = run(ops.avg_pool2d, x, count_include_pad=included, **settings)
        got = run(ops.avg_pool2d, last(x), count_include_pad=included, **settings)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
        sizes = {"sizes": x.shape[2:], "count_include_pad": included}
        got = run(ops.avg_pool2d_gradient, last(g), **sizes, **settings)
        assert lie_last(got)
        np.testing.assert_allclose(got, run(ops.avg_pool2d_gradient, g, **sizes, **settings), rtol=1e-5, atol=1e-6)


def test_sums_of_long_rows() -> None:
    x = numbers(3, 2500)
    np.testing.assert_allclose(sum_of_rows(x), x.astype(np.float64).sum(1), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(sum_of_rows(x[:, :2048]), x[:, :2048].astype(np.float64).sum(1), rtol=1e-5, atol=1e-4)


def test_a_network_in_this_layout_trains_as_eagerly_when_it_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")
    x, y = numbers(IMAGES, 1, 12, 12), rng.integers(0, 4, IMAGES)

    def trained(compiled: bool) -> list[Array]:
        hal.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 5, 3), nn.ReLU(),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(20, 4),
        )  # fmt: skip
        optimizer = nn.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = hal.compile(step, exact=True) if compiled else step
        losses = [run(hal.tensor(x), hal.tensor(y)).detach().numpy() for _ in range(4)]
        return [*losses, *(p.detach().numpy() for p in model.parameters())]

    for got, want in zip(trained(True), trained(False), strict=True):
        np.testing.assert_array_equal(got, want)


def test_zeros_by_a_condition_that_lies_in_another_way() -> None:
    x = numbers(IMAGES, 3, 8, 9)
    got = run(ops.where, last(x) > 0, x, np.zeros((), np.float32))
    assert lie_last(got)
    np.testing.assert_array_equal(got, np.where(x > 0, x, 0))
