"""`hal sim compat`: a table of layers, with what SCALE-Sim would report for each."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click

from hal.plugin import ConfigError
from hal_systolic.compat import GIVEN, Counts, count, read_layer

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Count as SCALE-Sim does, layer by layer.")
@click.argument("table", metavar="IN.csv", type=FILE)
@click.option("--out", metavar="OUT.csv", type=click.Path(dir_okay=False, path_type=Path), help="Default: print it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def compat(table: Path, out: Path | None, as_json: bool) -> None:
    """Read layers from IN.csv and write them with the counts that SCALE-Sim 3.0.0 gives them.

    A row has the columns id, layer, kind, M, N, K, conv (HxWxKHxKWxCHANNELSxFILTERSxSTRIDE, padding in H and W, or
    empty), dataflow (ws, os, is), rows, cols, mode (CALC, or USER, whose stalls are not modelled), sram_kb and
    bandwidth. Further columns of IN.csv are left out.
    """
    rows = list(counted(table))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    if out is not None:
        with out.open("w", newline="", encoding="utf-8") as file:
            write(rows, file)
        click.echo(f"{len(rows)} layers written to {out}", err=True)
    elif not as_json:
        write(rows, sys.stdout)


def counted(table: Path) -> Iterator[dict[str, Any]]:
    """Each row of the table: its columns that describe the layer, then its counts."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in GIVEN if name not in (reader.fieldnames or ())]
        needed = [name for name in missing if name in ("dataflow", "rows", "cols")]
        if needed or {"M", "conv"} <= set(missing):
            raise ConfigError(f"{table} needs the columns {', '.join(GIVEN)}; {', '.join(missing)} are missing")
        for row in reader:
            yield {name: row.get(name) or "" for name in GIVEN} | asdict(count(read_layer(row)))


def write(rows: Iterable[dict[str, Any]], file: Any) -> None:
    """The table in CSV, its ratios with ten digits."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*GIVEN, *(field.name for field in fields(Counts))])
    writer.writerows([_text(value) for value in row.values()] for row in rows)


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.10g}"
    return text if "." in text or "e" in text else f"{text}.0"
