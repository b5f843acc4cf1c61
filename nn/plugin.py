"""What nn brings to hal through the hooks that any plugin uses: the command `hal train`."""

from __future__ import annotations

import click

from hal.plugin import hookimpl


@hookimpl
def hal_commands() -> list[click.Command]:
    """`hal train`."""
    from nn.train.command import train

    return [train]
