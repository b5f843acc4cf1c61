"""`hal ops`: the op table, and how each device runs each op."""

from __future__ import annotations

import json
import sys

import click
from rich.table import Table

import hal
from hal import ops as table
from hal.cli.console import console_for
from hal.op import Op
from hal.plugin import Backend


def how(op: Op, backend: Backend) -> str:
    """How `backend` runs `op`: native, decomposed, or fallback (some calls may differ)."""
    if op in backend.kernels:
        return "native"
    return "decomposed" if op.decompose is not None else "fallback"


def gradient_of(op: Op) -> str:
    """Where the gradient comes from."""
    if op.no_gradient:
        return "none"
    return "own" if op.gradient is not None else "by decomposition"


@click.command()
@click.argument("name", required=False)
@click.option("--primitives", is_flag=True, help="Only the ops that everything else decomposes into.")
@click.option("--device", "device_name", help="Also show how this device runs each op.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def ops(name: str | None, primitives: bool, device_name: str | None, as_json: bool) -> None:
    """List the ops of the table, or show the record of one."""
    hal.devices()  # so that plugins have added their ops
    if name is not None:
        _show(name)
        return
    chosen = [op for _, op in sorted(table.TABLE.items()) if op.is_primitive or not primitives]
    backend = hal.device(device_name).backend if device_name else None
    rows = [
        {
            "op": op.name,
            "kind": op.kind,
            "inputs": ", ".join(op.input_names),
            "settings": ", ".join(op.settings),
            "gradient": gradient_of(op),
            "level": "primitive" if op.is_primitive else "host only" if op.host_only else "composite",
            **({backend.name: how(op, backend)} if backend else {}),
        }
        for op in chosen
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    shown = Table(box=None, pad_edge=False)
    for title in rows[0] if rows else ():
        shown.add_column(title, no_wrap=title == "op")
    for row in rows:
        shown.add_row(*row.values())
    console_for(sys.stdout).print(shown)
    click.echo(f"{len(rows)} ops, {sum(op.is_primitive for op in chosen)} of them primitives")


def _show(name: str) -> None:
    from hal.config import did_you_mean

    op = table.TABLE.get(name)
    if op is None:
        raise click.ClickException(f"there is no op {name!r} in the table{did_you_mean(name, list(table.TABLE))}")
    settings = [f"{n}={op.defaults[n]!r}" if n in op.defaults else f"{n}=" for n in op.settings]
    click.echo(f"{name}({', '.join([*op.input_names, *settings])})\n\n{op.doc}\n")
    click.echo(f"kind:      {op.kind}")
    click.echo(f"level:     {'primitive' if op.is_primitive else 'host only: ' + op.host_only if op.host_only else 'composite'}")
    click.echo(f"gradient:  {op.no_gradient or gradient_of(op)}")
    click.echo(f"tolerance: {op.tolerance.unit}, {op.tolerance.source}")
