"""Makes the modules beside the tests importable, and prints at the end what the oracles saw, in all processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from opinfo_tally import TALLY


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In one of several processes: tell the first one."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["samples"] = TALLY.told()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """In the first of several processes: count what another one tells."""
    TALLY.add(getattr(node, "workeroutput", {}).get("samples", ({}, {})))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many samples of torch's were judged, and what was left out, if any were."""
    if TALLY:
        terminalreporter.section("torch's samples")
        terminalreporter.write_line(TALLY.summary())
