"""A simulated systolic-array accelerator: it computes what a TPU-like machine would, and counts its cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hal.plugin import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def hal_commands() -> list[click.Command]:
    """`hal sim`."""
    from hal_systolic.cli import sim

    return [sim]
