"""Convolutions on OpenCL: those of the op records and some of our own, in every layout, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hal
from hal import ops
from hal.codegen.kernels import convolution
from hal.codegen.kernels.products import Tiles
from hal_opencl import gemm_launch

KINDS = ("conv{}d", "conv_transpose{}d", "conv{}d_weight_gradient")
OWN: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((3, 4, 7, 9), (6, 4, 3, 3), {"padding": (1, 1)}),
    ((2, 4, 9, 8), (8, 2, 3, 2), {"stride": (2, 3), "padding": (1, 0), "groups": 2}),
    ((2, 3, 12, 11), (5, 3, 3, 3), {"dilation": (2, 3), "padding": (2, 1), "stride": (1, 2)}),
    ((2, 6, 5, 5), (6, 1, 3, 3), {"padding": (1, 1), "groups": 6}),
    ((3, 8, 6, 7), (70, 8, 1, 1), {}),
    ((2, 8, 12, 13), (14, 8, 1, 1), {}),
    ((2, 3, 3, 3), (4, 3, 1, 1), {"stride": (2, 2), "padding": (1, 1)}),
    ((40, 3, 30, 20), (16, 3, 3, 3), {"padding": (1, 1)}),
    ((4, 3, 5, 5), (70, 3, 5, 5), {}),
]


@pytest.fixture(params=["planes", *(pytest.param(way, marks=pytest.mark.slow) for way in ("columns", "tiles"))])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How columns are read, and by which kernel."""
    if request.param == "planes":
        monkeypatch.setattr(convolution, "SPARSE", 1 << 40)
    if request.param == "columns":
        monkeypatch.setattr(convolution, "SPARSE", -1)
    if request.param == "tiles":
        monkeypatch.setattr(gemm_launch, "shape_of", lambda runtime: Tiles(4, 4, 2, 2))
        monkeypatch.setattr(hal.device("opencl").backend.runtime, "tables", False)
    return str(request.param)


def check(name: str, inputs: tuple[Any, ...], settings: dict[str, Any], dtype: Any) -> None:
    op = ops.TABLE[name]
    given = [np.asarray(a).astype(dtype) if np.asarray(a).dtype.kind == "f" else np.asarray(a) for a in inputs]
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in given]
    wanted = op.reference(*wide, **{**op.defaults, **settings})
    found = op(*(hal.tensor(a, device="opencl") for a in given), **settings).cpu().numpy()
    assert found.shape == wanted.shape
    scale = max(np.abs(wanted).max(), 1) if wanted.size else 1
    units = 0 if found.dtype.kind != "f" else 30 * np.finfo(found.dtype).eps
    np.testing.assert_allclose(found, wanted, rtol=0, atol=units * scale, err_msg=f"{name} {settings}")


def three(x: tuple[int, ...], weight: tuple[int, ...], settings: dict[str, Any], dtype: Any) -> None:
    """A convolution and both of its gradients."""
    rng = np.random.default_rng(0)
    image, weights, bias = rng.normal(size=x), rng.normal(size=weight), rng.normal(size=weight[0])
    check("conv2d", (image, weights, bias), settings, dtype)
    places = ops.conv2d.infer(hal.zeros(x).spec, hal.zeros(weight).spec, **{**ops.conv2d.defaults, **settings}).shape
    g = rng.normal(size=places)
    check("conv2d_weight_gradient", (image, g), {**settings, "weight_shape": weight}, dtype)
    check("conv_transpose2d", (g, weights, rng.normal(size=x[1])), settings, dtype)


def test_a_convolution_and_its_gradients() -> None:
    three(*OWN[0], np.float32)


@pytest.mark.slow
def test_convolutions_and_their_gradients(way: str) -> None:
    for x, weight, settings in OWN:
        three(x, weight, settings, np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_cases_of_the_op_records(axes: int) -> None:
    for kind in KINDS:
        op = ops.TABLE[kind.format(axes)]
        for sample in op.samples(np.random.default_rng(1)):
            if not sample.exact:
                check(op.name, sample.inputs, dict(sample.settings), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_other_dtypes(dtype: Any, way: str) -> None:
    for kind in KINDS:
        op = ops.TABLE[kind.format(2)]
        for sample in op.samples(np.random.default_rng(1)):
            if sample.exact == (dtype is np.int32):
                check(op.name, sample.inputs, dict(sample.settings), dtype)


@pytest.mark.slow
def test_views_are_read_where_they_lie() -> None:
    rng = np.random.default_rng(0)
    image, weights = rng.normal(size=(9, 8, 3, 2)).astype(np.float32), rng.normal(size=(3, 3, 3, 4)).astype(np.float32)
    x = hal.tensor(image, device="opencl").permute(3, 2, 0, 1)[:, :, ::2]
    w = hal.tensor(weights, device="opencl").permute(3, 0, 1, 2)
    wanted = ops.conv2d.reference(
        image.transpose(3, 2, 0, 1)[:, :, ::2].astype(np.float64),
        weights.transpose(3, 0, 1, 2).astype(np.float64),
        **ops.conv2d.defaults,
    )
    np.testing.assert_allclose(ops.conv2d(x, w).cpu().numpy(), wanted, rtol=0, atol=1e-4)


def test_a_result_can_be_written_into_given_memory() -> None:
    rng = np.random.default_rng(0)
    x, w = (hal.tensor(rng.normal(size=s).astype(np.float32), device="opencl") for s in ((2, 3, 6, 6), (4, 3, 3, 3)))
    out = hal.zeros((2, 4, 4, 4), device="opencl")
    given = dict(ops.conv2d.defaults)
    convolution.convolve("conv2d", x.storage.buffer, w.storage.buffer, out=out.storage.buffer, **given)
    assert hal.equal(out, ops.conv2d(x, w)).all().item()
