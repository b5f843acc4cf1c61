"""Libraries that hal_cuda uses where they are installed, for which the host stands in: when, and what they are asked.

What a library itself does is not seen here: docs/explanation/cuda-without-a-gpu.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu.driver import OnCPU
from cuda_on_cpu.machine import unusable
from cuda_on_cpu.plugin import on_cpu

import hal
import nn
from hal import ops
from hal.testing import suite
from hal_cuda.driver import Convolution, Refused

MIB = 1 << 20
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 6, 5)).astype(np.float32)
W = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)

pytestmark = pytest.mark.skipif(unusable(), reason="the stand-in for a GPU needs g++ on Linux")


@pytest.fixture
def driver() -> OnCPU:
    """The host as a GPU with all libraries, on which nothing was done."""
    return OnCPU(memory=256 * MIB, cudnn="cuDNN on the host", cublaslt="cuBLASLt on the host")


@pytest.fixture
def cuda(driver: OnCPU) -> Iterator[hal.Device]:
    """That GPU, on which nothing may fall back."""
    with hal.fallback("error"):
        yield on_cpu(driver).devices()[0]


def convolution(device: hal.Device, x: Any = X, w: Any = W, **settings: Any) -> np.ndarray:
    """A convolution on the device, with padding 1."""
    given = (hal.tensor(a, device=device) if isinstance(a, np.ndarray) else a for a in (x, w))
    return ops.conv2d(*given, padding=(1, 1), **settings).cpu().numpy()


def expected(x: np.ndarray = X, w: np.ndarray = W) -> np.ndarray:
    """The same in float64."""
    settings = {**ops.conv2d.defaults, "padding": (1, 1)}
    return ops.conv2d.reference(x.astype(np.float64), w.astype(np.float64), **settings)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_convolutions_conform_with_cudnn(cuda: hal.Device, driver: OnCPU, dtype: str) -> None:
    chosen = ["conv2d", "conv_transpose2d", "conv2d_weight_gradient", "conv1d", "conv3d"]
    report = suite.run(
        cuda, ["primitives", "composites"], in_process=True, cases=[f"*/{name}/{dtype}/*" for name in chosen]
    )
    assert [f"{r.id}: {r.status}" for r in report.results if r.status != "native"] == []
    assert driver.calls["convolve"] > 20
    assert not driver.reports


def test_a_convolution_is_planned_once_and_tf32_is_another(
    cuda: hal.Device, driver: OnCPU, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Convolution] = []
    plan = driver.convolution
    monkeypatch.setattr(
        driver, "convolution", lambda of, wanted, stream: asked.append(wanted) or plan(of, wanted, stream)
    )
    for _ in range(3):
        np.testing.assert_allclose(convolution(cuda), expected(), rtol=1e-4, atol=1e-5)
    monkeypatch.setenv("HAL_CUDA_TF32", "1")
    rounded = convolution(cuda)
    assert [a.precision for a in asked] == ["highest", "tf32"]
    assert asked[0]._replace(precision="tf32") == asked[1]
    assert driver.calls["convolve"] == 4
    assert 1e-5 < np.abs(rounded - expected()).max() < 2e-2
    assert cuda.backend.describe(cuda)["convolutions"] == "cuDNN on the host"


def test_what_cudnn_cannot_read_is_copied_for_it(cuda: hal.Device, driver: OnCPU) -> None:
    images = RNG.normal(size=(3, 6, 5, 3)).astype(np.float32)
    turned = hal.tensor(images, device=cuda).permute(0, 3, 1, 2)
    np.testing.assert_allclose(convolution(cuda, turned), expected(images.transpose(0, 3, 1, 2)), 1e-4, 1e-5)
    odd = hal.tensor(np.concatenate([[0], W.ravel()]).astype(np.float32), device=cuda)[1:].reshape(W.shape)
    np.testing.assert_allclose(convolution(cuda, w=odd), expected(), 1e-4, 1e-5)
    assert driver.calls["convolve"] == 2


def test_what_cudnn_declines_is_our_own_and_told_once(
    cuda: hal.Device, driver: OnCPU, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*given: Any) -> Any:
        raise Refused("no engine has these strides")

    monkeypatch.setattr(driver, "convolution", refused)
    monkeypatch.setenv("HAL_LOG", "kernels")
    for _ in range(3):
        np.testing.assert_allclose(convolution(cuda), expected(), rtol=1e-4, atol=1e-5)
    told = [line for line in capsys.readouterr().err.splitlines() if "cuDNN" in line]
    assert len(told) == 1
    assert "conv2d on cuda-on-cpu:0: not by cuDNN" in told[0]
    assert "no engine has these strides" in told[0]
    assert driver.calls["convolve"] == 0


def test_without_room_for_what_cudnn_works_in_it_is_our_own(
    cuda: hal.Device, driver: OnCPU, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cuda_on_cpu.driver.SCRATCH", 257 * MIB)
    np.testing.assert_allclose(convolution(cuda), expected(), rtol=1e-4, atol=1e-5)
    assert (driver.calls["convolution"], driver.calls["convolve"]) == (1, 0)


def test_a_convolution_that_fails_names_the_op(cuda: hal.Device, driver: OnCPU) -> None:
    driver.refuse("convolve", "CUDNN_STATUS_EXECUTION_FAILED")
    with pytest.raises(
        hal.errors.DeviceError, match=r"conv2d failed on cuda-on-cpu.*EXECUTION_FAILED.*HAL_CUDA_SYNC=1"
    ):
        convolution(cuda)
    np.testing.assert_allclose(convolution(cuda), expected(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_bias_is_added_within_the_product(cuda: hal.Device, driver: OnCPU, dtype: str) -> None:
    report = suite.run(cuda, ["composites"], in_process=True, cases=[f"*/linear/{dtype}/*"])
    assert [f"{r.id}: {r.status}" for r in report.results if r.status != "native"] == []
    assert (driver.calls["multiply_add"] > 2) == (dtype != "float64")
    x, weight = (hal.tensor(RNG.normal(size=s), device=cuda, dtype=getattr(hal, dtype)) for s in ((5, 7), (8, 7)))
    bias = hal.tensor(np.arange(9) * 100, device=cuda, dtype=getattr(hal, dtype))
    for added in (bias[:8], bias[1:], bias[::2].repeat(2)[:8]):  # not all begin where cuBLASLt wants it
        found = ops.linear(x, weight, added).float().cpu().numpy()
        want = x.double().cpu().numpy() @ weight.double().cpu().numpy().T + added.double().cpu().numpy()
        np.testing.assert_allclose(found, want, 1e-5 if dtype.startswith("float") and dtype != "float16" else 1e-2)
    assert not driver.reports


def test_where_cublaslt_has_no_algorithm_results_are_filled_with_the_bias_first(
    cuda: hal.Device, driver: OnCPU, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight = hal.tensor(X[0, 0], device=cuda), hal.tensor(W[0].reshape(3, 9)[:, :5], device=cuda)
    want = ops.linear(x, weight, hal.ones(3, device=cuda)).cpu().numpy()
    assert (driver.calls["multiply_add"], driver.calls["multiply"]) == (1, 0)
    monkeypatch.setattr(driver, "multiply_add", lambda *given: False)
    np.testing.assert_allclose(ops.linear(x, weight, hal.ones(3, device=cuda)).cpu().numpy(), want, 1e-6)
    assert driver.calls["multiply"] == 1


def losses(driver: OnCPU, compiled: bool) -> list[float]:
    """A small network of convolutions that learns on a device."""
    with on_cpu(driver).devices()[0]:
        hal.manual_seed(3)
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, stride=2), nn.Flatten(), nn.Linear(12, 4)
        )
        optimizer = nn.optim.Adam(net.parameters(), lr=0.05)

        def step(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
            loss = nn.functional.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        run: Callable[..., hal.Tensor] = hal.compile(step, exact=True) if compiled else step
        found = [run(hal.tensor(X * (1 + i % 2)), hal.tensor(np.array([0, 1]))).detach() for i in range(6)]
        return [loss.item() for loss in found]


def test_steps_with_the_libraries_are_captured_and_learn_to_the_same_bits() -> None:
    curves = []
    for compiled in (False, True):
        driver = OnCPU(order="others first", cudnn="cuDNN on the host", cublaslt="cuBLASLt on the host")
        curves.append(losses(driver, compiled))
        assert not driver.reports
        assert driver.calls["convolution"] == 5  # two forward, two by weights, one by images
        assert driver.launches["columns"] == driver.launches["images"] == 0
        assert (driver.calls["launch_graph"] > 0) == compiled
        assert (driver.calls["convolve"] < 5 * 6) == compiled
        assert (0 < driver.calls["multiply_add"] < 6) == compiled
    np.testing.assert_allclose(curves[0], losses(OnCPU(), False), rtol=1e-4)
    assert curves[0] == curves[1]
    assert curves[0][-2] < curves[0][0]
