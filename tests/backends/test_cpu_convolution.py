"""The CPU's convolutions and poolings however they are cut into blocks and shared out among threads."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hal import blas, dtypes, ops
from hal.op import Array, Op
from hal.spec import Spec
from hal.testing.accuracy import judge
from hal_cpu import columns, convolution, normalization, parallel, pooling
from hal_cpu.all_kernels import kernels

CUT = [
    *(f"{name}{suffix}" for name in ("conv1d", "conv2d") for suffix in ("", "_weight_gradient")),
    *("conv_transpose1d", "conv_transpose2d", "max_pool2d", "max_pool2d_gradient", "avg_pool2d", "avg_pool2d_gradient"),
    *("adaptive_avg_pool2d", "adaptive_max_pool2d_gradient", "batch_norm_train", "batch_norm_train_gradient"),
    *("layer_norm", "layer_norm_gradient", "group_norm_gradient", "rms_norm_gradient", "local_response_norm_gradient"),
]


def specs(arrays: tuple[Array, ...]) -> list[Spec]:
    return [Spec(x.shape, dtypes.of(x.dtype)) for x in arrays]


def calls(op: Op) -> Iterator[tuple[tuple[Array, ...], dict[str, Any]]]:
    for sample in op.samples(np.random.default_rng(0)):
        yield sample.inputs, op.bind(len(sample.inputs), sample.settings)


def run(op: Op, inputs: tuple[Array, ...], settings: dict[str, Any], **out: Any) -> tuple[Array, ...]:
    kernel = kernels.find(op, specs(inputs), settings)
    assert kernel is not None
    with np.errstate(all="ignore"):
        result = kernel.run(*inputs, **settings, **out)
    return result if isinstance(result, tuple) else (result,)


def agrees(op: Op, inputs: tuple[Array, ...], settings: dict[str, Any], got: tuple[Array, ...]) -> None:
    inferred = op.infer(*specs(inputs), **settings)
    verdict = judge(op, inputs, settings, got, inferred if isinstance(inferred, tuple) else (inferred,))
    assert verdict.passed, f"{[x.shape for x in inputs]} {settings}: {verdict}"


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("threads", [1, 3])
def test_small_blocks_on_several_threads(name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (columns, convolution, pooling, normalization):
        monkeypatch.setattr(module, "BLOCK", 256)
    for module in (columns, parallel):
        monkeypatch.setattr(module, "threads", lambda: threads)
    monkeypatch.setattr(parallel, "WORTH_A_THREAD", 1)
    for inputs, settings in calls(ops.TABLE[name]):
        agrees(ops.TABLE[name], inputs, settings, run(ops.TABLE[name], inputs, settings))


@pytest.mark.parametrize("name", ["conv_transpose1d", "conv_transpose2d"])
def test_both_ways_of_the_transposed_convolution(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for way in ("_scatter", "_in_phases"):
        monkeypatch.setattr(convolution, "_scatters", lambda *sizes, way=way: way == "_scatter")
        for inputs, settings in calls(ops.TABLE[name]):
            agrees(ops.TABLE[name], inputs, settings, run(ops.TABLE[name], inputs, settings))


@pytest.mark.parametrize("name", [name for name in CUT if name != "rms_norm_gradient"])
def test_writes_into_memory_of_any_layout(name: str) -> None:
    op = ops.TABLE[name]
    for inputs, settings in calls(op):
        wanted = run(op, inputs, settings)
        outs = tuple(np.zeros((*r.shape, 2), r.dtype)[..., 0] for r in wanted)
        got = run(op, inputs, settings, out=outs if len(outs) > 1 else outs[0])
        assert all(g is o for g, o in zip(got, outs, strict=True))
        agrees(op, inputs, settings, got)


def test_the_same_sums_every_time() -> None:
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(16, 8, 30, 30)).astype(np.float32), rng.normal(size=(16, 8, 28, 28)).astype(np.float32)
    settings = ops.conv2d_weight_gradient.bind(2, {"weight_shape": (8, 8, 3, 3)})
    first = run(ops.conv2d_weight_gradient, (x, g), settings)
    assert all(np.array_equal(first, run(ops.conv2d_weight_gradient, (x, g), settings)) for _ in range(3))


# The threads themselves.


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "threads", lambda: 3)


@pytest.mark.usefixtures("three_threads")
def test_parts_cover_everything_once_and_in_order() -> None:
    assert parallel.in_parts(lambda start, stop: (start, stop), 10, 1e12) == [(0, 3), (3, 6), (6, 10)]
    assert parallel.in_parts(lambda start, stop: (start, stop), 2, 1e12) == [(0, 1), (1, 2)]
    assert parallel.in_parts(lambda start, stop: (start, stop), 10, 10) == [(0, 10)]


@pytest.mark.usefixtures("three_threads")
def test_an_error_in_any_part_is_raised_and_leaves_everything_as_it_was() -> None:
    before = blas._blas[0]() if blas._blas else 1

    def fail(start: int, stop: int) -> None:
        if start == bad:
            raise ValueError(f"part {start}")

    for bad in (0, 3, 6):
        with pytest.raises(ValueError, match=f"part {bad}"):
            parallel.in_parts(fail, 10, 1e12)
    assert (blas._blas[0]() if blas._blas else 1) == before
    assert parallel.in_parts(lambda start, stop: stop - start, 10, 1e12) == [3, 3, 4]


@pytest.mark.usefixtures("three_threads")
def test_parts_keep_the_errstate_of_their_caller() -> None:
    with np.errstate(all="ignore"):
        parts = parallel.in_parts(lambda start, stop: np.ones(2) / np.zeros(2), 3, 1e12)
    assert all(np.isinf(p).all() for p in parts)


@pytest.mark.usefixtures("three_threads")
def test_a_part_may_have_parts() -> None:
    def nested(start: int, stop: int) -> int:
        return sum(parallel.in_parts(lambda low, high: high - low, stop - start, 1e12))

    assert sum(parallel.in_parts(nested, 100, 1e12)) == 100


def _in_child(answers: Any) -> None:
    parallel.threads = lambda: 2
    answers.put(parallel.in_parts(lambda start, stop: stop - start, 10, 1e12))


@pytest.mark.usefixtures("three_threads")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 warns of what is tested here
def test_threads_after_a_fork() -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system does not fork")
    parallel.in_parts(lambda start, stop: None, 10, 1e12)
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    child = fork.Process(target=_in_child, args=(answers,))
    child.start()
    assert answers.get(timeout=30) == [5, 5]
    child.join(timeout=30)
    assert child.exitcode == 0


def test_scratch_is_reused_and_belongs_to_one_thread() -> None:
    first = parallel.scratch("test", (4, 5), np.float32)
    again = parallel.scratch("test", (2, 5), np.float64)
    assert np.shares_memory(first, again)
    assert again.shape == (2, 5)
    assert again.dtype == np.float64
