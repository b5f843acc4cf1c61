"""`hal sim sweep`: a network or a product on many machines, as a table and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hal.plugin import ConfigError
from hal_systolic.config import BYTES, Machine
from hal_systolic.presets import load
from hal_systolic.sweep import page, rows
from hal_systolic.sweep import sweep as simulate_all
from hal_systolic.work import Matmul, Operand, Work


@click.command(short_help="Simulate on many machines: --rows 8,16,32.")
@click.argument("model", required=False)
@click.option("--matmul", metavar="M,K,N", help="Instead of a MODEL: one product (M, K) @ (K, N).")
@click.option("--application", metavar="NAME", help="Instead of a MODEL: one of those of the TPU v1, such as MLP0.")
@click.option("--preset", "--machine", "which", metavar="NAME|FILE", help="The machine that is changed.")
@click.option("--rows", "row_counts", metavar="N,N,...", help="Rows of the array; it is square unless --cols is given.")
@click.option("--cols", "col_counts", metavar="N,N,...", help="Columns of the array.")
@click.option("--set", "changes", multiple=True, metavar="FIELD=V,V,...", help="Values of a field: --set arrays=1,2,4.")
@click.option("--input", "shape", metavar="SIZES", help="Shape of one input of MODEL, such as 3,224,224.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Inputs of MODEL at once.")
@click.option("--train", is_flag=True, help="A step of training of MODEL.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with a picture.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def sweep(
    model: str | None, matmul: str | None, application: str | None, which: str | None, row_counts: str | None,
    col_counts: str | None, changes: tuple[str, ...], shape: str | None, batch: int, train: bool, html: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Simulate MODEL (as in `hal sim MODEL`), or one product, on every combination of the values given.

    A machine that cannot work is a line with the reason.
    """
    machine = load(which)
    fields = swept(row_counts, col_counts, changes)
    work = asked(machine, model, matmul, application, shape, batch, train)
    points = list(simulate_all(work, machine, fields))
    title = f"{model or application or f'product {matmul}'} on {machine.name}"
    if html is not None:
        html.write_text(page(points, title), encoding="utf-8")
    if as_json:
        click.echo(json.dumps([asdict(point) for point in points], indent=1))
        return
    print_rows(rows(points))
    if html is not None:
        click.echo(f"written: {html}")


def swept(row_counts: str | None, col_counts: str | None, changes: Sequence[str]) -> dict[str, list[Any]]:
    """The fields and their values.

    Raises:
        ConfigError: there is none, or one is not a list of values.
    """
    fields: dict[str, list[Any]] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not text:
            raise ConfigError(f"--set needs FIELD=V,V,..., got {change!r}")
        fields[name.strip()] = [_value(part) for part in text.split(",")]
    if row_counts:
        fields = {"rows": [_value(part) for part in row_counts.split(",")], **fields}
    if col_counts:
        fields["cols"] = [_value(part) for part in col_counts.split(",")]
    if not fields:
        raise ConfigError("a sweep needs values to try: --rows 8,16,32 or --set FIELD=V,V,...")
    return fields


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text.strip()


def asked(
    machine: Machine, model: str | None, matmul: str | None, application: str | None, shape: str | None, batch: int,
    train: bool,
) -> list[Work]:  # fmt: skip
    """The work: that of a network on random data, of one product, or of a published application.

    Raises:
        ConfigError: not exactly one of them is given, or it means nothing.
    """
    if sum(given is not None for given in (model, matmul, application)) != 1:
        raise ConfigError("a sweep needs one piece of work: a MODEL, --matmul M,K,N or --application NAME")
    if matmul is not None:
        return [one_product(machine, matmul)]
    if application is not None:
        from hal_systolic.tpu_v1 import APPLICATIONS, work

        if application not in APPLICATIONS:
            raise ConfigError(f"no application {application!r}; there are {', '.join(APPLICATIONS)}")
        return list(work(APPLICATIONS[application]))
    from hal_systolic.cli.model import device_of, run_network, run_script

    device, name = device_of(machine), str(model)
    if name.endswith(".py"):
        return run_script(name, (), device).work(machine.name)
    found = run_network(name, device, shape, None, batch, train)
    return found.work(machine.name)


def one_product(machine: Machine, text: str) -> Matmul:
    """The product that `M,K,N` stands for, in the machine's format.

    Raises:
        ConfigError: it is not three whole numbers.
    """
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ConfigError(f"--matmul needs M,K,N, three whole numbers of 1 or more, got {text!r}")
    m, k, n = map(int, parts)
    size = BYTES[machine.in_dtype]
    a, b, out = Operand(0, size * m * k), Operand(1, size * k * n, weight=True), Operand(2, size * m * n)
    return Matmul(m, k, n, a, b, out, machine.in_dtype, layer=f"{m}x{k}x{n}")


def print_rows(table: Sequence[Sequence[str]]) -> None:
    """An aligned table; a reason stands across the columns that it leaves empty."""
    whole = [row for row in table if all(row)]
    widths = [max(len(row[i]) for row in whole) for i in range(len(table[0]))]
    for row in table:
        cells = [cell.rjust(width) if all(row) else cell for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())
