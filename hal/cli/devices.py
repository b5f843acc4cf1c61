"""`hal devices`: what there is, whether it works, and what is missing where it does not."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict, dataclass, field

import click
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import hal
from hal import ops
from hal.cli.console import console_for
from hal.device import Device
from hal.errors import DeviceError
from hal.plugin import Backend, Unavailable
from hal.registry import Registry, default_device, registry


@dataclass
class Row:
    """What is known of one device, or of a backend or plugin that has none."""

    name: str
    status: str  # PASS, FAIL, or none
    detail: str
    default: bool = False
    source: str = ""
    kernels: int = 0
    dtypes: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    trace: str = ""


def check(device: Device) -> tuple[str, str, str]:
    """Run a small computation on `device`: PASS, or FAIL with the reason (and its traceback)."""
    try:
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        got = hal.tensor(x, device=device)
        result = ops.matmul(got, ops.permute(got, axes=(1, 0)))
        if not np.allclose(device.backend.download(result.buffer, result.spec), x @ x.T):
            return "FAIL", "a 2x3 by 3x2 product came out wrong", ""
    except Exception as error:  # whatever a device can do wrong
        return "FAIL", f"{type(error).__name__}: {error}", traceback.format_exc()
    return "PASS", "", ""


def rows() -> list[Row]:
    """Every device, every backend without one, and every plugin that was left out."""
    found = registry()
    out = []
    for backend in sorted(found.backends.values(), key=lambda b: (-b.priority, b.name)):
        out += _rows_of(backend, found)
    out += [Row(p.plugin, "FAIL", p.message, source=p.distribution, trace=p.trace) for p in found.problems]
    return out


def _rows_of(backend: Backend, found: Registry) -> list[Row]:
    source = str(found.sources[backend.name])
    try:
        there = backend.devices()
    except Unavailable as error:
        return [Row(backend.name, "none", str(error), source=source)]
    except Exception as error:  # a stranger's code
        return [Row(backend.name, "FAIL", f"devices() failed: {error!r}", source=source, trace=traceback.format_exc())]
    if not there:
        return [Row(backend.name, "none", "the backend found no device", source=source)]
    try:
        default = str(default_device())
    except DeviceError:
        default = ""
    out = []
    for device in there:
        status, detail, trace = check(device)
        names = sorted(d.name for d in backend.dtypes)
        row = Row(str(device), status, detail, str(device) == default, source, len(backend.kernels), names, trace=trace)
        row.facts = backend.describe(device)
        out.append(row)
    return out


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="Also show drivers, dtypes, where each comes from, and tracebacks.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list instead of a table.")
def devices(verbose: bool, as_json: bool) -> None:
    """List the devices, run an op on each, and say what is missing where one does not work."""
    found = rows()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in found], indent=2))
        return
    console = console_for(sys.stdout)
    table = Table(box=None, pad_edge=False)
    for title in ("device", "status", "kernels", "", *(["source"] if verbose else [])):
        table.add_column(title)
    colours = {"PASS": "green", "FAIL": "red", "none": "yellow"}
    for row in found:
        cells = [
            escape(row.name) + (" (default)" if row.default else ""),
            f"[{colours[row.status]}]{row.status}[/]",
            f"{row.kernels} of {len(ops.TABLE)}" if row.kernels else "",
            escape(row.detail),
        ]
        table.add_row(*cells, *([escape(row.source)] if verbose else []))
    console.print(table)
    if verbose:
        _print_details(console, found)
    try:
        default_device()
    except DeviceError as error:
        raise click.ClickException(str(error)) from None


def _print_details(console: Console, found: list[Row]) -> None:
    for row in found:
        if row.dtypes or row.facts or row.trace:
            console.print(f"\n[bold]{escape(row.name)}[/]")
        if row.dtypes:
            console.print("  dtypes: " + ", ".join(row.dtypes))
        for name, value in row.facts.items():
            console.print(f"  {escape(name)}: {escape(value)}")
        if row.trace:
            console.print(escape(row.trace.rstrip()), style="dim")
