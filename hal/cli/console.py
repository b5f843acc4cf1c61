"""Consoles for tables and progress: as wide as the terminal, or wide enough when there is none."""

from __future__ import annotations

from typing import IO

from rich.console import Console


def console_for(stream: IO[str]) -> Console:
    """A rich console on `stream`; into a pipe or file, lines are not folded at 80 columns."""
    return Console(file=stream, highlight=False, width=None if stream.isatty() else 200)
