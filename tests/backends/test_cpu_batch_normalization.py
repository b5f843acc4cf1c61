"""Batch normalization on the CPU for arrays whose channels lie side by side in memory: the same numbers, kept so."""

from __future__ import annotations

import numpy as np
import pytest

from hal import ops
from hal.op import Array, Op
from hal.spec import Spec
from hal.testing.accuracy import judge, specs_of
from hal_cpu.all_kernels import kernels

SHAPES = [(2, 3, 4, 5), (8, 64, 7, 9), (3, 5, 11), (5, 7, 19, 23), (2, 6, 3, 4, 5), (13, 4, 1, 1)]


def channels_last(x: Array) -> Array:
    """The same array, stored (N, ..., C)."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def run(op: Op, inputs: tuple[Array, ...], **out: tuple[Array, ...] | Array) -> tuple[Array, ...]:
    settings = op.bind(len(inputs), {})
    kernel = kernels.find(op, specs_of(op, inputs, settings), settings)
    assert kernel is not None
    result = kernel.run(*inputs, **settings, **out)
    return result if isinstance(result, tuple) else (result,)


def calls(shape: tuple[int, ...]) -> list[tuple[Op, tuple[Array, ...]]]:
    rng = np.random.default_rng(0)
    x, g = (rng.uniform(-2, 2, shape).astype(np.float32) for _ in range(2))
    weight, bias, mean, var = rng.uniform(0.5, 1.5, (4, shape[1])).astype(np.float32)
    _, own_mean, own_var = ops.batch_norm_train.reference(x.astype(np.float64), eps=1e-5)
    own = own_mean.astype(np.float32), own_var.astype(np.float32)
    return [
        (ops.batch_norm, (x, mean, var, weight, bias)),
        (ops.batch_norm_train, (x, weight, bias)),
        (ops.batch_norm_train_gradient, (g, x, *own, weight)),
    ]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_layout_gives_the_right_numbers(shape: tuple[int, ...]) -> None:
    for op, inputs in calls(shape):
        images = [i for i, x in enumerate(inputs) if x.shape == shape]
        for turned in ([], images, images[:1], images[-1:]):
            given = tuple(channels_last(x) if i in turned else x for i, x in enumerate(inputs))
            settings = op.bind(len(given), {})
            specs = op.infer(*specs_of(op, given, settings), **settings)
            specs = specs if isinstance(specs, tuple) else (specs,)
            got = run(op, given)
            assert tuple(Spec(y.shape, specs[0].dtype) for y in got) == specs
            verdict = judge(op, given, settings, got, specs)
            assert verdict.passed, f"{op.name}, channels last: {turned}: {verdict}"
            outs = tuple(np.empty_like(y, order="C") for y in got)
            run(op, given, out=outs if len(outs) > 1 else outs[0])
            for y, out in zip(got, outs, strict=True):
                np.testing.assert_array_equal(out, y)


def test_results_lie_in_memory_as_the_input_does() -> None:
    for op, inputs in calls((8, 6, 5, 4)):
        given = tuple(channels_last(x) if x.ndim == 4 else x for x in inputs)
        assert run(op, given)[0].strides == channels_last(inputs[0]).strides
        assert run(op, inputs)[0].flags.c_contiguous
