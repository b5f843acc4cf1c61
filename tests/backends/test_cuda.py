"""The CUDA backend without a GPU: all of it but NVIDIA's own libraries, for which the host stands in.

What this shows and what not: docs/explanation/cuda-without-a-gpu.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cuda_on_cpu.driver import OnCPU
from cuda_on_cpu.machine import unusable
from cuda_on_cpu.plugin import on_cpu

import hal
import nn
from hal import ops
from hal.plugin import Unavailable
from hal.testing import suite
from hal_cuda import CUDA

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MIB = 1 << 20
X = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
Y = np.array([0, 1, 2, 3, 0, 1])

pytestmark = pytest.mark.skipif(unusable(), reason="the stand-in for a GPU needs g++ on Linux")


@pytest.fixture
def driver() -> OnCPU:
    """The host as a GPU on which nothing was done."""
    return OnCPU(memory=64 * MIB)


@pytest.fixture
def cuda(driver: OnCPU) -> Iterator[hal.Device]:
    """That GPU, on which nothing may fall back."""
    with hal.fallback("error"):
        yield on_cpu(driver).devices()[0]


def conforms(device: hal.Device, levels: list[str], **chosen: list[str]) -> None:
    """Run a part of the conformance suite."""
    report = suite.run(device, levels, in_process=True, **chosen)
    bad = [f"{r.id}: {r.status}: {r.outcome.detail}" for r in report.results if r.outcome.failed]
    assert not bad, "\n".join(bad)
    assert {r.status for r in report.results} <= {"native", "decomposed", "declined"}


def test_it_conforms_where_no_op_is_meant(cuda: hal.Device, driver: OnCPU) -> None:
    conforms(cuda, ["basics", "copies", "memory", "faults"])
    assert not driver.reports


OPS = ["sum", "matmul", "exp", "sort", "gather", "softmax"]


def test_one_op_of_each_kind_gives_what_its_reference_does(cuda: hal.Device, driver: OnCPU) -> None:
    conforms(cuda, ["primitives", "composites"], cases=[f"*/{name}/float32/*" for name in OPS])
    assert not driver.reports


# Training: streams, captures, and what the host waits for.


def stepped(net: nn.Module, optimizer: nn.optim.Optimizer) -> Callable[[hal.Tensor, hal.Tensor], hal.Tensor]:
    """One step of training."""

    def step(x: hal.Tensor, y: hal.Tensor) -> hal.Tensor:
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


class Training:
    """A small network that learns on a device, and the steps that it makes."""

    def __init__(self, device: hal.Device, compiled: bool) -> None:
        self.device = device
        with device:
            hal.manual_seed(3)
            net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
            step = stepped(net, nn.optim.Adam(net.parameters(), lr=0.02))
        self.step = hal.compile(step, exact=True) if compiled else step

    def steps(self, count: int) -> list[hal.Tensor]:
        """The losses of some steps, each on a batch that comes from the host anew."""
        with self.device:
            return [self.step(hal.tensor(X * (1 + i % 3)), hal.tensor(Y)).detach() for i in range(count)]


def values(losses: list[hal.Tensor]) -> list[float]:
    """The losses as numbers."""
    return [loss.item() for loss in losses]


def test_a_network_learns_as_on_the_cpu_to_the_same_bits_however_late_streams_are() -> None:
    want = values(Training(hal.device("cpu"), False).steps(8))
    curves = []
    for order in ("late", "others first", "at once"):
        for compiled in (False, True):
            driver = OnCPU(order=order)
            curves.append(values(Training(on_cpu(driver).devices()[0], compiled).steps(8)))
            assert not driver.reports
            assert (driver.calls["launch_graph"] > 0) == compiled
    assert all(curve == curves[0] for curve in curves)
    np.testing.assert_allclose(curves[0], want, rtol=1e-5)
    assert want[-1] < want[0]


@pytest.mark.parametrize("compiled", [False, True])
def test_the_host_waits_when_it_reads_and_never_else(driver: OnCPU, cuda: hal.Device, compiled: bool) -> None:
    training = Training(cuda, compiled)
    training.steps(6)
    with driver.counted() as calls:
        losses = training.steps(5)
    assert calls["wait"] == calls["elapsed"] == calls["free"] == calls["copy_out"] == 0
    assert calls["launch_graph"] == (5 if compiled else 0)
    if compiled:
        assert calls["launch"] == calls["multiply"] == 0
    with driver.counted() as calls:
        losses[-1].item()
    assert (calls["wait"], calls["copy_out"]) == (1, 1)


def test_a_batch_that_is_copied_while_the_device_computes_is_whole() -> None:
    for order in ("late", "others first"):
        (device,) = on_cpu(OnCPU(order=order)).devices()
        total = hal.zeros(64, 64, device=device)
        for i in range(20):  # blocks of earlier batches are used again
            total = total + hal.tensor(np.full((64, 64), i, np.float32), device=device) * 2
        assert (total.cpu().numpy() == 380).all()


def test_devices_copy_to_each_other_directly() -> None:
    for peers in (True, False):
        driver = OnCPU(devices=2, peers=peers)
        one, two = on_cpu(driver).devices()
        x = hal.tensor(X, device=one) * 2
        with driver.counted() as calls:
            y = x.T.to(two)
            del x
            z = y.to(one) + 1
        assert (calls["copy_peer"], calls["wait"], calls["copy_out"]) == (2, 0, 0)
        assert (z.cpu().numpy() == X.T * 2 + 1).all()
        assert hal.tensor(X, device=two).to("cpu").to(one).cpu().tolist() == X.tolist()


def test_sums_over_devices_are_theirs_alone_where_nccl_is() -> None:
    for collectives in (True, False):
        driver = OnCPU(devices=3, collectives=collectives)
        tensors = [hal.tensor(X * (i + 1), device=d) * 2 for i, d in enumerate(on_cpu(driver).devices())]
        with driver.counted() as calls:
            sums = hal.all_reduce(tensors)
        assert calls["all_reduce"] == collectives
        assert calls["wait"] == 0
        for x, y in zip(tensors, sums, strict=True):
            assert y.device is x.device
            np.testing.assert_allclose(y.cpu().numpy(), X * 12, rtol=1e-6)


def test_threads_that_copy_both_ways_never_wait_for_each_other() -> None:
    one, two = on_cpu(OnCPU(devices=2)).devices()
    order: list[hal.Device] = []

    class Noted:
        """A lock that notes whose it is when it is taken."""

        def __init__(self, device: hal.Device) -> None:
            self.device, self.lock = device, device.backend.runtime.lock

        def __enter__(self) -> None:
            order.append(self.device)
            self.lock.acquire()

        def __exit__(self, *error: object) -> None:
            self.lock.release()

    x, y = hal.ones(3, device=one), hal.ones(3, device=two)
    for device in (one, two):
        device.backend.runtime.lock = Noted(device)
    for move in (lambda: x.to(two), lambda: y.to(one), lambda: hal.all_reduce([y, x])):
        order.clear()
        move()
        assert order[-2:] == [one, two]


# Numbers.


def test_float32_products_are_rounded_to_tf32_where_that_is_asked_for(
    cuda: hal.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = hal.tensor([[1 + 2**-12]], device=cuda)
    assert (x @ x).item() > 1 + 2**-12
    monkeypatch.setenv("HAL_CUDA_TF32", "1")
    assert (x @ x).item() == 1
    assert "TF32" in cuda.backend.describe(cuda)["float32 products"]


@pytest.mark.parametrize("dtype", [hal.float32, hal.float16])
def test_convolutions_in_portions_are_those_of_all_images(
    cuda: hal.Device, dtype: hal.DType, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x, weight, g = (rng.normal(size=s).astype(dtype.numpy) for s in ((7, 4, 6, 5), (6, 2, 3, 3), (7, 6, 6, 5)))
    settings = {"padding": (1, 1), "groups": 2}
    calls = [(ops.conv2d, (x, weight), {}), (ops.conv_transpose2d, (g, weight), {})]
    calls += [(ops.conv2d_weight_gradient, (x, g), {"weight_shape": weight.shape})]
    for most in (1 << 28, 1):
        monkeypatch.setattr("hal_cuda.convolution.MOST", most)
        for op, given, more in calls:
            want = op.reference(*(a.astype(np.float64) for a in given), **{**op.defaults, **settings, **more})
            found = op(*(hal.tensor(a, device=cuda) for a in given), **settings, **more).cpu().numpy()
            assert found.dtype == dtype.numpy
            accuracy = 2**-10 if dtype is hal.float16 else 2e-5
            np.testing.assert_allclose(found.astype(np.float64), want, accuracy, accuracy, err_msg=op.name)


# Memory.


def test_out_of_memory_names_the_holders(cuda: hal.Device) -> None:
    kept = hal.ones(4 * MIB, device=cuda) * 3.0
    with pytest.raises(
        hal.errors.OutOfMemoryError, match=r"(?s)needs 64 MiB on cuda-on-cpu.* 1 x 16 MiB from mul"
    ) as caught:
        hal.zeros(16 * MIB, device=cuda)
    assert "smaller batches" in str(caught.value)
    assert kept[-1].item() == 3


def test_copies_and_kernels_share_the_memory(driver: OnCPU, cuda: hal.Device) -> None:
    for _ in range(2):  # each time, what the other one keeps must go
        x = hal.tensor(np.ones(7 * MIB, np.float32), device=cuda)
        assert x[-1].item() == 1
        del x
        y = hal.ones(12 * MIB, device=cuda)
        assert y[-1].item() == 1
        with pytest.raises(hal.errors.OutOfMemoryError, match="of them in use: 1 x 48 MiB from full"):
            hal.tensor(np.ones(7 * MIB, np.float32), device=cuda)
        del y
    assert driver.calls["free"] >= 3


# What goes wrong.


def test_a_kernel_that_fails_is_named_by_what_was_enqueued(driver: OnCPU, cuda: hal.Device) -> None:
    runtime = cuda.backend.runtime
    source = 'extern "C" __global__ void beyond(float *p) { p[1 << 20] = 1; }'
    runtime.launch(
        "an op", runtime.programs.kernel(source, "beyond"), (1,), (1,), runtime.empty((4,), hal.float32).memory
    )
    with pytest.raises(
        hal.errors.DeviceError,
        match=r"unusable: cudaStreamSynchronize: cudaErrorIllegalAddress.*since it was last waited for: .*an op.*"
        r"HAL_CUDA_SYNC=1",
    ):
        runtime.finish()
    assert "beyond: wrote 4 bytes" in driver.reports[0]


def test_an_op_waits_where_that_is_asked_for(driver: OnCPU, cuda: hal.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    x = hal.ones(3, device=cuda)
    monkeypatch.setenv("HAL_CUDA_SYNC", "1")
    with driver.counted() as calls:
        x * 2
    assert calls["wait"] == calls["launch"] == 1


def test_a_refused_launch_says_which_op_it_was(driver: OnCPU, cuda: hal.Device) -> None:
    x = hal.ones(3, device=cuda)
    driver.refuse("launch", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")
    with pytest.raises(hal.errors.DeviceError, match=r"mul failed on cuda-on-cpu.*OUT_OF_RESOURCES.*HAL_CUDA_SYNC=1"):
        x * 2
    assert (x * 2).cpu().tolist() == [2, 2, 2]


def test_a_source_that_does_not_compile_is_kept_and_named(
    cuda: hal.Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HAL_CACHE_DIR", str(tmp_path))
    with pytest.raises(hal.errors.DeviceError, match=r"the kernel of nonsense does not compile .*; its source is in"):
        cuda.backend.runtime.programs.kernel("HAL_KERNEL f( {}", "f", "nonsense")
    (file,) = (tmp_path / "cuda").glob("failed-*.cu")
    assert file.read_text(encoding="utf-8").endswith("HAL_KERNEL f( {}")


def test_programs_are_found_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HAL_CACHE_DIR", str(tmp_path))
    counts = []
    for _ in range(2):
        (device,) = on_cpu(OnCPU()).devices()
        (hal.ones(3, device=device) * 2).sum().item()
        programs = device.backend.runtime.programs
        counts.append((programs.built, programs.loaded))
    (built, loaded), again = counts
    assert built > 0
    assert loaded == 0
    assert again == (0, built)


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda driver: driver.refuse("count", "cudaErrorInsufficientDriver"), "cudaErrorInsufficientDriver"),
        (lambda driver: setattr(driver, "devices", 0), "sees no GPU"),
    ],
    ids=["no driver", "no GPU"],
)
def test_without_a_gpu_the_message_has_the_cure(prepare: Callable[[OnCPU], None], why: str) -> None:
    driver = OnCPU()
    prepare(driver)
    with pytest.raises(Unavailable, match=why) as caught:
        on_cpu(driver).devices()
    assert caught.value.cure


def test_without_cupy_the_message_has_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cupy_backends", "cupy_backends.cuda", "cupy_backends.cuda.api"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unavailable, match=r"CuPy cannot be imported .*pip install 'hal-runtime\[cuda\]'"):
        CUDA().devices()


# All of it, slowly.


@pytest.mark.slow
@pytest.mark.parametrize("order", ["late", "others first"])
def test_captures_follow_batches_of_other_sizes_and_all_that_a_step_changes(order: str) -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(n, 1, 8, 8)).astype(np.float32) for n in (4, 4, 4, 4, 3, 4, 4, 3, 3, 3, 3, 4)]
    targets = [rng.integers(0, 3, size=len(x)) for x in batches]
    runs = []
    for compiled in (False, True):
        driver = OnCPU(order=order)
        with on_cpu(driver).devices()[0]:
            hal.manual_seed(3)
            net = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3),
                nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3),
            )  # fmt: skip
            optimizer = nn.optim.AdamW(net.parameters(), lr=0.02)
            schedule = nn.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
            step = stepped(net, optimizer)
            if compiled:
                step = hal.compile(step, exact=True)
            losses = []
            for x, y in zip(batches, targets, strict=True):
                losses.append(step(hal.tensor(x), hal.tensor(y)).detach())
                schedule.step()
            state = [p.cpu().numpy().tobytes() for p in net.state_dict().values()]
        runs.append((values(losses), state))
        assert not driver.reports
        assert (driver.calls["launch_graph"] > 0) == compiled
    assert runs[0] == runs[1]


@pytest.mark.slow
@pytest.mark.parametrize("levels", [["primitives"], ["compiled", "errors", "training", "threads"]], ids=" ".join)
def test_it_conforms(levels: list[str]) -> None:
    """In blocks without a byte to spare, so that each access outside of an array is one outside of a block."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends", HERE))),
        "HAL_PLUGIN_PATH": str(HERE / "cuda_on_cpu" / "plugin.py"),
    }
    command = [sys.executable, "-m", "hal", "conform", "cuda-on-cpu", "--quiet"]
    for level in levels:
        command += ["--level", level]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fallback" not in done.stdout
