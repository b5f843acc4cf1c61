"""The PE level against what it stands for: hardware in Verilog, the event level's cycles, and arithmetic bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hal.plugin import Array
from hal_systolic import pe, rtl
from hal_systolic.config import Machine
from hal_systolic.numerics import Numerics, integer_product
from hal_systolic.rounding import rounded
from hal_systolic.simulation import simulate
from hal_systolic.work import Matmul, Operand

icarus = pytest.mark.skipif(not rtl.installed(), reason="needs Icarus Verilog: apt install iverilog")


def watched(inputs: list[pe.Inputs], array: pe.WeightStationary | pe.OutputStationary) -> Array:
    sums = []
    for edge in inputs:
        array.clock(edge)
        sums.append(array.sums.copy())
    return np.stack(sums)


def agrees_with_verilog(seed: int, folder: Path, largest: int) -> None:
    """One random shape and dataflow: every sum of every processing element after every edge."""
    rng = np.random.default_rng(seed)
    rows, cols, m, tiles = (int(x) for x in rng.integers(1, (largest + 1, largest + 1, 2 * largest, 4)))
    buffers = (2, 1, None)[seed % 3]
    if buffers is None:
        a, b = rng.integers(-128, 128, (rows, m)), rng.integers(-128, 128, (m, cols))
        inputs = list(pe.output_stationary_inputs(a.astype(np.int32), b.astype(np.int32)))
        array: pe.WeightStationary | pe.OutputStationary = pe.OutputStationary(rows, cols, np.dtype(np.int32))
    else:
        a, w = rng.integers(-128, 128, (tiles, m, rows)), rng.integers(-128, 128, (tiles, rows, cols))
        inputs = list(pe.weight_stationary_inputs(a.astype(np.int32), w.astype(np.int32), buffers))
        array = pe.WeightStationary(rows, cols, np.dtype(np.int32), buffers)
    np.testing.assert_array_equal(watched(inputs, array), rtl.simulate(inputs, folder, buffers=buffers))


@icarus
@pytest.mark.parametrize("seed", range(3))
def test_every_register_of_sums_is_the_one_of_the_hardware(seed: int, tmp_path: Path) -> None:
    agrees_with_verilog(seed, tmp_path, 5)


@icarus
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 60))
def test_every_register_of_sums_is_the_one_of_the_hardware_on_more_shapes(seed: int, tmp_path: Path) -> None:
    agrees_with_verilog(seed, tmp_path, 16 if seed % 10 == 0 else 8)


def in_array_order(a: Array, b: Array, rows: int) -> Array:
    """The definition: down a column in the order of the rows, then tile by tile along k; padding adds zeros."""
    out: Array | None = None
    for k in range(0, a.shape[1], rows):
        sums = np.zeros((a.shape[0], b.shape[1]), a.dtype)
        for row in range(k, min(k + rows, a.shape[1])):
            sums = sums + a[:, row, None] * b[row]
        out = sums if out is None else out + sums
    assert out is not None
    return out


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize("buffers", [1, 2])
def test_products_have_the_bits_of_their_definition(dtype: type, buffers: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):
        rows, cols, m, k, n = (int(x) for x in rng.integers(1, 12, 5))
        a, b = (rng.normal(0, 60, shape).astype(dtype) for shape in ((m, k), (k, n)))
        run = pe.matmul(a, b, rows, cols, buffers=buffers)
        assert run.out.tobytes() == in_array_order(a, b, rows).tobytes()


@pytest.mark.parametrize("seed", range(8))
def test_the_functional_level_has_the_bits_of_the_registers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, cols, m, k, n = (int(x) for x in rng.integers(1, (16, 16, 30, 60, 30)))
    a, b = (rounded(rng.normal(0, 10.0 ** rng.integers(-3, 4), shape).astype(np.float32)) for shape in ((m, k), (k, n)))
    for group in (1, 4):
        exact = Numerics(rows=rows, group=group, exact=True).float_product(a, b)
        assert pe.matmul(a, b, rows, cols, group=group).out.tobytes() == exact.tobytes()

    small, other = (rng.integers(-128, 128, shape, dtype=np.int8) for shape in ((m, k), (k, n)))
    run = pe.matmul(small.astype(np.int32), other.astype(np.int32), rows, cols)
    np.testing.assert_array_equal(run.out, integer_product(small, other))


@pytest.mark.parametrize("dataflow", ["os", "is"])
def test_the_other_dataflows_multiply(dataflow: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        rows, cols, m, k, n = (int(x) for x in rng.integers(1, 12, 5))
        a, b = (rng.integers(-128, 128, shape).astype(np.int32) for shape in ((m, k), (k, n)))
        np.testing.assert_array_equal(pe.matmul(a, b, rows, cols, dataflow=dataflow).out, a @ b)


def without_memory(rows: int, cols: int, dataflow: str, buffers: int) -> Machine:
    return Machine().override(rows=rows, cols=cols, dataflow=dataflow, weight_buffers=buffers, compat="scalesim")


def test_cycles_are_those_of_the_event_level_and_of_the_formulas() -> None:
    rng = np.random.default_rng(2)
    for i in range(520):
        rows, cols = (int(x) for x in rng.integers(1, 8, 2))
        m, k, n = (int(x) for x in rng.integers(1, 14, 3))
        dataflow, buffers = ("ws", "os", "is")[i % 3], 1 + i // 3 % 2
        a, b = np.ones((m, k), np.int32), np.ones((k, n), np.int32)
        cycles = pe.matmul(a, b, rows, cols, dataflow=dataflow, buffers=buffers).cycles

        operands = (Operand(key, 1) for key in range(3))
        machine = without_memory(rows, cols, dataflow, buffers)
        assert simulate([Matmul(m, k, n, *operands)], machine).cycles == cycles

        held, across, streamed = {"ws": (k, n, m), "is": (k, m, n), "os": (m, n, k)}[dataflow]
        folds = -(-held // rows) * -(-across // cols)
        if dataflow == "os":
            assert cycles == folds * (k + 2 * rows + cols - 3)
        elif buffers == 2:
            assert cycles == rows + (folds - 1) * max(streamed, rows) + streamed + rows + cols - 2
        else:
            assert cycles == folds * (2 * rows + cols + streamed - 2)


@pytest.mark.parametrize(("m", "rows", "cols"), [(1, 1, 1), (5, 4, 3), (2, 6, 5), (9, 3, 8)])
def test_the_wavefront_is_as_wide_as_three_boxes(m: int, rows: int, cols: int) -> None:
    busy: list[int] = []
    a, b = np.ones((m, rows), np.int32), np.ones((rows, cols), np.int32)
    pe.matmul(a, b, rows, cols, watch=lambda _, array: busy.append(np.count_nonzero(array.activations)))
    np.testing.assert_array_equal(busy[rows:], pe.occupancy(m, rows, cols))
    assert sum(busy) == m * rows * cols
