"""OpenCL as a whole: networks learn as on the CPU, and Oclgrind finds nothing to report."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATHS = os.pathsep.join(map(str, (ROOT, ROOT / "backends")))
HAL = [sys.executable, "-m", "hal"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.device("opencl"),
]


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": PATHS, "HAL_FALLBACK": "allow", **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)


def images_of(classes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Noise, and a line whose height tells the class."""
    images = np.random.default_rng(len(classes)).integers(0, 60, (len(classes), *shape), np.uint8)
    images[np.arange(len(classes)), ..., classes * 2 + 4, :] = 255
    return images


def write_files(task: str, folder: Path) -> None:
    """A small data set in the official layout; the digits are always there."""
    labels = (np.arange(128) * 7 % 10).astype(np.uint8)
    if task == "mnist":
        for part in ("train", "t10k"):
            head, rest = struct.pack(">4I", 0x803, len(labels), 28, 28), images_of(labels, (28, 28)).tobytes()
            (folder / f"{part}-images-idx3-ubyte").write_bytes(head + rest)
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(
                struct.pack(">2I", 0x801, len(labels)) + labels.tobytes()
            )
    if task == "cifar10":
        records = np.concatenate([labels[:, None], images_of(labels, (3, 32, 32)).reshape(-1, 3072)], axis=1)
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            (folder / f"{name}.bin").write_bytes(records.tobytes())


# What is allowed grows from step to step: sums are rounded in another order, and Adam divides by small numbers.
@pytest.mark.parametrize(("task", "rtol"), [("digits", 1e-3), ("mnist", 1e-3), ("cifar10", 1e-2)])
def test_training_is_what_it_is_on_the_cpu(task: str, rtol: float, tmp_path: Path) -> None:
    write_files(task, tmp_path)
    curves = {}
    for device in ("cpu", "opencl"):
        command = [*HAL, "train", task, "--epochs", "2", "--quiet", "--json", "--no-download", "--backend", device]
        done = run(command if task == "digits" else [*command, "--data", str(tmp_path), "--batch-size", "32"])
        assert done.returncode == 0, done.stderr
        curves[device] = json.loads(done.stdout.splitlines()[-1])
    assert curves["opencl"]["device"].startswith("opencl")
    assert curves["cpu"]["losses"][1] < curves["cpu"]["losses"][0]
    np.testing.assert_allclose(curves["opencl"]["losses"], curves["cpu"]["losses"], rtol=rtol)
    assert abs(curves["opencl"]["test_accuracy"] - curves["cpu"]["test_accuracy"]) < 0.05


def test_a_second_start_compiles_nothing(tmp_path: Path) -> None:
    code = (
        "import hal, nn; device = hal.device('opencl'); device.__enter__(); "
        "net = nn.Sequential(nn.Linear(8, 4), nn.ReLU()); net(hal.randn(3, 8)).sum().backward(); "
        "device.backend.synchronize(device); programs = device.backend.runtime.programs; "
        "print(programs.built, programs.loaded)"
    )
    counted = []
    for _ in range(2):
        built, loaded = map(int, run([sys.executable, "-c", code], HAL_CACHE_DIR=str(tmp_path)).stdout.split())
        kept = [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".so")]
        counted.append((built + loaded, loaded, {p: p.stat().st_mtime_ns for p in kept}))
    first, second = counted
    assert first[0] == second[0] > 0
    assert first[2] == second[2]
    assert len(first[2]) >= first[0]


def test_oclgrind_reports_nothing_of_any_op(tmp_path: Path) -> None:
    log = tmp_path / "oclgrind.log"
    done = run(
        [sys.executable, str(HERE / "opencl_cases.py")],
        HAL_OPENCL_DEVICES="oclgrind", OCLGRIND_DATA_RACES="1", OCLGRIND_UNINITIALIZED="1", OCLGRIND_LOG=str(log),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Oclgrind" in done.stdout
    assert not log.exists() or not log.read_text().strip(), log.read_text()[:2000]
