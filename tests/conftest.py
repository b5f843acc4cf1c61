"""Fixtures for all tests: the devices that a program is run on, the template plugin among them, and torch.

With `--device NAME` the tests run on that one: it is the default device, and what they read is copied to the host.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import hal
import hal.errors
import hal.interop

collect_ignore = ["bench"]  # programs to be run by hand, some of which need torch or jax

PLUGINS = Path(__file__).parent.parent / "plugins"
for _plugin in ("template", "primitive"):  # as installed plugins would be, but from the source tree
    sys.path.insert(0, str(PLUGINS / _plugin))
    hal.register(__import__(f"hal_{_plugin}"))

DEVICES = [
    "cpu",
    "fake",
    "template",
    "primitive",
    pytest.param("opencl", marks=[pytest.mark.slow, pytest.mark.device("opencl")]),
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--device`."""
    parser.addoption("--device", metavar="NAME", default="", help="run the tests on this device of hal, and no other")


def pytest_configure(config: pytest.Config) -> None:
    """Make the device that was named the default, and let results be read though they are not in host memory."""
    if not config.getoption("--device", ""):
        return
    os.environ["HAL_BACKEND"] = config.getoption("--device")
    os.environ["HAL_FALLBACK"] = "allow"
    plain = hal.interop.numpy

    def numpy(x: hal.Tensor, /, *, force: bool = False) -> Any:
        return plain(x.cpu(), force=force)

    hal.interop.numpy = hal.Tensor.numpy = numpy


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The devices of `each_device`: all, or the one that was named."""
    if "each_device" in metafunc.fixturenames:
        named = metafunc.config.getoption("--device", "")
        metafunc.parametrize("each_device", [named] if named else DEVICES, indirect=True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a device that is not here, with hal's words on why, and on what to install."""
    for marker in item.iter_markers("device"):
        try:
            hal.device(*marker.args)
        except hal.errors.DeviceError as error:
            pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """What the device that was named does not have, and says so, is no failure of it."""
    try:
        return (yield)
    except (hal.errors.DTypeError, BufferError) as error:
        if item.config.getoption("--device", "") and re.search(r"device .* has no|needs host memory", str(error)):
            pytest.skip(str(error))
        raise


@pytest.fixture
def each_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> hal.Device:
    """Every device that is here and can train, one after the other, as the default device."""
    monkeypatch.setenv("HAL_BACKEND", request.param)
    monkeypatch.setenv("HAL_FALLBACK", "allow")
    return hal.device(request.param)


@pytest.fixture
def measured_roughly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices are measured in an instant: few calls, each for a moment, once."""
    from hal.schedule.calls import calls  # of all tests, few need them

    few = [c for c in calls() if c.tells[0] in ("add", "tanh", "matmul", "permute", "elementwise group")]
    monkeypatch.setattr("hal.schedule.calibrate.calls", lambda: few)
    monkeypatch.setattr("hal.schedule.calibrate.PASSES", 1)
    monkeypatch.setattr("hal.schedule.calibrate.BYTES", (1 << 10, 1 << 16))
    monkeypatch.setattr("hal.schedule.timing.PATIENCE", 1e-5)


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """To compare with; what takes it is skipped where it is not installed."""
    return pytest.importorskip("torch", reason="needs torch: pip install 'hal-runtime[oracles]'")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what asks an outside judge: takes torch, is in a module that imports it, or is about its samples."""
    module = getattr(item, "module", None)
    if "torch" in getattr(item, "fixturenames", ()) or hasattr(module, "torch") or "oracles" in item.path.parts:
        item.add_marker("oracle")


def pytest_unconfigure() -> None:
    """Let pytest have the last word: what fell back in a test is no news at the end of them all."""
    os.environ["HAL_FALLBACK"] = "allow"
