"""The OpenCL backend beside the CPU, and what it says when something is wrong. What needs many kernels is slow."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import hal
import nn
from hal import ops
from hal.plugin import Unavailable

pytestmark = pytest.mark.device("opencl")
MIB = 1 << 20


@pytest.fixture
def opencl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[hal.Device]:
    """The first OpenCL device, on which nothing may fall back."""
    device = hal.device("opencl")
    with hal.fallback("error"):
        yield device


def both(function: Callable[..., hal.Tensor], device: hal.Device, *arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The result on the CPU, and on the device."""
    results = [function(*(hal.tensor(x, device=d) for x in arrays)) for d in (hal.device("cpu"), device)]
    assert results[1].device is device
    want, got = (r.detach().cpu().numpy() for r in results)
    return want, got


X = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
V = np.random.default_rng(1).normal(size=8).astype(np.float32)
WHOLE = np.array([[-7, 0, 5], [9, -128, 127]], np.int8)

# fmt: off
CALLS: list[tuple[str, Callable[..., hal.Tensor], tuple[np.ndarray, ...]]] = [
    ("broadcast", lambda x, v: x * v + 2.0, (X, V)),
    ("strides", lambda x, v: (x[::-2, 1::3].T * v[:3, None]).sum(0), (X, V)),
    ("views", lambda x, v: x.reshape(3, 2, 8).permute(2, 0, 1)[1:].reshape(-1, 3), (X, V)),
    ("own functions", lambda x, v: hal.exp(x) + hal.tanh(x) + hal.erf(v) + hal.log(x * x), (X, V)),
    ("decomposed in one kernel", lambda x, v: ops.gelu(x), (X, V)),
    ("no elements", lambda x, v: (x[:0] * v).sum(0), (X, V)),
    ("integers", lambda w: w * w - w // 3, (WHOLE,)),
    ("softmax", lambda x, v: ops.softmax(x, axis=0), (X, V)),
    ("order", lambda x, v: x.topk(3)[0], (X, V)),
    ("positions", lambda x, v: x[:, [1, 1, 5]], (X, V)),
]
# fmt: on


@pytest.mark.parametrize(("function", "arrays"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_the_same_as_on_the_cpu(
    opencl: hal.Device, function: Callable[..., hal.Tensor], arrays: tuple[np.ndarray, ...]
) -> None:
    want, got = both(function, opencl, *arrays)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)


def test_integers_divided_by_zero_end_no_process(opencl: hal.Device) -> None:
    least = hal.tensor([-(2**31), 7], dtype=hal.int32, device=opencl)
    quotient = least // hal.tensor([-1, 0], dtype=hal.int32, device=opencl)
    assert quotient.cpu().tolist() == [-(2**31), 0]


def test_random_bits_are_those_of_the_cpu(opencl: hal.Device) -> None:
    drawn = []
    for device in (hal.device("cpu"), opencl):
        hal.manual_seed(11)
        drawn.append(hal.randint(0, 1 << 30, (257,), device=device).cpu().tolist())
    assert drawn[0] == drawn[1]


def test_a_view_that_is_changed_changes_what_it_shows(opencl: hal.Device) -> None:
    x = hal.zeros(3, 4, device=opencl)
    x[1:, ::2] += 1.5
    x.T[3].fill_(2)
    assert x.cpu().tolist() == [[0, 0, 0, 2], [1.5, 0, 1.5, 2], [1.5, 0, 1.5, 2]]


def curve(device: hal.Device, steps: int = 6) -> list[float]:
    """The losses of a small network in training."""
    with device:
        hal.manual_seed(3)
        net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
        optimizer = nn.optim.Adam(net.parameters(), lr=0.02)
        x, y = hal.tensor(X), hal.tensor([0, 1, 2, 3, 0, 1])
        losses = []
        for _ in range(steps):
            loss = nn.functional.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def test_a_network_learns_as_on_the_cpu(opencl: hal.Device) -> None:
    want = curve(hal.device("cpu"))
    assert want[-1] < want[0]
    np.testing.assert_allclose(curve(opencl), want, rtol=1e-5)


# Memory.


def test_host_arrays_are_shared_where_the_memory_is(opencl: hal.Device) -> None:
    backend, x = opencl.backend, np.arange(64, dtype=np.float32)
    buffer = backend.wrap(x, opencl)
    if buffer is None:
        pytest.skip(f"needs an OpenCL device in the host's memory, and {opencl} has its own")
    shared = hal.from_numpy(x).to(opencl)
    assert shared.device is opencl
    x[3] = 100
    assert backend.download(buffer, buffer.spec)[3] == 100
    exposed = backend.expose(buffer, buffer.spec)
    assert exposed is not None
    exposed[4] = 7
    assert x[4] == 7
    assert backend.wrap(x.reshape(8, 8).T, opencl) is None


def _sharing(array: np.ndarray, device: hal.Device) -> hal.Tensor:
    """A tensor in the memory of an array."""
    with device:
        return hal.from_numpy(array)


def test_a_shared_array_outlives_the_kernels_that_read_it(opencl: hal.Device) -> None:
    backend = opencl.backend
    if backend.wrap(np.zeros(64, np.float32), opencl) is None:
        pytest.skip(f"needs an OpenCL device in the host's memory, and {opencl} has its own")
    results = []
    for turn in range(20):  # without a wait in between, the arrays' memory would be the next one's
        array = np.full(1 << 18, turn, np.float32)
        x = _sharing(array, opencl)
        results.append(hal.cosh(x * 0.0 + x).sum() / array.size)
        del array, x
    want = np.cosh(np.arange(20, dtype=np.float64))
    np.testing.assert_allclose([r.item() for r in results], want, rtol=1e-4)


def test_memory_comes_back_and_is_used_again(opencl: hal.Device) -> None:
    pool = opencl.backend.runtime.pool
    x = hal.ones(MIB, device=opencl)
    opencl.backend.synchronize(opencl)
    before = pool.used
    for _ in range(20):
        x = x * 1.0
    assert pool.used <= before + 2 * x.spec.nbytes
    assert pool.peak < before + 8 * x.spec.nbytes


def test_out_of_memory_names_the_holders(opencl: hal.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = opencl.backend.runtime.pool
    kept = hal.ones(MIB, device=opencl) * 3.0
    gc.collect()  # what other tests have left is no room
    monkeypatch.setattr(pool, "limit", pool.used + MIB)
    with pytest.raises(hal.errors.OutOfMemoryError, match=r"(?s)needs 64 MiB on opencl.* x 4 MiB from mul") as caught:
        hal.zeros(16 * MIB, device=opencl)
    assert "smaller batches" in str(caught.value)
    monkeypatch.undo()
    assert (kept.sum() / kept.numel()).item() == 3.0


# Programs.


def test_a_source_that_does_not_compile_is_kept_and_named(
    opencl: hal.Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HAL_CACHE_DIR", str(tmp_path))
    with pytest.raises(
        hal.errors.DeviceError, match=r"the kernel of nonsense does not compile .*; its source is in"
    ) as caught:
        opencl.backend.runtime.programs.kernel("__kernel void f(", "f", "nonsense")
    (file,) = (tmp_path / "opencl").glob("failed-*.cl")
    assert str(file) in str(caught.value)
    assert file.read_text(encoding="utf-8").endswith("__kernel void f(")


def test_programs_are_found_on_disk(opencl: hal.Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from hal_opencl import pocl
    from hal_opencl.programs import OpenCLPrograms

    monkeypatch.setenv("HAL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(pocl, "is_here", lambda device: False)  # which would keep them itself
    source = "__kernel void one(__global int *p) { p[get_global_id(0)] = 1; }"
    first, second = (OpenCLPrograms(opencl.backend.runtime) for _ in range(2))
    first.kernel(source, "one")
    second.kernel(source, "one")
    assert (first.built, first.loaded, second.built, second.loaded) == (1, 0, 0, 1)
    (file,) = (tmp_path / "opencl").glob("*.bin")
    file.write_bytes(b"broken off")
    third = OpenCLPrograms(opencl.backend.runtime)
    third.kernel(source, "one")
    assert third.built == 1


def test_a_refused_launch_says_which_op_it_was(opencl: hal.Device) -> None:
    runtime = opencl.backend.runtime
    kernel = runtime.programs.kernel("__kernel void one(__global int *p) { p[get_global_id(0)] = 1; }", "one")
    x = runtime.empty((4,), hal.int32)
    with pytest.raises(hal.errors.DeviceError, match=r"a test failed on opencl.*HAL_OPENCL_SYNC=1"):
        runtime.launch("a test", kernel, (4,), (1 << 20,), x.memory)


def test_kernels_have_times_where_they_are_asked_for(opencl: hal.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    from hal_opencl.runtime import OpenCLRuntime

    with pytest.raises(hal.errors.DeviceError, match="HAL_OPENCL_PROFILE=1"):
        opencl.backend.runtime.spans()
    monkeypatch.setenv("HAL_OPENCL_PROFILE", "1")
    timed = OpenCLRuntime(opencl.backend.device, "opencl:timed")
    kernel = timed.programs.kernel("__kernel void one(__global int *p) { p[get_global_id(0)] = 1; }", "one")
    x = timed.empty((4,), hal.int32)
    for _ in range(3):
        timed.launch("a test", kernel, (4,), (1,), x.memory)
    spans = timed.spans()
    assert [label for label, _, _ in spans] == ["a test"] * 3
    assert all(start <= end for _, start, end in spans)
    assert timed.spans() == []


# Devices.


def test_simulators_are_used_where_they_are_named(opencl: hal.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    from hal_opencl.discovery import find_devices, title

    plain = [title(d) for d in find_devices()]
    assert not any("oclgrind" in name.lower() for name in plain)
    monkeypatch.setenv("HAL_OPENCL_DEVICES", plain[-1].split(" / ")[0][:8].upper())
    assert title(find_devices()[0]) == plain[-1]
    monkeypatch.setenv("HAL_OPENCL_DEVICES", "nonesuch")
    with pytest.raises(Unavailable, match=r"HAL_OPENCL_DEVICES=nonesuch names none of the devices \(there is: .+\)"):
        find_devices()


def test_without_pyopencl_the_message_has_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    from hal_opencl.discovery import find_devices

    monkeypatch.setitem(sys.modules, "pyopencl", None)
    with pytest.raises(Unavailable, match=r"pip install 'hal-runtime\[opencl\]'.*'hal-runtime\[opencl-cpu\]' for PoCL"):
        find_devices()


def test_pyopencl_is_imported_on_first_use() -> None:
    code = "import sys, hal; hal.ones(3) + 1; print('pyopencl' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "False\n"


def test_the_description_has_driver_limits_and_extensions(opencl: hal.Device) -> None:
    facts = opencl.backend.describe(opencl)
    assert facts["extensions"].startswith("cl_")
    assert {"device", "driver", "work groups", "memory", "in use", "programs"} <= set(facts)
    assert all(facts.values())
