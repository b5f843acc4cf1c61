"""Attention in one kernel: on the host in the place of a GPU, on PoCL, and under Oclgrind's eyes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import attention_cases
import pytest
from cuda_on_cpu.driver import OnCPU
from cuda_on_cpu.plugin import on_cpu
from cuda_sources import compiled, nvrtc

import hal
from hal.testing import suite

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MASKED, ADDED, LONG = 10, 12, 18  # samples: a mask of bool and later keys hidden; floats that are added; many blocks


def on_the_host(*cases: str) -> None:
    """Run samples on the host in the place of a GPU; where there is something to compute, in the kernel."""
    driver = OnCPU(memory=1 << 28)
    report = suite.run(on_cpu(driver).devices()[0], ["composites"], in_process=True, cases=cases)
    assert not report.failures
    assert not driver.reports
    assert driver.launches["attention"] > 0
    assert all(r.status == "native" for r in report.results if not re.search(r"[(,] ?0[,)]", r.outcome.reason))


def test_masks_on_the_host() -> None:
    on_the_host(f"*/attention/float32/{MASKED}", f"*/attention/float32/{ADDED}")


@pytest.mark.slow
def test_every_sample_on_the_host() -> None:
    on_the_host("*/attention/*")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [hal.float32, hal.bfloat16])
def test_many_blocks_on_pocl(dtype: hal.DType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_OPENCL_DEVICES", "pocl")
    attention_cases.check(LONG, dtype)


@pytest.mark.slow
def test_no_access_is_reported(tmp_path: Path) -> None:
    log = tmp_path / "oclgrind.log"
    environment = {
        **os.environ,
        "HAL_OPENCL_DEVICES": "oclgrind",
        "OCLGRIND_DATA_RACES": "1",
        "OCLGRIND_UNINITIALIZED": "1",
        "OCLGRIND_LOG": str(log),
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends"))),
    }
    command = [sys.executable, str(HERE / "attention_cases.py"), str(MASKED), str(ADDED)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Oclgrind" in done.stdout
    assert not log.exists() or log.read_text() == ""


@pytest.mark.slow
@pytest.mark.parametrize("features", [16, 64, 128, 256])
def test_no_tile_spills(features: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from cuda_sources import NoGPU

    from hal_cuda import CUDA

    library = nvrtc() or pytest.skip("needs NVRTC: pip install nvidia-cuda-nvrtc")
    monkeypatch.setenv("HAL_CACHE_DIR", str(tmp_path))
    driver = NoGPU()
    x = hal.zeros(2, 80, features, device=CUDA(driver, "nogpu").devices()[0])
    hal.ops.attention(x, x, x, causal=True)
    (built,) = (b for text in driver.sources[-1:] for b in compiled(library, text, "sm_90"))
    assert built.name == "attention"
    assert built.spilled == 0
    assert built.shared <= 48 << 10
