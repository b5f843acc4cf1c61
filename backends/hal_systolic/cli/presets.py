"""`hal sim presets`: the machines that have a name, or one of them with every field."""

from __future__ import annotations

import json

import click

from hal_systolic.config import Machine
from hal_systolic.presets import PRESETS, load


@click.command(short_help="List the machines, or show one.")
@click.argument("machine", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def presets(machine: str | None, as_json: bool) -> None:
    """List the machines that have a name, or show every field of MACHINE (a preset or a TOML file)."""
    if machine is not None:
        show(load(machine), as_json)
    elif as_json:
        click.echo(json.dumps({name: preset.as_dict() for name, preset in PRESETS.items()}, indent=2))
    else:
        for name, preset in PRESETS.items():
            click.echo(f"{name:16} {summary(preset)}")


def show(machine: Machine, as_json: bool) -> None:
    """Print every field, in TOML or JSON."""
    click.echo(json.dumps(machine.as_dict(), indent=2) if as_json else toml(machine))


def toml(machine: Machine) -> str:
    """The TOML file that gives this machine."""
    values = machine.as_dict()
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if not isinstance(value, dict)]
    for table, inner in values.items():
        if isinstance(inner, dict):
            lines += ["", f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in inner.items())]
    return "\n".join(lines)


def summary(machine: Machine) -> str:
    """One line: array, peak, memory."""
    arrays = f"{machine.arrays} x " if machine.arrays > 1 else ""
    rate = machine.rates[machine.in_dtype]
    peak = 2 * machine.peak_macs * machine.clock_hz * rate / 1e12
    return (
        f"{arrays}{machine.rows}x{machine.cols} {machine.dataflow}, {machine.in_dtype}, "
        f"{machine.clock_hz / 1e6:g} MHz, {peak:.3g} T/s, memory {machine.dram.bytes_per_s / 1e9:g} GB/s"
    )
