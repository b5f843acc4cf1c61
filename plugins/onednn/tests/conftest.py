"""Puts the plugin in, from the source tree if it is not installed, and leaves tests out that need its library."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

import hal

if "onednn" not in {entry.name for entry in importlib.metadata.entry_points(group="hal")}:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import hal_onednn

    hal.register(hal_onednn)

from hal_onednn.finding import Status, status


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAL_BACKEND", "cpu")


@pytest.fixture
def library() -> Status:
    """The library, for a test that means nothing without it."""
    found = status()
    if not found.available:
        pytest.skip(found.reason)
    return found
