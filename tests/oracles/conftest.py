"""Makes the modules beside the tests importable, and prints at the end what the oracles saw."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many samples of torch's were judged, and what was left out, if any were."""
    seen = sys.modules.get("opinfo_tally")
    if seen is not None and seen.TALLY:
        terminalreporter.section("torch's samples")
        terminalreporter.write_line(seen.TALLY.summary())
