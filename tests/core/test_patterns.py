"""Layers that are written out become ops: as text, and as people write them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from before_after import check

import hal
from hal.graph.rewrite import changes_rounding
from hal.graph.rewrites.patterns import patterns


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


def test_patterns() -> None:
    """What a user wrote out becomes one op; not where something on the way is needed, or an axis is not a last one."""
    check(
        patterns,
        """
        graph(x: float32[2, 3], w: float32[3], b: float32[3])
            two: float32[] = constant(2.0)
            eps: float32[] = constant(0.5)
            v0: float32[2, 1] = max(x, axis=-1, keepdims=True)
            v1: float32[2, 3] = sub(x, v0)
            v2: float32[2, 3] = exp(v1)
            v3: float32[2] = sum(v2, axis=1)
            v4: float32[2, 1] = reshape(v3, shape=(2, 1))
            v5: float32[2, 3] = div(v2, v4)
            v6: float32[2, 1] = mean(v5, axis=1, keepdims=True)
            v7: float32[2, 3] = sub(v5, v6)
            v8: float32[2, 3] = pow(v7, two)
            v9: float32[2, 1] = mean(v8, axis=1, keepdims=True)
            v10: float32[2, 1] = add(v9, eps)
            v11: float32[2, 1] = rsqrt(v10)
            v12: float32[2, 3] = mul(v7, v11)
            v13: float32[2, 3] = mul(w, v12)
            v14: float32[2, 3] = add(v13, b)
            v15: float32[2, 3] = mul(v14, v14)
            v16: float32[2, 1] = mean(v15, axis=1, keepdims=True)
            v17: float32[2, 1] = add(eps, v16)
            v18: float32[2, 1] = sqrt(v17)
            v19: float32[2, 3] = div(v14, v18)
            v20: float32[2, 1] = logsumexp(v19, axis=1, keepdims=True)
            v21: float32[2, 3] = sub(v19, v20)
            v22: float32[1, 3] = max(v21, axis=0, keepdims=True)
            v23: float32[2, 3] = sub(v21, v22)
            v24: float32[2, 3] = exp(v23)
            v25: float32[1, 3] = sum(v24, axis=0, keepdims=True)
            v26: float32[2, 3] = div(v24, v25)
            v27: float32[2, 3] = square(x)
            v28: float32[1, 3] = mean(v27, axis=0, keepdims=True)
            v29: float32[1, 3] = add(v28, eps)
            v30: float32[1, 3] = sqrt(v29)
            v31: float32[2, 3] = div(x, v30)
            return v26, v24, v31
        """,
        """
        graph(x: float32[2, 3], w: float32[3], b: float32[3])
            two: float32[] = constant(2.0)
            eps: float32[] = constant(0.5)
            v5: float32[2, 3] = softmax(x, axis=1)
            v14: float32[2, 3] = layer_norm(v5, w, b, eps=0.5, dims=1)
            v19: float32[2, 3] = rms_norm(v14, eps=0.5, dims=1)
            v21: float32[2, 3] = log_softmax(v19, axis=1)
            v22: float32[1, 3] = max(v21, axis=0, keepdims=True)
            v23: float32[2, 3] = sub(v21, v22)
            v24: float32[2, 3] = exp(v23)
            v25: float32[1, 3] = sum(v24, axis=0, keepdims=True)
            v26: float32[2, 3] = div(v24, v25)
            v27: float32[2, 3] = square(x)
            v28: float32[1, 3] = mean(v27, axis=0, keepdims=True)
            v29: float32[1, 3] = add(v28, eps)
            v30: float32[1, 3] = sqrt(v29)
            v31: float32[2, 3] = div(x, v30)
            return v26, v24, v31
        """,
    )
    assert changes_rounding(patterns)


# fmt: off
WRITTEN_OUT: dict[str, Callable[[hal.Tensor, hal.Tensor, hal.Tensor], hal.Tensor]] = {
    "softmax": lambda x, w, b: (lambda e: e / e.sum(dim=1, keepdim=True))((x - x.max(dim=1, keepdim=True)[0]).exp()),
    "log_softmax": lambda x, w, b: (lambda z: z - z.exp().sum(-1, keepdim=True).log())(x - x.amax(-1, keepdim=True)),
    "layer_norm": lambda x, w, b: w * (x - x.mean(-1, keepdim=True))
                                  / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt() + b,
    "rms_norm": lambda x, w, b: w * (x * hal.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)),
}
# fmt: on


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_patterns_as_they_are_written(name: str) -> None:
    function = WRITTEN_OUT[name]
    given = hal.randn(4, 5, 6), hal.randn(6), hal.randn(6)
    compiled, exact = hal.compile(function), hal.compile(function, exact=True)
    want = function(*given).numpy()
    for _ in range(2):
        np.testing.assert_allclose(compiled(*given).numpy(), want, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(exact(*given).numpy(), want)
    assert [step.node.op.name for step in compiled.plans[0].steps] == [name]
    x = given[0].clone().requires_grad_()  # whose backward pass needs what is on the way
    compiled(x, *given[1:]).sum().backward()
    y = given[0].clone().requires_grad_()
    function(y, *given[1:]).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-5, atol=1e-6)
