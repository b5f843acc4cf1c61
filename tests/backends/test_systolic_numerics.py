"""The arithmetic of the simulated array: bits of bfloat16, order of sums, passes, exact integers, one answer always."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hal import blas
from hal.op import Array
from hal_systolic import PRESETS, pe, precision
from hal_systolic.accuracy import numerics_of
from hal_systolic.numerics import Numerics, accumulate, integer_product
from hal_systolic.rounding import flush, rounded, split


def nearest_even(x: Array) -> Array:
    """bfloat16 by adding to the bits of float32, written apart from what is tested."""
    bits = x.view(np.uint32)
    up = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    quiet = (bits & np.uint32(0x80000000)) | np.uint32(0x7FC00000)
    return np.where(np.isnan(x), quiet, up)


def any_bits(count: int) -> Array:
    return np.random.default_rng(0).integers(0, 2**32, count, dtype=np.uint32).view(np.float32)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_rounding_is_that_of_ieee_and_of_ml_dtypes() -> None:
    x = np.concatenate([any_bits(300_000), np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-45], np.float32)])
    got = rounded(x).view(np.uint32)
    np.testing.assert_array_equal(got, nearest_even(x))
    np.testing.assert_array_equal((got >> 16).astype(np.uint16), x.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_every_bfloat16_stays_itself() -> None:
    x = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
    x = x[~np.isnan(x)]
    np.testing.assert_array_equal(rounded(x).view(np.uint32), x.view(np.uint32))


@pytest.mark.parametrize("turned", [lambda x: x, lambda x: x.T, lambda x: x[::2, ::-1], lambda x: x[None, :, 3:]])
def test_rounding_keeps_the_shape_whatever_the_strides(turned: Callable[[Any], Any]) -> None:
    x = turned(any_bits(60).reshape(6, 10).copy())
    x = np.where(np.isnan(x), np.float32(1), x)
    np.testing.assert_array_equal(rounded(x).view(np.uint32), nearest_even(np.ascontiguousarray(x)))


def test_three_parts_make_up_a_float32() -> None:
    x = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    parts = split(x, 3)
    np.testing.assert_array_equal(sum(p.astype(np.float64) for p in parts), x)
    odd = split(np.array([np.inf, np.nan, 3.4e38], np.float32), 3)
    assert np.isinf(odd[0][0])
    assert np.isnan(odd[0][1])
    assert not np.any(odd[1])


def test_small_numbers_are_kept_or_flushed() -> None:
    x = np.array([1e-39, -1e-39, 1e-38, 2e-38], np.float32)
    assert np.count_nonzero(rounded(x)) == 4
    flushed = rounded(x, ftz=True)
    assert flushed.tolist()[:3] == [0, 0, 0]
    assert np.signbit(flushed).tolist() == [False, True, False, False]
    assert flush(np.array([1e-39], np.float32)).tolist() == [0]


def down_the_rows(a: Array, b: Array, rows: int, group: int) -> Array:
    """The sums of one array in the order of its rows, one number at a time."""
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for m in range(a.shape[0]):
        for n in range(b.shape[1]):
            for start in range(0, a.shape[1], rows):
                column = np.float32(0)
                stop = min(start + rows, a.shape[1])
                for first in range(start, stop, group):
                    step = a[m, first] * b[first, n]
                    for r in range(first + 1, min(first + group, stop)):
                        step = step + a[m, r] * b[r, n]
                    column = column + step
                out[m, n] = out[m, n] + column
    return out


@pytest.mark.parametrize(("m", "k", "n", "rows", "group"), [
    (3, 10, 4, 4, 1), (2, 9, 3, 4, 4), (1, 16, 2, 8, 4), (4, 1, 1, 8, 1), (2, 7, 2, 16, 3),
])  # fmt: skip
def test_exact_sums_run_down_the_rows(m: int, k: int, n: int, rows: int, group: int) -> None:
    rng = np.random.default_rng(m * k)
    a, b = (rounded(rng.normal(size=s).astype(np.float32)) for s in ((m, k), (k, n)))
    got = Numerics(rows, group, exact=True).float_product(a, b)
    np.testing.assert_array_equal(got.view(np.uint32), down_the_rows(a, b, rows, group).view(np.uint32))


@pytest.mark.parametrize("dataflow", ["ws", "is", "os"])
@pytest.mark.parametrize("seed", range(4))
def test_exact_sums_have_the_bits_of_every_register(dataflow: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, k, n, rows, cols = (int(x) for x in rng.integers(1, [12, 30, 12, 9, 9]))
    a, b = (rounded(rng.normal(size=s).astype(np.float32)) for s in ((m, k), (k, n)))
    machine = PRESETS["tpu-v2-core"].override(rows=rows, cols=cols, dataflow=dataflow)
    registers = pe.matmul(a, b, rows, cols, dataflow=dataflow, buffers=1 + seed % 2).out
    with precision(exact=True):
        got = numerics_of(machine).float_product(a, b)
    np.testing.assert_array_equal(got.view(np.uint32), registers.view(np.uint32))
    whole = [rng.integers(-128, 128, s) for s in ((m, k), (k, n))]
    registers = pe.matmul(*(x.astype(np.int32) for x in whole), rows, cols, dataflow=dataflow).out
    np.testing.assert_array_equal(integer_product(*(x.astype(np.int8) for x in whole)), registers)


def test_a_product_adds_to_what_is_there() -> None:
    total = np.ones((2, 2), np.float32)
    accumulate(total, np.ones((2, 3), np.float32), np.ones((3, 2), np.float32), rows=2)
    assert total.tolist() == [[4, 4], [4, 4]]


@pytest.mark.parametrize(("passes", "most"), [(1, 2.0**-7), (3, 2.0**-15), (6, 2.0**-21)])
@pytest.mark.parametrize("exact", [False, True])
def test_more_passes_are_nearer(passes: int, most: float, exact: bool) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((17, 90), (90, 13)))
    got = Numerics(32, passes=passes, exact=exact).product(a, b)
    want, size = a.astype(np.float64) @ b, np.abs(a).astype(np.float64) @ np.abs(b)
    assert float((np.abs(got - want) / size).max()) < most


def test_bfloat16_is_rounded_once_at_the_end() -> None:
    rng = np.random.default_rng(4)
    a, b = (rng.normal(size=s).astype(ml_dtypes.bfloat16) for s in ((5, 40), (40, 3)))
    sums = Numerics(8, exact=True).float_product(a.astype(np.float32), b.astype(np.float32))
    np.testing.assert_array_equal(Numerics(8, exact=True).product(a, b), sums.astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("left", [np.int8, np.uint8, np.int16])
@pytest.mark.parametrize("right", [np.int8, np.int16])
@pytest.mark.parametrize("terms", [1, 257, 4096])
def test_integers_are_exact(left: type, right: type, terms: int) -> None:
    rng = np.random.default_rng(terms)
    a, b = (
        rng.integers(np.iinfo(d).min, np.iinfo(d).max, s, endpoint=True).astype(d)
        for d, s in ((left, (3, terms)), (right, (terms, 5)))
    )
    want = (a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32)
    np.testing.assert_array_equal(integer_product(a, b), want)


def test_the_largest_sums_of_int8_are_exact() -> None:
    lowest = np.full((2, 3000), -128, np.int8)
    np.testing.assert_array_equal(integer_product(lowest, lowest.T), np.full((2, 2), 3000 * 2**14, np.int32))


@pytest.mark.skipif(blas._blas is None, reason="NumPy's BLAS does not say how many threads it uses")
def test_bits_do_not_depend_on_how_many_threads_blas_has() -> None:
    assert blas._blas is not None
    rng = np.random.default_rng(5)
    pairs = [(rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, n)).astype(np.float32))
             for m, k, n in ((414, 553, 9), (59, 629, 77), (153, 570, 58), (1, 700, 300))]  # fmt: skip
    before = blas.threads()
    found = []
    try:
        for count in (1, 2, 3):
            blas._blas[1](count)
            found.append([Numerics(128).product(a, b).tobytes() for a, b in pairs])
    finally:
        blas._blas[1](before)
    assert found[0] == found[1] == found[2]
