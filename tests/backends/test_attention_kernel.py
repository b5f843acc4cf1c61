"""Attention and its gradient without scores in memory: in kernels for groups, and in blocks for processors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import attention_cases
import numpy as np
import pytest
from cuda_on_cpu.driver import OnCPU
from cuda_on_cpu.plugin import on_cpu
from cuda_sources import NoGPU, compiled, nvrtc

import hal
from hal import ops
from hal.codegen.kernels import attention, attention_blocks
from hal.testing import suite
from hal_cuda import CUDA

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# Samples: a mask of bool and later keys hidden; floats that are added; heads that share keys and values; many blocks.
FORWARD = {"masked": 10, "added": 12, "shared": 15}
BACKWARD = {"masked": 9, "added": 11, "shared": 14}
CAUSAL = (3, 4)  # of both: more keys than queries, and fewer
LONG = {"attention": 18, "attention_gradient": 17}
KERNELS = {
    "attention": {"attention"},
    "attention_gradient": {"attention_by_queries", "attention_by_keys"},
}


def on_the_host(*cases: str) -> None:
    """Run samples on the host in the place of a GPU; where there is something to compute, in the kernel."""
    driver = OnCPU(memory=1 << 28)
    report = suite.run(on_cpu(driver).devices()[0], ["composites"], in_process=True, cases=cases)
    assert not report.failures
    assert not driver.reports
    for op, names in KERNELS.items():
        assert not any(f"/{op}/" in case for case in cases) or all(driver.launches[name] > 0 for name in names)
    assert all(r.status == "native" for r in report.results if not re.search(r"[(,] ?0[,)]", r.outcome.reason))


@pytest.mark.parametrize("case", ["masked", pytest.param("added", marks=pytest.mark.slow), "shared"])
def test_masks_and_shared_heads_on_the_host(case: str) -> None:
    on_the_host(f"*/attention/float32/{FORWARD[case]}", f"*/attention_gradient/float32/{BACKWARD[case]}")


@pytest.mark.slow
@pytest.mark.parametrize("cases", ["attention/*", "attention_gradient/float32/*", "attention_gradient/bfloat16/1[0-9]"])
def test_every_sample_on_the_host(cases: str) -> None:
    on_the_host(f"*/{cases}")


@pytest.mark.slow
def test_many_blocks_on_pocl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_OPENCL_DEVICES", "pocl")
    for op, number in LONG.items():
        attention_cases.check(op, number, hal.bfloat16)


@pytest.mark.slow
def test_rows_too_wide_for_a_group() -> None:
    x = np.random.default_rng(0).normal(scale=0.2, size=(2, 9, 300)).astype(np.float32)
    driver = OnCPU(memory=1 << 28)
    device = on_cpu(driver).devices()[0]
    ours, theirs = (
        ops.attention_gradient(a, ops.attention(a, a, a, causal=True), a, a, a, causal=True)
        for a in (hal.tensor(x, device=device), hal.tensor(x, device="cpu"))
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.cpu().numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
    assert driver.launches["attention_slopes"] == 1


@pytest.mark.parametrize(("op", "numbers"), [("attention", FORWARD), ("attention_gradient", BACKWARD)])
def test_blocks_of_few_queries_on_pocl(op: str, numbers: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_OPENCL_DEVICES", "pocl")
    monkeypatch.setattr(attention_blocks, "SCORES", 12)
    monkeypatch.setattr(attention_blocks, "QUERIES", 2)
    for number in (*numbers.values(), *CAUSAL):
        attention_cases.check(op, number, groups=False)


def test_scores_are_not_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_OPENCL_DEVICES", "pocl")
    shape, scores = (1, 2048, 16), 4 * 2048**2
    x = hal.tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32), device="opencl")
    y = x.cpu()
    pool = x.device.backend.runtime.pool
    before = pool.peak = pool.used
    ops.attention_gradient(x, ops.attention(x, x, x), x, x, x)
    assert pool.peak - before < scores / 2
    tracemalloc.start()
    try:
        ops.attention_gradient(y, ops.attention(y, y, y), y, y, y)
        assert tracemalloc.get_traced_memory()[1] < scores / 2
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize(("features", "values"), [(24, 40), (256, 256)])
def test_widths_beside_torch(features: int, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("HAL_OPENCL_DEVICES", "pocl")
    device, rng = hal.device("opencl"), np.random.default_rng(features)
    shapes = ((2, 1, 45, features), (3, 70, features), (2, 3, 70, values))
    mask = np.where(rng.random((45, 70)) < 0.7, rng.normal(size=(45, 70)), -np.inf).astype(np.float32)
    given = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    theirs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in given]
    whole = [x.expand(2, 3, *x.shape[-2:]) for x in theirs]
    wanted = torch.nn.functional.scaled_dot_product_attention(*whole, attn_mask=torch.tensor(mask).double())
    g = rng.normal(size=wanted.shape).astype(np.float32)
    wanted.backward(torch.tensor(g).double())
    upload, settings = (lambda x: device.backend.upload(x, device)), {"causal": False, "scale": None}
    buffers = [upload(x) for x in (*given, mask)]
    monkeypatch.setattr(attention, "_in_groups", lambda q, v: True)
    out = attention.attention(*buffers, **settings)
    found = attention.attention_gradient(upload(g), out, *buffers, **settings)
    for ours, right in zip((out, *found), (wanted, *(x.grad for x in theirs)), strict=True):
        right = right.detach().numpy()
        np.testing.assert_allclose(
            device.backend.runtime.download(ours), right, rtol=0, atol=4e-6 * np.abs(right).max()
        )


@pytest.mark.slow
@pytest.mark.parametrize(("op", "numbers"), [("attention", FORWARD), ("attention_gradient", BACKWARD)])
def test_no_access_is_reported(op: str, numbers: dict[str, int], tmp_path: Path) -> None:
    log = tmp_path / "oclgrind.log"
    environment = {
        **os.environ,
        "HAL_OPENCL_DEVICES": "oclgrind",
        "OCLGRIND_DATA_RACES": "1",
        "OCLGRIND_UNINITIALIZED": "1",
        "OCLGRIND_LOG": str(log),
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends"))),
    }
    command = [sys.executable, str(HERE / "attention_cases.py"), op, *map(str, numbers.values())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Oclgrind" in done.stdout
    assert not log.exists() or log.read_text() == ""


@pytest.mark.slow
@pytest.mark.parametrize("features", [16, 64, 128, 256])
@pytest.mark.parametrize("dtype", [hal.float32, hal.bfloat16])
def test_no_tile_spills(features: int, dtype: hal.DType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = nvrtc() or pytest.skip("needs NVRTC: pip install nvidia-cuda-nvrtc")
    monkeypatch.setenv("HAL_CACHE_DIR", str(tmp_path))
    driver = NoGPU()
    device = CUDA(driver, "nogpu").devices()[0]
    x = hal.zeros(2, 80, features, dtype=dtype, device=device).requires_grad_()
    y = hal.ops.attention(x, x, x, causal=True)
    y.backward(hal.zeros(*y.shape, dtype=dtype, device=device))
    built = [b for text in driver.sources if "attention" in text for b in compiled(library, text, "sm_90")]
    assert {b.name for b in built} == set.union(*KERNELS.values())
    assert all(b.spilled == b.stack == 0 for b in built)
    assert all(b.shared <= 48 << 10 for b in built)
