"""`hal devices`: what there is, whether it works, and what is missing where it does not."""

from __future__ import annotations

import json
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np

import hal
from hal import dtypes, ops
from hal.cli.console import print_paragraph, print_table
from hal.device import Device
from hal.errors import HalError
from hal.plugin import Backend, Unavailable
from hal.registry import Problem, Registry, Source, default_device, registry

COLOURS = {"PASS": "green", "FAIL": "red", "none": "yellow"}
FOR_TESTS = "hal.testing"  # backends of this package are no devices that anyone has


@dataclass
class Row:
    """What is known of one device, or of a backend or plugin that has none."""

    name: str
    status: str  # PASS, FAIL, or none
    detail: str = ""  # why it is not PASS, and what cures it
    default: bool = False
    source: str = ""
    kernels: int = 0
    dtypes: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    trace: str = ""
    for_tests: bool = False


def check(device: Device) -> tuple[str, str, str]:
    """Run a small computation on `device`: PASS, or FAIL with the reason and its traceback."""
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    try:
        # Whatever it has no kernel for may run elsewhere, without a word about it.
        with hal.fallback("allow"), hal.copies("allow"):
            there = hal.tensor(x, device=device)
            got = ops.matmul(there, ops.permute(there, axes=(1, 0))).cpu().numpy()
    except Exception as error:  # whatever a device can do wrong
        return "FAIL", _one_line(error), traceback.format_exc()
    if got.shape != (2, 2) or not np.allclose(got, x @ x.T):
        return "FAIL", f"a product of 2 x 3 and 3 x 2 numbers came out as {got.tolist()}, not {(x @ x.T).tolist()}", ""
    return "PASS", "", ""


def rows() -> list[Row]:
    """Every device, every backend without one, and every plugin that was left out."""
    found = registry()
    out = []
    for backend in sorted(found.backends.values(), key=lambda b: (-b.priority, b.name)):
        out += _rows_of(backend, found)
    return out + [_left_out(problem) for problem in found.problems]


def _rows_of(backend: Backend, found: Registry) -> list[Row]:
    for_tests = type(backend).__module__.startswith(FOR_TESTS)
    source = str(found.sources[backend.name])
    try:
        there = list(backend.devices())
    except Unavailable as error:
        return [Row(backend.name, "none", str(error), source=source, for_tests=for_tests)]
    except Exception as error:  # a stranger's code
        detail = f"it failed to list its devices: {_one_line(error)}"
        return [Row(backend.name, "FAIL", detail, source=source, trace=traceback.format_exc(), for_tests=for_tests)]
    if not there:
        return [Row(backend.name, "none", "the backend found no device", source=source, for_tests=for_tests)]
    try:
        default = default_device()
    except HalError:
        default = None
    return [_row_of(device, backend, source, device is default, for_tests) for device in there]


def _row_of(device: Device, backend: Backend, source: str, default: bool, for_tests: bool) -> Row:
    status, detail, trace = check(device)
    own = device.backend  # which may be another for each device
    names = [d.name for d in dtypes.ALL if d in own.dtypes]
    row = Row(str(device), status, detail, default, source, 0, names, {}, trace, for_tests)
    try:
        row.kernels = len(backend.kernels)
        row.facts = {str(name): str(value) for name, value in own.describe(device).items()}
        for plugin, added in registry().added_kernels.get(backend.name, ()):
            row.facts[f"kernels of {plugin}"] = added.describe() or f"for {', '.join(sorted(added))}"
    except Exception as error:  # a stranger's code
        row.status, row.detail, row.trace = "FAIL", row.detail or _one_line(error), row.trace or traceback.format_exc()
    return row


def _left_out(problem: Problem) -> Row:
    where = str(Source(problem.plugin, problem.distribution))
    package = problem.distribution.partition(" ")[0]
    cure = f"; upgrade or uninstall {package}"
    if Path(problem.distribution).is_absolute():
        cure = f"; mend {problem.distribution}, or take it out of HAL_PLUGIN_PATH"
    if not package or "upgrade" in problem.message:
        cure = ""
    return Row(
        problem.plugin,
        "FAIL",
        f"left out: it {' '.join(problem.message.split())}{cure}",
        False,
        where,
        trace=problem.trace,
    )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@click.command(short_help="List the devices, and run an op on each.")
@click.option("-v", "--verbose", is_flag=True, help="Also show dtypes, drivers, where each comes from, and tracebacks.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list, with all that -v shows.")
def devices(verbose: bool, as_json: bool) -> None:
    """List the devices, run an op on each, and say what is missing where one does not work."""
    found = rows()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in found], indent=2))
    else:
        shown = [row for row in found if verbose or row.default or not row.for_tests]
        print_table(
            ["device", "check", "native ops", ""],
            [
                [row.name, row.status, _share(row), row.detail or ("the default" if row.default else "")]
                for row in shown
            ],
            align="<<><",
            colours=COLOURS,
        )
        if verbose:
            for row in shown:
                _print_details(row)
        elif any(row.trace for row in shown):
            click.echo("\n`hal devices -v` shows the tracebacks")
    default_device()  # HAL_BACKEND may ask for what is not there: an error, and told as one


def _share(row: Row) -> str:
    return f"{row.kernels} of {len(ops.TABLE)}" if row.dtypes else ""  # a backend or plugin without a device has none


def _print_details(row: Row) -> None:
    click.echo("\n" + click.style(row.name, bold=True))
    facts = {"from": row.source, "dtypes": ", ".join(row.dtypes), **row.facts}
    for name, value in facts.items():
        if value:
            print_paragraph(f"  {name}: {value}", "    ")
    if row.trace:
        click.echo(
            click.style("".join(f"  {line}\n" for line in row.trace.rstrip().splitlines()).rstrip("\n"), dim=True)
        )
