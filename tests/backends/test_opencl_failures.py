"""A training step on OpenCL that fails in the middle: what is said, and that no parameter is lost."""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal.errors import DeviceError, OutOfMemoryError

pytestmark = pytest.mark.device("opencl")
X = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)


class Training:
    """A small network, its optimizer, and a step of both on an image of any height."""

    def __init__(self, device: str) -> None:
        hal.manual_seed(0)
        with hal.device(device):
            self.model = nn.Sequential(nn.Linear(8, 4), nn.ELU(alpha=0.7), nn.Linear(4, 1))
            self.optimizer = nn.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, x: hal.Tensor) -> hal.Tensor:
        self.optimizer.zero_grad()
        loss = self.model(x).square().mean()
        loss.backward()
        self.optimizer.step()
        return loss

    def on_host(self) -> dict[str, np.ndarray]:
        return {name: p.detach().cpu().numpy().copy() for name, p in self.model.state_dict().items()}


@contextmanager
def lost(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The driver refuses the queue, as it does when the context is gone with its device."""
    import pyopencl as cl

    runtime = hal.device("opencl").backend.runtime
    runtime.finish()
    patch.setattr(runtime, "queue", cl.CommandQueue(cl.Context([runtime.device])))
    yield


@contextmanager
def full(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """There is no more memory than is in use."""
    runtime = hal.device("opencl").backend.runtime
    gc.collect()  # what is freed later would be room
    runtime.finish()
    runtime.pool.empty()
    patch.setattr(runtime.pool, "limit", runtime.pool.used)
    yield


@contextmanager
def refused(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The compiler refuses every source that is new."""
    programs = hal.device("opencl").backend.runtime.programs
    patch.setattr(programs, "dialect", replace(programs.dialect, first="#error there is something wrong\n"))
    for known in ("_programs", "_kernels"):
        patch.setattr(programs, known, {})
    yield


FAILURES: dict[str, tuple[Callable[[pytest.MonkeyPatch], AbstractContextManager[None]], type[Exception], str]] = {
    "device lost": (lost, DeviceError, r"found opencl:0 .* gone: .*what is on the host is not"),
    "out of memory": (full, OutOfMemoryError, r"needs .* on opencl:0, .* in use: .* from .*smaller batches"),
    "build failure": (refused, DeviceError, r"the kernel of .* does not compile for opencl:0 .*failed-\w+\.cl"),
}
TIMES = {"out of memory": 5000, "build failure": 2}  # as large a batch: what was met before needs no program


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("failure", FAILURES)
def test_parameters_are_what_they_were(
    failure: str, compiled: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    happen, kind, said = FAILURES[failure]
    here, there = Training("cpu"), Training("opencl")
    run: Any = hal.compile(there.step) if compiled else there.step
    x = hal.tensor(X, device="opencl")
    for _ in range(2):
        run(x)
    before, unmoved = there.on_host(), here.on_host()
    with monkeypatch.context() as patch:
        patch.setenv("HAL_CACHE_DIR", str(tmp_path))
        with happen(patch), pytest.raises(kind, match=f"(?s){said}"):
            run(hal.tensor(np.tile(X, (TIMES.get(failure, 1), 1)), device="opencl"))
        if failure == "build failure" and not compiled:
            (source,) = (tmp_path / "opencl").glob("failed-*.cl")
            assert "#error" in source.read_text()
    np.testing.assert_equal(there.on_host(), before)
    np.testing.assert_equal(here.on_host(), unmoved)
    here.model.load_state_dict({name: hal.tensor(p) for name, p in before.items()})
    want = here.step(hal.tensor(X)).item()  # on with another device, and then with this one
    np.testing.assert_allclose(run(x).item(), want, rtol=1e-5)
