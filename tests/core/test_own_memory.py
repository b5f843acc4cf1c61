"""What an op computes has memory of its own on every device, so that a change in place stays where it was made."""

from __future__ import annotations

import numpy as np
import pytest

import hal
from hal import ops
from hal.dispatch import run
from hal.testing.accuracy import cast_inputs
from hal.views import VIEWS

SMALL = 1000


@pytest.mark.parametrize("device", ["cpu", "primitive"])  # kernels on the one, decompositions on the other
@pytest.mark.parametrize("op", [pytest.param(op, id=name) for name, op in ops.TABLE.items() if name not in VIEWS])
def test_a_result_shares_no_memory_with_an_input(op: hal.Op, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", device)
    for i, sample in enumerate(op.samples(np.random.default_rng(0))):
        if sum(x.size for x in sample.inputs) > SMALL:
            continue
        inputs = [hal.tensor(x) for x in cast_inputs(sample, hal.float32)]
        result = run(op, tuple(inputs), dict(sample.settings))
        for out in result if isinstance(result, tuple) else (result,):
            assert not any(out.storage is x.storage for x in inputs), f"sample {i}"
            if device == "cpu" and out.ndim:
                assert not any(np.may_share_memory(out.buffer, x.buffer) for x in inputs), f"sample {i}"
                assert out.buffer.flags.writeable, f"sample {i}"


@pytest.mark.parametrize("device", ["cpu", "primitive"])
def test_a_gradient_still_flows_through_a_copy(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", device)
    x = hal.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    for out in (ops.flip(x, axis=0), ops.einsum(x, equation="ij->ji"), ops.concat(x), ops.tile(x, repeats=(1,))):
        (g,) = hal.grad(ops.sum(out * out), [x])
        assert g.tolist() == [[2.0, 4.0], [6.0, 8.0]]


@pytest.mark.parametrize("device", ["cpu", "primitive"])
@pytest.mark.parametrize("op", [ops.sum, ops.mean], ids=lambda op: op.name)
def test_a_gradient_may_be_changed_in_place(op: hal.Op, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", device)
    x = hal.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    op(x).backward()  # one number repeated: a broadcast view, unless someone makes it whole
    assert x.grad is not None
    x.grad[0] += 1.0
    share = 1.0 if op is ops.sum else 0.25
    assert x.grad.tolist() == [[share + 1, share + 1], [share, share]]
