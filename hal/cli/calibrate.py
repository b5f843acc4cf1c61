"""`hal calibrate`: how fast devices and links are, measured and kept for the scheduler."""

from __future__ import annotations

import json
from typing import get_args

import click

import hal
from hal.errors import ConfigError


@click.command(short_help="Measure how fast devices and links are.")
@click.argument("names", metavar="[DEVICE]...", nargs=-1)
@click.option("--known", is_flag=True, help="Show what is known, and measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list, with the rates of all ops.")
def calibrate(names: tuple[str, ...], known: bool, as_json: bool) -> None:
    """Measure how fast each DEVICE (default: all that are chosen by themselves) computes and copies.

    The scheduler places with these numbers, and reports and profiles predict with them. They are kept in HAL_CACHE_DIR,
    for this machine and these versions. A device whose backend declares its speed is not measured.
    """
    from hal.cli.console import print_table
    from hal.op import Kind
    from hal.schedule.calibrate import calibration_of, known_calibration
    from hal.schedule.report import duration
    from hal.schedule.speed import ANY

    devices = [hal.device(n) for n in names] or [d for d in hal.devices() if d.backend.priority >= 0]
    found = []
    for device in devices:
        if known:
            there = known_calibration(device)
            if there is None:
                raise ConfigError(f"{device} was never measured here: run `hal calibrate {device}`")
            found.append(there)
        else:
            found.append(calibration_of(device, anew=True))
    if as_json:
        click.echo(json.dumps([c.to_dict() for c in found], indent=1))
        return
    kinds = [k for k in (*get_args(Kind), ANY) if any(k in c.speed.rates for c in found)]
    rows = [
        [
            c.device, duration(c.speed.launch), f"{c.speed.bandwidth / 1e9:.3g}",
            f"{c.upload.bandwidth / 1e9:.3g} + {duration(c.upload.latency)}",
            f"{c.download.bandwidth / 1e9:.3g} + {duration(c.download.latency)}",
            *(f"{c.speed.rates[k] / 1e9:.3g}" if k in c.speed.rates else "" for k in kinds),
        ]
        for c in found
    ]  # fmt: skip
    titles = ["device", "launch", "GB/s", "upload GB/s", "download GB/s", *(f"{k} Gop/s" for k in kinds)]
    print_table(titles, rows, align="<" + ">" * (len(titles) - 1))
