"""Fixtures for all tests: the devices that a program is run on, the template plugin among them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import hal

PLUGINS = Path(__file__).parent.parent / "plugins"
for _plugin in ("template", "primitive"):  # as installed plugins would be, but from the source tree
    sys.path.insert(0, str(PLUGINS / _plugin))
    hal.register(__import__(f"hal_{_plugin}"))

DEVICES = ["cpu", "fake", "template", "primitive"]


@pytest.fixture(params=DEVICES)
def each_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> hal.Device:
    """Every device that is here and can train, one after the other, as the default device."""
    monkeypatch.setenv("HAL_BACKEND", request.param)
    monkeypatch.setenv("HAL_FALLBACK", "allow")
    return hal.device(request.param)


def pytest_unconfigure() -> None:
    """Let pytest have the last word: what fell back in a test is no news at the end of them all."""
    os.environ["HAL_FALLBACK"] = "allow"
