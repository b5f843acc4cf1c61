"""Fixtures for all tests: the devices that a program is run on, the template plugin among them, and torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

import hal

PLUGINS = Path(__file__).parent.parent / "plugins"
for _plugin in ("template", "primitive"):  # as installed plugins would be, but from the source tree
    sys.path.insert(0, str(PLUGINS / _plugin))
    hal.register(__import__(f"hal_{_plugin}"))

DEVICES = ["cpu", "fake", "template", "primitive", pytest.param("opencl", marks=pytest.mark.slow)]


@pytest.fixture(params=DEVICES)
def each_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> hal.Device:
    """Every device that is here and can train, one after the other, as the default device."""
    if not hal.device_count(request.param):
        pytest.skip(f"there is no {request.param} device")
    monkeypatch.setenv("HAL_BACKEND", request.param)
    monkeypatch.setenv("HAL_FALLBACK", "allow")
    return hal.device(request.param)


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """To compare with; what takes it is skipped where it is not installed."""
    return pytest.importorskip("torch")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what asks an outside judge: takes torch, is in a module that imports it, or is about its samples."""
    module = getattr(item, "module", None)
    if "torch" in getattr(item, "fixturenames", ()) or hasattr(module, "torch") or "oracles" in item.path.parts:
        item.add_marker("oracle")


def pytest_unconfigure() -> None:
    """Let pytest have the last word: what fell back in a test is no news at the end of them all."""
    os.environ["HAL_FALLBACK"] = "allow"
