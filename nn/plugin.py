"""What nn brings to hal through the hooks that any plugin uses: `hal train`, and levels of the conformance suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hal.plugin import hookimpl

if TYPE_CHECKING:
    from hal.testing.case import Level


@hookimpl
def hal_commands() -> list[click.Command]:
    """`hal train`."""
    from nn.train.command import train

    return [train]


@hookimpl
def hal_conformance() -> list[Level]:
    """Layers, and trainings."""
    from nn.conformance import LEVELS

    return LEVELS
