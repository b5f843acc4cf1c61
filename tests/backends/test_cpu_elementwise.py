"""Elementwise kernels of the CPU: any layout, any size, and results written over their own input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from hal import dtypes, ops
from hal.dtypes import DType
from hal.op import Array, Op
from hal.spec import Spec
from hal_cpu.all_kernels import kernels
from hal_cpu.blocks import BLOCK, SMALL

SETTINGS: dict[str, dict[str, Any]] = {"clip": {"low": -0.5, "high": 1.0}}
SIZES = (0, 1, SMALL, SMALL + 1, BLOCK, 2 * BLOCK + 3, 1 << 19)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with np.errstate(all="ignore"):  # as the backend has it
        yield


def kernel_of(op: Op, *inputs: Array) -> Callable[..., Any] | None:
    settings = {**op.defaults, **SETTINGS.get(op.name, {})}
    kernel = kernels.find(op, tuple(Spec(x.shape, dtypes.of(x.dtype)) for x in inputs), settings)
    return None if kernel is None else lambda *given, **out: kernel.run(*given, **out, **settings)


def run(op: Op, *inputs: Array, **out: Array) -> Array:
    kernel = kernel_of(op, *inputs)
    assert kernel is not None
    return np.asarray(kernel(*inputs, **out))


def numbers(size: int, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(size).uniform(-3, 3, size).astype(dtype)


UNARY = [
    op for name, op in sorted(ops.TABLE.items())
    if op.kind == "elementwise" and len(op.input_names) == 1 and name not in ("cast", "bitwise_invert")
    and kernel_of(op, numbers(3)) is not None
]  # fmt: skip


def assert_close(got: Array, want: Array) -> None:
    """NumPy's code for vectors and for single numbers may round differently."""
    if want.dtype == bool:
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_array_max_ulp(got, want, 4)


LAYOUTS: list[Callable[[Array], Array]] = [
    lambda x: x.reshape(10, 10).T,
    lambda x: x.reshape(10, 10)[::-1, ::2],
    lambda x: x.reshape(4, 25)[:, ::-1],
    lambda x: x[5:6].reshape(()),
    lambda x: np.resize(x, (3, BLOCK)).T,
    lambda x: np.resize(x, (BLOCK, 4))[:, ::3],
    lambda x: np.resize(x, (2, 50, 60, 3)).transpose(0, 3, 1, 2),  # channels side by side, as convolutions leave them
]


@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.name)
def test_layout_and_size_change_nothing(op: Op) -> None:
    x = numbers(100)
    alone = np.array([run(op, x[i : i + 1])[0] for i in range(100)])
    for size in SIZES:
        assert_close(run(op, np.resize(x, size)), np.resize(alone, size))
    for layout in LAYOUTS:
        view, want = layout(x), layout(alone)
        assert_close(run(op, view), want)
        for out in (np.empty(want.shape, want.dtype), np.empty(want.shape[::-1], want.dtype).T):
            run(op, view, out=out)
            assert_close(out, want)


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize("op", UNARY, ids=lambda op: op.name)
def test_result_may_replace_the_input(op: Op, dtype: DType) -> None:
    for size in (7, SMALL + 1, 2 * BLOCK + 3):
        x = numbers(size, dtype.numpy)
        want = run(op, x)
        if want.dtype == x.dtype:
            run(op, x, out=x)
            np.testing.assert_array_equal(x.astype(np.float64), want.astype(np.float64))


@pytest.mark.parametrize("dtype", [np.bool_, np.int16, np.float16, np.float32, np.float64, np.complex64, np.complex128])
def test_where_in_every_width(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    zero = np.zeros((), dtype)
    for shape in ((5,), (2 * BLOCK + 3,), (BLOCK, 3)):
        a, b = (rng.integers(0, 9, shape).astype(dtype) for _ in range(2))
        condition = rng.random(shape) < 0.5
        tall = rng.random((shape[0], *[1] * (len(shape) - 1))) < 0.5
        for c, x, y in (
            (condition, a, b),
            (condition, a, zero),
            (condition, zero, b),
            (tall, a, b),
            (condition[::-1], a, b),
        ):
            want = np.where(c, x, y)
            np.testing.assert_array_equal(run(ops.where, c, x, y), want)
            np.testing.assert_array_equal(run(ops.where, c, x, y, out=np.empty(want.shape, dtype)), want)
            if x.shape == want.shape:
                replaced = x.copy()
                np.testing.assert_array_equal(run(ops.where, c, replaced, y, out=replaced), want)
            if y.shape == want.shape:
                replaced = y.copy()
                np.testing.assert_array_equal(run(ops.where, c, x, replaced, out=replaced), want)


def test_where_keeps_the_order_of_what_it_is_given() -> None:
    rng = np.random.default_rng(0)
    mask, a, b = rng.random((3, 2, 90, 100, 3), np.float32).transpose(0, 1, 4, 2, 3)
    mask = mask > 0.5
    for x, y in ((a, b), (a, np.zeros((), np.float32)), (np.zeros((), np.float32), np.ascontiguousarray(b))):
        want = np.where(mask, x, y)
        np.testing.assert_array_equal(run(ops.where, mask, x, y), want)
        np.testing.assert_array_equal(run(ops.where, mask, x, y, out=np.empty(want.shape, np.float32)), want)
    assert run(ops.where, mask, a, b).strides == a.strides


def test_what_where_does_not_choose_leaves_no_trace() -> None:
    x = np.where(np.arange(2 * BLOCK) % 2, np.nan, np.inf).astype(np.float32)
    mask = np.arange(2 * BLOCK) == 1
    got = run(ops.where, mask, x, np.array(-0.0, np.float32))
    assert np.isnan(got[1])
    assert np.count_nonzero(got) == 1
    assert np.signbit(got[2:]).all()


def test_squares_need_no_power() -> None:
    x = numbers(1000)
    np.testing.assert_array_equal(run(ops.pow, x, np.array(2, np.float32)), np.square(x))
    column, row = np.array([[2.0], [3.0]]), np.array([2.0, 0.5])
    np.testing.assert_array_equal(run(ops.pow, column, row), np.power(column, row))
