"""Matrix products on OpenCL: every way to compute them, for operands that lie anywhere, against float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hal
from hal import ops
from hal.codegen.kernels import gemm
from hal.codegen.kernels.products import Tiles
from hal_opencl import gemm_launch, gemm_shapes
from hal_opencl.gemm_shapes import Panels

SHAPES = [
    ((3, 5), (5, 7)), ((5,), (5,)), ((2, 3), (3,)), ((3,), (3, 2)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 2)),
    ((2, 1, 2, 3), (4, 3, 2)), ((13, 257), (257, 35)), ((2, 700), (700, 3)), ((0, 3), (3, 2)), ((2, 0), (0, 3)),
    ((100, 33), (33, 129)), ((2, 3, 2, 3, 4, 5), (2, 1, 2, 1, 5, 3)), ((1, 40), (40, 50)), ((50, 40), (40, 1)),
    ((3, 1, 70), (3, 70, 601)),
]  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "as chosen": {},
    "all packed": {"PACKED_A": 0, "IN_PLACE_B": 0, "SHORT_DOTS": 0},
    "tiles": {"shape_of": lambda runtime: Tiles(4, 4, 2, 2)},
}


@pytest.fixture(params=["as chosen", *(pytest.param(way, marks=pytest.mark.slow) for way in list(WAYS)[1:])])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One way to compute products, by what decides it."""
    for name, value in WAYS[request.param].items():
        monkeypatch.setattr(gemm_launch, name, value)
    return str(request.param)


def agree(found: Any, wanted: Any, dtype: Any) -> None:
    assert found.shape == wanted.shape
    given = found.cpu().numpy()
    if np.issubdtype(dtype, np.integer):
        np.testing.assert_array_equal(given, wanted)
        return
    scale = np.abs(wanted).max() if wanted.size else 0
    np.testing.assert_allclose(given, wanted, rtol=0, atol=30 * np.finfo(dtype).eps * max(scale, 1))


def both(array: Any) -> tuple[Any, Any]:
    """A tensor on the device, and what it holds in float64 (an integer as it is)."""
    return hal.tensor(array, device="opencl"), array.astype(np.float64) if array.dtype.kind == "f" else array


def drawn(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> Any:
    return (np.random.default_rng(seed).normal(size=shape) * 3).astype(dtype)


def test_shapes(way: str) -> None:
    for i, (a, b) in enumerate(SHAPES):
        (x, wide_x), (y, wide_y) = both(drawn(a, seed=i)), both(drawn(b, seed=-i - 1 & 255))
        agree(x @ y, wide_x @ wide_y, np.float32)


@pytest.mark.slow
def test_views_are_read_where_they_lie(way: str) -> None:
    (x, a), (y, b) = both(drawn((40, 30))), both(drawn((60, 80), seed=1))
    for left, right in [
        ((x.mT, a.T), (y[:40], b[:40])), ((x[3:, 5:], a[3:, 5:]), (y.mT[3:28], b.T[3:28])),
        ((x[:, :20], a[:, :20]), (y[40:], b[40:])), ((x[::2], a[::2]), (y[:30, ::3], b[:30, ::3])),
        ((x.mT, a.T), (y.mT[:40], b.T[:40])),
    ]:  # fmt: skip
        agree(left[0] @ right[0], left[1] @ right[1], np.float32)


def test_linear_adds_its_bias(way: str) -> None:
    for rows, terms, made in [(5, 300, 70), (64, 64, 10), (1, 90, 33), (130, 80, 3)]:
        (x, a), (w, b), (c, d) = (
            both(drawn((rows, terms))),
            both(drawn((made, terms), seed=1)),
            both(drawn((made,), seed=2)),
        )
        agree(ops.linear(x, w, c), a @ b.T + d, np.float32)
        agree(ops.linear(x, w.mT.contiguous().mT, c), a @ b.T + d, np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32, np.int16, np.uint8, np.float16])
def test_dtypes(dtype: Any, way: str) -> None:
    for a, b in [((9, 33), (33, 65)), ((2, 5, 3), (3, 4)), ((7,), (7, 2))]:
        (x, wide_x), (y, wide_y) = both(abs(drawn(a, dtype))), both(abs(drawn(b, dtype, seed=1)))
        wanted = wide_x @ wide_y
        agree(x @ y, wanted.astype(dtype) if wanted.dtype.kind == "f" and dtype is np.float16 else wanted, dtype)


def test_sums_of_no_terms_are_the_bias() -> None:
    (x, _), (w, _), (c, d) = both(drawn((4, 0))), both(drawn((3, 0))), both(drawn((3,)))
    agree(ops.linear(x, w, c), np.tile(d, (4, 1)), np.float32)


def test_a_result_can_be_written_into_given_memory() -> None:
    (x, a), (y, b) = both(drawn((6, 5))), both(drawn((5, 4), seed=1))
    out = hal.zeros((6, 4), device="opencl")
    assert gemm.matmul(x.storage.buffer, y.storage.buffer, out=out.storage.buffer) is out.storage.buffer
    agree(out, a @ b, np.float32)


def test_a_result_may_be_written_over_an_input() -> None:
    (x, a), (y, b) = both(drawn((5, 5))), both(drawn((5, 5), seed=1))
    found = gemm.matmul(x.storage.buffer, y.storage.buffer, out=x.storage.buffer)
    assert found is x.storage.buffer
    agree(x, a @ b, np.float32)


def test_batches_collapse_to_at_most_three_axes() -> None:
    assert gemm.collapsed((4, 5), (5, 1), (0, 0)) == ((1, 1, 20), [(0, 0, 1), (0, 0, 0)])
    assert gemm.collapsed((4, 5), (5, 1), (1, 0)) == ((1, 4, 5), [(0, 5, 1), (0, 1, 0)])
    assert gemm.collapsed((2, 3, 4, 5), (0, 1, 0, 1), (1, 0, 1, 0)) is None


@pytest.mark.slow
def test_calibration_keeps_the_quickest_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = hal.zeros((1,), device="opencl").storage.buffer.memory.runtime
    there = (Panels(6, 2, 8), Tiles(4, 4, 2, 2))
    monkeypatch.setenv("HAL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(gemm_shapes, "candidates", lambda runtime: there)
    monkeypatch.setattr(gemm_shapes, "SIZE", 64)
    monkeypatch.setattr(gemm_shapes, "_chosen", {})
    times = gemm_shapes.calibrate(runtime)
    best = min(times, key=times.__getitem__)
    assert set(times) == set(there)
    gemm_shapes._chosen.clear()  # as in another process
    assert gemm_shapes.shape_of(runtime) == best
    (kept,) = json.loads((tmp_path / "opencl" / "products.json").read_text()).values()
    assert kept in [vars(s) for s in there]
