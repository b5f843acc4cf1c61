"""Two plugins of different kinds in one environment: oneDNN's kernels for the cpu, and a device that spikes.

A network is trained on the cpu, converted, and run on the other device, with copies between the two. `make plugins`
installs both and runs this with their own tests.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import hal_onednn
import hal_spiking
import numpy as np
import pytest
from hal_onednn.all_kernels import kernels

import hal
import nn
from hal import dtypes, ops
from hal.registry import registry
from hal.testing.suite import run
from nn import functional as F
from nn.data import DataLoader, Digits

needs_onednn = pytest.mark.skipif(not hal_onednn.status().available, reason=hal_onednn.status().reason)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("HAL_")]:
        monkeypatch.delenv(name)


def whose(name: str, *shapes: tuple[int, ...]) -> str:
    """The package whose kernel the cpu device takes for an op on float32 arrays of these shapes."""
    op = ops.TABLE[name]
    specs = [hal.Spec(shape, dtypes.float32) for shape in shapes]
    kernel = registry().backend("cpu").kernels.find(op, specs, op.bind(len(specs), {}))
    assert kernel is not None
    return kernel.run.__module__.partition(".")[0]


def test_both_are_installed_as_anyone_would_install_them() -> None:
    found = {entry.name: entry.value for entry in importlib.metadata.entry_points(group="hal")}
    assert {"onednn": "hal_onednn", "spiking": "hal_spiking"}.items() <= found.items()


def command(*words: str, **variables: str) -> str:
    code = "from hal.cli import main; main()"
    env = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", code, *words], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_list_of_devices_names_both_and_can_be_without_them() -> None:
    listed = command("devices", "-v")
    assert "spiking" in listed
    assert str(hal_onednn.status()) in listed
    without = command("devices", "-v", HAL_PLUGINS="0")
    assert "spiking" not in without
    assert "oneDNN" not in without


@needs_onednn
def test_the_cpu_keeps_its_promises_with_the_kernels_of_a_plugin() -> None:
    report = run("cpu", ops=kernels, in_process=True)
    assert report.passed, "\n".join(f"{found.id}: {found.outcome.detail}" for found in report.failures)


@needs_onednn
@pytest.mark.parametrize("kind", ["channels last", "a part of it"])
def test_what_onednn_left_in_its_own_order_is_copied_as_it_is(kind: str) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 8, 9, 9), np.float32), rng.standard_normal((16, 8, 3, 3), np.float32)
    assert whose("conv2d", x.shape, weight.shape) == "hal_onednn"
    y = ops.conv2d(hal.from_numpy(x), hal.from_numpy(weight))
    assert not y.buffer.flags.c_contiguous
    y = y[:, 3:11:2, 1:] if kind == "a part of it" else y
    there = y.to("spiking")
    back = there.cpu()
    assert (there.device.type, back.device.type) == ("spiking", "cpu")
    np.testing.assert_array_equal(back.numpy(), y.numpy())
    np.testing.assert_array_equal(ops.conv2d(back, hal.ones(4, back.shape[1], 1, 1)).numpy(),
                                  ops.conv2d(y, hal.ones(4, y.shape[1], 1, 1)).numpy())  # fmt: skip


@needs_onednn
def test_trains_with_onednn_and_infers_in_spikes() -> None:
    hal.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = nn.optim.Adam(model.parameters(), lr=3e-3)
    assert whose("conv2d", (32, 8, 4, 4), (16, 8, 3, 3)) == "hal_onednn"
    for _ in range(12):
        for images, labels in DataLoader(Digits(train=True), batch_size=32, shuffle=True, generator=0):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    images, labels = next(iter(DataLoader(Digits(train=False), batch_size=360)))
    with hal.no_grad():
        expected = (model.eval()(images).argmax(dim=1) == labels).float().mean().item()
    assert expected > 0.93

    calibration, _ = next(iter(DataLoader(Digits(train=True), batch_size=512)))
    spiking = hal_spiking.convert(model, calibration).to("spiking")
    with hal.fallback("error"), hal_spiking.report() as report, hal.no_grad():
        named = spiking(images.to("spiking")).argmax(dim=1).cpu()
    assert abs((named == labels).float().mean().item() - expected) <= 0.02
    assert report.rows[0].layer.split()[1] == "conv2d"

    halves = model[:3].to("cpu"), model[3:].to("spiking")  # one network on two devices, with a copy where it says so
    with hal.fallback("error"), hal.no_grad():
        mixed = halves[1](halves[0](images).to("spiking")).argmax(dim=1).cpu()
    assert abs((mixed == labels).float().mean().item() - expected) <= 0.02
