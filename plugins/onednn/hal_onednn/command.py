"""`hal onednn`: whether there is a oneDNN library, which one, and which ops have kernels of it."""

from __future__ import annotations

import click

from hal_onednn.all_kernels import kernels


@click.command()
def onednn() -> None:
    """Say which oneDNN library the cpu device uses, or why it uses none."""
    click.echo(kernels.describe())
    click.echo(", ".join(sorted(kernels)))
