"""Every sample of every op that oneDNN has a kernel for, in every memory layout, judged as the op's record demands."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import hal_onednn
import numpy as np
import pytest
from hal_onednn.all_kernels import kernels

import hal
from hal import dtypes, ops
from hal.op import Array, Op, Sample
from hal.registry import registry
from hal.testing.accuracy import cast_inputs, judge, specs_of

pytestmark = pytest.mark.usefixtures("library")

EVERY_OP = [pytest.param(ops.TABLE[name], id=name) for name in sorted(kernels)]


def is_ours(op: Op, inputs: tuple[Array, ...], settings: dict[str, Any]) -> bool:
    """Whether oneDNN takes a call."""
    kernel = registry().backend("cpu").kernels.find(op, specs_of(op, inputs, settings), settings)
    return kernel is not None and kernel.run.__module__.startswith("hal_onednn.")


def check(op: Op, inputs: tuple[Array, ...], given: dict[str, Any]) -> Array:
    """Run a call on tensors of hal, judge it, and give its result's buffer."""
    settings = op.bind(len(inputs), given)
    specs = op.infer(*specs_of(op, inputs, settings), **settings)
    out = op(*(hal.from_numpy(x) for x in inputs), **settings)
    outs, specs = (out, specs) if isinstance(out, tuple) else ((out,), (specs,))
    verdict = judge(op, inputs, settings, tuple(o.numpy() for o in outs), specs)
    assert verdict.passed, f"{[x.shape for x in inputs]} {[x.strides for x in inputs]} {settings}: {verdict}"
    buffer: Array = outs[0].buffer
    return buffer


def channels_last(x: Array) -> Array:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1) if x.ndim > 2 else x


def with_gaps(x: Array) -> Array:
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1] + 1), np.nan, x.dtype)
    wide[..., 1::2] = x
    return wide[..., 1::2]


def backwards(x: Array) -> Array:
    return np.ascontiguousarray(x[..., ::-1])[..., ::-1]


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "as it is": lambda x: x,
    "channels last": channels_last,
    "by columns": np.asfortranarray,
    "with gaps": with_gaps,
    "backwards": backwards,
}


def samples(op: Op) -> list[Sample]:
    return [s for s in op.samples(np.random.default_rng(0)) if not s.exact]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("op", EVERY_OP)
def test_agrees_with_the_reference(op: Op, layout: Callable[[Array], Array]) -> None:
    for sample in samples(op):
        inputs = tuple(layout(x) for x in cast_inputs(sample, dtypes.float32))
        check(op, inputs, dict(sample.settings))


@pytest.mark.parametrize("op", EVERY_OP)
def test_writes_into_memory_of_any_order(op: Op) -> None:
    for sample in samples(op):
        inputs = cast_inputs(sample, dtypes.float32)
        settings = op.bind(len(inputs), sample.settings)
        if not is_ours(op, inputs, settings):
            continue
        kernel = registry().backend("cpu").kernels.find(op, specs_of(op, inputs, settings), settings)
        assert kernel is not None
        want = kernel.run(*inputs, **settings)
        several = isinstance(want, tuple)
        for layout in LAYOUTS.values():
            outs = tuple(layout(np.full(w.shape, np.nan, np.float32)) for w in (want if several else (want,)))
            out = outs if several else outs[0]
            assert kernel.run(*inputs, **settings, out=out) is out
            for found, wanted in zip(outs, want if several else (want,), strict=True):
                np.testing.assert_array_equal(found, wanted)


def test_a_result_may_replace_an_input() -> None:
    for order in (channels_last, np.ascontiguousarray):
        x, weight = order(numbers(4, 8, 6, 6)), numbers(8, 8, 1, 1)
        settings = ops.conv2d.bind(2, {})
        kernel = (
            registry().backend("cpu").kernels.find(ops.conv2d, specs_of(ops.conv2d, (x, weight), settings), settings)
        )
        assert kernel is not None
        want = np.array(kernel.run(x, weight, **settings))
        assert kernel.run(x, weight, **settings, out=x) is x
        np.testing.assert_array_equal(x, want)


@pytest.mark.parametrize("op", EVERY_OP)
def test_takes_what_it_is_there_for(op: Op) -> None:
    """Small products are left to BLAS, and so is what is empty; everything else, but for a known few, is oneDNN's."""
    if op.name in ("matmul", "linear"):
        return
    left = []
    for sample in samples(op):
        inputs = cast_inputs(sample, dtypes.float32)
        settings = op.bind(len(inputs), sample.settings)
        if not is_ours(op, inputs, settings) and all(x.size for x in inputs):
            left.append(settings)
    for settings in left:
        if op.name.startswith("avg_pool"):  # windows that hang over the padding, which oneDNN would count
            assert settings["ceil_mode"]
            assert settings["count_include_pad"]
        else:  # more is added to the result's end than a convolution could leave over
            assert op.name.startswith("conv_transpose")
            extra = zip(settings["output_padding"], settings["stride"], strict=True)
            assert any(added >= stride for added, stride in extra), settings


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(np.float32)


LARGE: list[tuple[str, tuple[tuple[int, ...], ...], dict[str, Any]]] = [
    ("conv2d", ((16, 64, 12, 12), (64, 64, 5, 5), (64,)), {"padding": (2, 2)}),
    ("conv2d", ((2, 3, 65, 70), (16, 3, 7, 7)), {"stride": (2, 2), "padding": (3, 3)}),
    ("conv2d", ((4, 32, 14, 14), (64, 1, 3, 3), (64,)), {"groups": 32, "padding": (1, 1)}),
    ("conv2d", ((2, 24, 20, 20), (36, 8, 3, 3), (36,)), {"groups": 3, "dilation": (2, 3)}),
    ("conv1d", ((8, 20, 300), (30, 20, 9), (30,)), {"stride": (2,)}),
    ("conv3d", ((2, 8, 9, 10, 11), (16, 8, 3, 3, 3), (16,)), {"padding": (1, 1, 1)}),
    ("conv_transpose2d", ((8, 64, 12, 12), (64, 32, 4, 4), (32,)), {"stride": (2, 2), "padding": (1, 1)}),
    ("conv2d_weight_gradient", ((6, 64, 12, 12), (6, 64, 10, 10)), {"weight_shape": (64, 64, 5, 5), "padding": (1, 1)}),
    ("max_pool2d", ((8, 64, 57, 57),), {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1)}),
    ("max_pool2d_gradient", ((8, 6, 14, 14), (8, 6, 28, 28)), {"kernel": (2, 2), "stride": (2, 2)}),
    ("avg_pool2d", ((8, 30, 28, 28),), {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1)}),
    ("linear", ((64, 784), (256, 784), (256,)), {}),
    ("linear", ((4, 30, 200), (100, 200), (100,)), {}),
    ("matmul", ((300, 200), (200, 100)), {}),
    ("matmul", ((3, 100, 200), (200, 100)), {}),
    ("layer_norm", ((20, 100, 96), (96,), (96,)), {"dims": 1}),
    ("layer_norm_gradient", ((1300, 7, 9), (1300, 7, 9), (7, 9)), {"dims": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shapes", "settings"), LARGE)
def test_agrees_with_the_reference_where_it_is_large(
    name: str, shapes: tuple[tuple[int, ...], ...], settings: dict[str, Any]
) -> None:
    op = ops.TABLE[name]
    inputs = tuple(numbers(*shape, seed=i) for i, shape in enumerate(shapes))
    assert is_ours(op, inputs, op.bind(len(inputs), settings))
    for layout in LAYOUTS.values():
        check(op, tuple(map(layout, inputs)), settings)


def test_elements_that_share_memory() -> None:
    one = np.broadcast_to(numbers(1, 1, 1, 1), (2, 4, 6, 6))  # a gradient of a sum, say
    check(ops.conv2d, (one, numbers(8, 4, 3, 3)), {})
    check(ops.conv2d_weight_gradient, (numbers(2, 4, 8, 8), one), {"weight_shape": (4, 4, 3, 3)})


# What is not finite.


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 3e30])
def test_maxima_of_what_is_not_finite(odd: float) -> None:
    rng = np.random.default_rng(0)
    for settings in (
        {"kernel": (2, 2), "stride": (2, 2)},
        {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 1), "ceil_mode": True},
        {"kernel": (2, 2), "stride": (1, 2), "dilation": (2, 3)},
    ):
        for share in (0.02, 0.6):
            x = numbers(2, 5, 9, 8)
            x[rng.random(x.shape) < share] = odd
            y = check(ops.max_pool2d, (x,), settings)
            check(ops.max_pool2d_gradient, (numbers(*y.shape), x), settings)


# Layouts.


def test_a_chain_stays_channels_last() -> None:
    with hal.no_grad():
        x = hal.from_numpy(numbers(2, 3, 32, 32))
        for i, width in enumerate((16, 32)):
            weight = hal.from_numpy(numbers(width, x.shape[1], 3, 3, seed=i))
            x = ops.max_pool2d(ops.relu(ops.conv2d(x, weight, padding=(1, 1))), kernel=(2, 2), stride=(2, 2))
            assert x.buffer.transpose(0, 2, 3, 1).flags.c_contiguous
    assert x.shape == (2, 32, 8, 8)


def test_gradients_stay_channels_last_and_those_of_weights_are_plain() -> None:
    x = hal.tensor(numbers(2, 8, 10, 10), requires_grad=True)
    weight = hal.tensor(numbers(16, 8, 3, 3), requires_grad=True)
    y = ops.conv2d(x, weight)
    y.backward(ops.relu(y).detach())
    assert x.grad is not None
    assert weight.grad is not None
    assert x.grad.buffer.transpose(0, 2, 3, 1).flags.c_contiguous
    assert weight.grad.buffer.flags.c_contiguous


# Many calls.


def test_other_dtypes_are_not_touched() -> None:
    for dtype in (dtypes.float64, dtypes.float16, dtypes.bfloat16, dtypes.int32):
        inputs = tuple(x.astype(dtype.numpy) for x in (numbers(1, 2, 5, 5), numbers(3, 2, 3, 3)))
        assert not is_ours(ops.conv2d, inputs, ops.conv2d.bind(2, {}))


def test_off_leaves_all_to_numpy() -> None:
    inputs = numbers(1, 2, 5, 5), numbers(3, 2, 3, 3)
    settings = ops.conv2d.bind(2, {})
    with hal_onednn.off():
        assert not is_ours(ops.conv2d, inputs, settings)
        assert check(ops.conv2d, inputs, {}).flags.c_contiguous
    assert is_ours(ops.conv2d, inputs, settings)
    assert not check(ops.conv2d, inputs, {}).flags.c_contiguous


def test_several_threads_at_once() -> None:
    weight = hal.from_numpy(numbers(32, 16, 3, 3))
    images = [hal.from_numpy(numbers(4, 16, 20, 20, seed=i)) for i in range(8)]

    def work(x: hal.Tensor) -> Array:
        with hal.no_grad():
            y = ops.max_pool2d(ops.conv2d(x, weight), kernel=(2, 2), stride=(2, 2))
        return np.array(y.numpy())

    want = [work(x) for x in images]
    wrong: list[int] = []

    def repeat(first: int) -> None:
        for turn in range(20):
            i = (first + turn) % len(images)
            if not np.array_equal(work(images[i]), want[i]):
                wrong.append(i)

    workers = [threading.Thread(target=repeat, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_results_are_new_memory() -> None:
    x, weight = hal.from_numpy(numbers(2, 4, 6, 6)), hal.from_numpy(numbers(8, 4, 3, 3))
    with hal.no_grad():
        first = ops.conv2d(x, weight)
        kept = first.numpy().copy()
        second = ops.conv2d(x * 2, weight)
    np.testing.assert_array_equal(first.numpy(), kept)
    assert not np.shares_memory(first.buffer, second.buffer)
