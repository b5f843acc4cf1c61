"""How far a training run is: a bar on a terminal, a line for each epoch elsewhere, all on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

Show = Callable[[int, str], None]  # steps done, and figures to show beside


@contextlib.contextmanager
def showing(title: str, total: int, quiet: bool, transient: bool = False) -> Iterator[Show]:
    """Show how far something with `total` steps is: yields a function of the steps done and what to show beside.

    Args:
        title: what stands before the bar.
        total: steps in all.
        quiet: show nothing.
        transient: take the bar away at the end, and print no line where there is no terminal.
    """
    if quiet:
        yield lambda done, beside: None
        return
    if sys.stderr.isatty():
        with _bar(title, total, transient) as show:
            yield show
        return
    last = ""

    def remember(done: int, beside: str) -> None:
        nonlocal last
        last = beside

    yield remember
    if not transient:
        click.echo(f"{title}  {last}", err=True)


@contextlib.contextmanager
def _bar(title: str, total: int, transient: bool) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[beside]}", style="default", table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, console=Console(file=sys.stderr), expand=True, transient=transient) as progress:
        task = progress.add_task(title, total=total, beside="")
        yield lambda done, beside: progress.update(task, completed=done, beside=beside)
