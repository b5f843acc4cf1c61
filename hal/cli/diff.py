"""`hal diff`: the first op of a script whose result on a device is beyond tolerance."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

import hal


@click.command(
    short_help="Find the first op of SCRIPT that is wrong on a device.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option("--ref", default="cpu", show_default=True, help="The device whose result is shown beside a wrong one.")
@click.option("--dut", required=True, help="The device under test.")
@click.option("--all", "every", is_flag=True, help="Go on after the first divergence, and list them all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; what the script prints goes to stderr.")
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def diff(ref: str, dut: str, every: bool, as_json: bool, script: Path, arguments: tuple[str, ...]) -> None:
    """Run SCRIPT with the device under test as its default device, and name the first op that goes wrong there.

    Each op is judged by itself, forward and backward: the float64 reference is given the inputs that the device had.
    Exit code 1 if an op was beyond its tolerance.
    """
    from contextlib import nullcontext, redirect_stdout

    from hal.testing.diff import compare_script

    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        result = compare_script(script, arguments, hal.device(ref), hal.device(dut), every=every)
    if as_json:
        found = [d.to_dict() for d in result.divergences]
        body = {"ref": result.ref, "dut": result.dut, "calls": result.calls, "failure": result.failure}
        click.echo(json.dumps({**body, "divergences": found}))
    else:
        for d in result.divergences:
            where = f"the gradient of {d.gradient_of}" if d.gradient_of else "the forward pass"
            settings = ", ".join(f"{k}={v}" for k, v in d.settings.items())
            click.echo(f"{d.op} on {result.dut} is wrong in {where}, call {d.call} [{d.line}]")
            click.echo(f"  given:   {', '.join(d.inputs)}{'; ' + settings if settings else ''}")
            error = f"{d.error:.4g} {d.unit}" + ("" if d.unit == "ulp" else f" ({d.ulps:.4g} ulp)")
            click.echo(f"  error:   {error}, allowed {d.allowed:.4g}; {result.ref}: {d.reference_error:.4g}")
            click.echo(f"  {result.dut + ':':<8} {' '.join(f'{v:.9g}' for v in d.got)} ...")
            click.echo(f"  {result.ref + ':':<8} {' '.join(f'{v:.9g}' for v in d.other)} ...")
            click.echo(f"  {d.detail}")
        if not result.divergences:
            click.echo(
                f"no divergence: {result.calls} kernel calls on {result.dut} are within the tolerances of their ops"
            )
        if result.failure:
            click.echo(f"the script ended with {result.failure}", err=True)
    if result.divergences or result.failure:
        sys.exit(1)
