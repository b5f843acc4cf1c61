"""What `hal conform --self-test` shows: each planted fault, what caught it, and the kill rate."""

from __future__ import annotations

import sys

import click

from hal.cli.console import print_paragraph, print_table
from hal.testing.self_test import Found, SelfTest

SHOWN = 70  # characters of a case's name


def show_progress(name: str, done: int, total: int) -> None:
    """One line on a terminal that says what runs; nothing in a file."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{done + 1}/{total} {name}", err=True, nl=False)


def end_progress() -> None:
    """Take that line away."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)


def show_self_test(result: SelfTest) -> None:
    """Print the table of faults, complaints about sound devices, and the kill rate."""
    if result.found:
        print_table(
            ["planted fault", "", "seconds", "caught by", "what is wrong with the device"],
            [_row(found) for found in result.found],
            align="<<><<",
            colours={"caught": "green", "MISSED": "red"},
        )
        click.echo()
    for device, case, detail in result.alarms:
        print_paragraph(click.style("false alarm", fg="red") + f" on {device}: {case}: {detail}", "  ")
    caught = sum(found.caught for found in result.found)
    cases = sum(result.twins.values())
    print_paragraph(
        f"kill rate: {100 * result.rate:.4g} % ({caught} of {len(result.found)} planted faults caught and named). "
        f"{len(result.twins)} devices without a fault were given the same {cases:,} cases: "
        f"{len(result.alarms) or 'no'} false alarms. {result.seconds:.0f} seconds.",
        bold=True,
    )
    print_paragraph(
        "Each broken device was given the basics and the cases that should find its fault, not all there are."
    )


def _row(found: Found) -> list[str]:
    if not found.caught:
        return [found.fault.name, "MISSED", f"{found.seconds:.1f}", f"expected {found.fault.caught}", found.fault.doc]
    first, more = found.cases[0][:SHOWN], len(found.cases) - 1
    by = f"{first} and {more} more" if more else first
    return [found.fault.name, "caught", f"{found.seconds:.1f}", by, found.fault.doc]
