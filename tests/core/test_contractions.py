"""Contractions beyond their samples: what a gradient costs, exact integers, equations that mean nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hal
from hal import ops
from hal.abstract import ABSTRACT, recording_calls
from hal.errors import ShapeError
from hal.tensor import CONSTANT, Tensor


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


def abstract(*shape: int) -> Tensor:
    return Tensor(None, hal.Spec(shape, hal.float32), ABSTRACT, CONSTANT)


@pytest.mark.parametrize(
    ("op", "shapes", "flops"),
    [
        (ops.matmul, [(64, 784), (784, 256)], 2 * 64 * 784 * 256),
        (ops.matmul, [(8, 128, 32), (32, 16)], 2 * 8 * 128 * 32 * 16),
        (ops.matmul, [(8, 128, 32), (8, 32, 16)], 2 * 8 * 128 * 32 * 16),
        (ops.linear, [(64, 784), (256, 784), (256,)], 2 * 64 * 784 * 256),
        (ops.linear, [(8, 16, 32), (4, 32), (4,)], 2 * 8 * 16 * 32 * 4),
    ],
)
def test_a_gradient_is_one_product_of_the_size_of_the_first(op: hal.Op, shapes: list[Any], flops: int) -> None:
    inputs = [abstract(*s) for s in shapes]
    out = op(*inputs)
    assert op.gradient is not None
    for entry in op.gradient(out, out, *inputs)[:2]:
        assert callable(entry), "what is not needed must not be computed"
        with recording_calls() as calls:
            entry()
        products = [c for c in calls if c.op is ops.matmul]
        assert len(products) == 1
        assert products[0].op.cost(*products[0].inputs, out=products[0].result).flops == flops


def test_integer_products_are_exact_and_wrap_around() -> None:
    rng = np.random.default_rng(0)
    for dtype, bound in [(np.int8, 128), (np.int16, 2**15), (np.int32, 2**31), (np.int64, 2**40), (np.uint8, 256)]:
        low = 0 if dtype is np.uint8 else -bound
        a, b = rng.integers(low, bound, (120, 130)).astype(dtype), rng.integers(low, bound, (130, 90)).astype(dtype)
        got = ops.matmul(hal.from_numpy(a), hal.from_numpy(b)).numpy()
        exact = a.astype(object) @ b.astype(object)
        width = 8 * np.dtype(dtype).itemsize
        assert ((got.astype(object) - exact) % 2**width == 0).all()
        assert got.dtype == dtype


def test_half_precision_is_rounded_once() -> None:
    rng = np.random.default_rng(0)
    for dtype in (hal.float16, hal.bfloat16):
        a, b = rng.normal(size=(20, 500)).astype(dtype.numpy), rng.normal(size=(500, 20)).astype(dtype.numpy)
        got = ops.matmul(hal.from_numpy(a), hal.from_numpy(b)).numpy()
        want = (a.astype(np.float32) @ b.astype(np.float32)).astype(dtype.numpy)
        assert (got == want).all()


@pytest.mark.parametrize("shape", [(40, 40), (300, 300), (3, 200, 200)])
def test_a_product_written_into_an_input_is_right(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(shape, dtype=np.float32), rng.random(shape, dtype=np.float32)
    for op, want in [(ops.matmul, a @ b), (ops.linear, a @ b.mT)][: 4 - len(shape)]:
        for target in (0, 1):
            given = [hal.tensor(a), hal.tensor(b)]
            hal.run_into((given[target],), op, tuple(given), {})
            np.testing.assert_allclose(given[target].numpy(), want, rtol=1e-5)


@pytest.mark.parametrize(
    ("shapes", "equation", "message"),
    [
        ([(2, 3), (4, 5)], "ij,jk->ik", "needs one size for all axes 'j', which have 3 and 4"),
        ([(2, 3)], "ij,jk->ik", "names 2 operands"),
        ([(2, 3)], "ijk->i", r"has 3 letters for an operand of 2 axes, \(2, 3\)"),
        ([(2, 3)], "i->i", r"has 1 letters for an operand of 2 axes, \(2, 3\)"),
        ([(2, 3)], "ij->k", "needs each letter of the result once, and in some operand"),
        ([(2, 3)], "ij->ii", "needs each letter of the result once, and in some operand"),
        ([(2, 3)], "i1->i", "needs letters, one for each axis"),
        ([(2, 3)], "i......->i", "at most one ellipsis"),
    ],
)
def test_equations_that_mean_nothing_say_why(shapes: list[tuple[int, ...]], equation: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        ops.einsum(*(hal.zeros(s) for s in shapes), equation=equation)


@pytest.mark.parametrize(
    ("op", "shapes", "settings", "message"),
    [
        (ops.matmul, [(2, 3), (4, 5)], {}, r"matmul needs \(\.\.\., m, k\) @ .* got \(2, 3\) @ \(4, 5\)"),
        (ops.matmul, [(2, 3), ()], {}, r"use \* for a single value"),
        (ops.matmul, [(2, 2, 3), (3, 3, 4)], {}, "matmul needs shapes that broadcast"),
        (ops.linear, [(2, 3), (4, 5)], {}, r"linear needs an input \(\.\.\., in_features\) and a weight"),
        (ops.linear, [(2, 3), (4, 3), (3,)], {}, "linear needs a bias of 4 elements"),
        (ops.tensordot, [(2, 3), (4, 5)], {"axes": 1}, "tensordot needs equal sizes along axes=1"),
        (ops.tensordot, [(2, 3), (4, 5)], {"axes": ((0, 1), (0,))}, "tensordot needs as many axes of one input"),
    ],
)  # fmt: skip
def test_errors_say_what_was_needed(
    op: hal.Op, shapes: list[tuple[int, ...]], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        op(*(hal.zeros(s) for s in shapes), **settings)
