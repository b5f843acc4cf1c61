"""`hal ops`: the op table, and how each device runs each op."""

from __future__ import annotations

import json

import click

import hal
from hal import ops as table
from hal.cli.console import print_paragraph, print_table
from hal.config import did_you_mean
from hal.errors import SettingError
from hal.op import Op
from hal.plugin import Backend

COLOURS = {"native": "green", "fallback": "yellow"}


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


def level_of(op: Op) -> str:
    """What it is to a backend: a primitive, a composite, or host only."""
    return "primitive" if op.is_primitive else "host only" if op.host_only else "composite"


def call_of(op: Op) -> str:
    """How it is called: inputs by position, settings by keyword."""
    settings = [f"{name}={op.defaults[name]!r}" if name in op.defaults else f"{name}=" for name in op.settings]
    return f"{op.name}({', '.join([*op.input_names, *settings])})"


@click.command(short_help="List the op table, or show one op.")
@click.argument("name", required=False)
@click.option("--primitives", is_flag=True, help="Only the ops that everything else decomposes into.")
@click.option("--device", "device_name", metavar="NAME", help="Also show how this device runs each op.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def ops(name: str | None, primitives: bool, device_name: str | None, as_json: bool) -> None:
    """List the ops of the table, or show the record of the op NAME."""
    hal.devices()  # so that plugins have added their ops
    backend = hal.device(device_name).backend if device_name else None
    chosen = [op for _, op in sorted(table.TABLE.items()) if op.is_primitive or not primitives]
    if name is not None:
        chosen = [_named(name)]
    if as_json:
        click.echo(json.dumps([_record(op, backend) for op in chosen], indent=2))
    elif name is not None:
        _show(chosen[0], backend)
    else:
        _list(chosen, backend)


def _named(name: str) -> Op:
    op = table.TABLE.get(name)
    if op is None:
        near = did_you_mean(name, list(table.TABLE))
        raise SettingError(
            f"there is no op {name!r} in the table of {len(table.TABLE)}{near or '; `hal ops` lists them'}"
        )
    return op


def _record(op: Op, backend: Backend | None) -> dict[str, object]:
    return {
        "op": op.name,
        "kind": op.kind,
        "inputs": list(op.input_names),
        "settings": {name: repr(op.defaults[name]) if name in op.defaults else None for name in op.settings},
        "gradient": gradient_of(op),
        "level": level_of(op),
        "tolerance": f"{op.tolerance.unit}, {op.tolerance.source}",
        "doc": op.doc,
        **({"device": backend.name, "runs": how(op, backend)} if backend else {}),
    }


def _list(chosen: list[Op], backend: Backend | None) -> None:
    """A table for each kind; what most ops are (composite, with a gradient) is not said."""
    names = max(len(op.name) for op in chosen)
    for kind in sorted({op.kind for op in chosen}):
        of_kind = [op for op in chosen if op.kind == kind]
        click.echo(click.style(f"{kind} ({len(of_kind)})", bold=True))
        rows = []
        for op in of_kind:
            marks = [level_of(op)] * (level_of(op) != "composite") + ["no gradient"] * bool(op.no_gradient)
            row = [f"  {op.name:<{names}}", *([f"{how(op, backend):<10}"] if backend else [])]
            rows.append([*row, call_of(op)[len(op.name) :] + (f"  {', '.join(marks)}" if marks else "")])
        print_table([""] * len(rows[0]), rows, colours={f"{k:<10}": v for k, v in COLOURS.items()})
        click.echo()
    counts = f"{len(chosen)} ops, {sum(op.is_primitive for op in chosen)} of them primitives"
    if backend:
        ways = [how(op, backend) for op in chosen]
        counts += f"; on {backend.name}: " + ", ".join(
            f"{ways.count(way)} {way}" for way in ("native", "decomposed", "fallback")
        )
    click.echo(counts)


def _show(op: Op, backend: Backend | None) -> None:
    print_paragraph(call_of(op), "    ", bold=True)
    click.echo()
    print_paragraph(" ".join((op.doc or "").split()))
    click.echo()
    facts = {
        "kind": op.kind,
        "level": f"host only: {op.host_only}" if op.host_only else level_of(op),
        "gradient": f"none: {op.no_gradient}" if op.no_gradient else gradient_of(op),
        "tolerance": f"{op.tolerance.unit}, {op.tolerance.source}",
        **({f"on {backend.name}": how(op, backend)} if backend else {}),
    }
    print_table(["", ""], [[title, value] for title, value in facts.items()])
