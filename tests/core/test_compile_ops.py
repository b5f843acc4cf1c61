"""Compiled = eager, bit for bit, on every sample of every op: results, and gradients where the sample is smooth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hal
from hal import ops
from hal.op import Array, Op
from hal.testing.accuracy import cast_inputs

EVERY_OP = [pytest.param(op, id=name) for name, op in sorted(ops.TABLE.items())]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


def same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a.view(np.uint8), b.view(np.uint8)) if (
        a.flags.c_contiguous and b.flags.c_contiguous and a.ndim
    ) else a.tobytes() == b.tobytes() and a.dtype == b.dtype and a.shape == b.shape  # fmt: skip


def results(function: Any, arrays: tuple[Array, ...], tracked: bool) -> list[Array]:
    inputs = [hal.from_numpy(np.array(x)) for x in arrays]
    for x in inputs:
        x.requires_grad = tracked and x.dtype.is_inexact
    with hal.enable_grad() if tracked else hal.no_grad():
        result = function(*inputs)
    outs = result if isinstance(result, tuple) else (result,)
    starts = [o for o in outs if o.requires_grad]
    if starts and tracked:
        leaves = [x for x in inputs if x.requires_grad]
        gs = hal.grad(starts, leaves, [hal.ones_like(o) for o in starts], allow_unused=True)
        outs = (*outs, *(g for g in gs if g is not None))
    return [o.detach().numpy() for o in outs]


@pytest.mark.parametrize("op", EVERY_OP)
def test_compiled_is_eager(op: Op) -> None:
    for i, sample in enumerate(op.samples(np.random.default_rng(0))):
        arrays = cast_inputs(sample, hal.float32)
        if sum(x.size for x in arrays) > 20_000:
            continue
        settings = op.bind(len(arrays), sample.settings)
        if "device" in settings:
            settings["device"] = hal.device("cpu")

        def run(*xs: hal.Tensor, settings: dict[str, Any] = settings) -> Any:
            return op(*xs, **settings)

        compiled = hal.compile(run, exact=True)
        tracked = sample.smooth and not op.no_gradient and any(x.dtype.kind in "fc" for x in arrays)
        want = results(run, arrays, tracked)
        for turn in range(2):  # the first call takes the steps one by one, the second is the replay
            got = results(compiled, arrays, tracked)
            assert len(got) == len(want)
            for a, b in zip(got, want, strict=True):
                assert same(a, b), f"sample {i}, call {turn}: {a} is not {b}"
        assert compiled.counters.traces == 1
