"""`hal onednn`: whether there is a oneDNN library, which one, and which ops have kernels of it."""

from __future__ import annotations

import click

from hal_onednn.all_kernels import kernels
from hal_onednn.finding import status


@click.command()
def onednn() -> None:
    """Say which oneDNN library the cpu device uses, or why it uses none."""
    found = status()
    click.echo(str(found))
    if found.available:
        click.echo(f"float32 kernels for {', '.join(sorted(kernels))}")
