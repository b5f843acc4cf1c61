"""Aligned tables and paragraphs on stdout: folded to the width of a terminal, and never folded in a pipe or file."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence

import click

GAP = "  "
NARROWEST = 24  # columns that the last column of a table gets, however narrow the terminal is


def width() -> int | None:
    """Columns of the terminal; None where stdout is none, so that a line stays a line."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, align: str = "", colours: Mapping[str, str] | None = None
) -> None:
    """Print `rows` under `titles`. Only the last column is folded.

    Args:
        align: `<` or `>` for each column; all to the left if not given.
        colours: by text of a cell.
    """
    colours = colours or {}
    sides = align or "<" * len(titles)
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    before = sum(widths[:-1]) + len(GAP) * (len(widths) - 1)
    whole = width()
    room = None if whole is None else max(whole - before, NARROWEST)
    if any(titles):
        _print_row(titles, widths, sides, dict.fromkeys(titles, "bright_black"), before, None)
    for row in rows:
        _print_row(row, widths, sides, colours, before, room)


def _print_row(
    row: Sequence[str], widths: Sequence[int], sides: str, colours: Mapping[str, str], before: int, room: int | None
) -> None:
    *cells, last = row
    line = ""
    for cell, wide, side in zip(cells, widths, sides, strict=False):
        space = " " * (wide - len(cell))
        shown = click.style(cell, fg=colours[cell]) if colours.get(cell) and cell else cell
        line += (space + shown if side == ">" else shown + space) + GAP
    if sides[-1] == ">":
        last = last.rjust(widths[-1])
    first, *more = folded(last, room) or [""]
    shown = click.style(first, fg=colours[last]) if colours.get(last) and last else first
    click.echo((line + shown).rstrip())
    for rest in more:
        click.echo(" " * before + rest)


def folded(text: str, room: int | None) -> list[str]:
    """`text` in lines of at most `room` columns; in one if that is None. A word is never broken."""
    if room is None:
        return [text]
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)


def print_paragraph(text: str, indent: str = "", *, bold: bool = False) -> None:
    """Print `text`, its further lines indented."""
    whole = width()
    for i, line in enumerate(folded(text, None if whole is None else max(whole - len(indent), NARROWEST))):
        click.echo((indent if i else "") + (click.style(line, bold=True) if bold else line))
