"""`hal calibrate`: how fast devices and links are, measured and kept for the scheduler."""

from __future__ import annotations

import json
import sys
from typing import get_args

import click

import hal
from hal.errors import ConfigError
from hal.op import Kind
from hal.schedule.calibrate import Progress, calibration_of, known_calibration


@click.command(short_help="Measure how fast devices and links are.")
@click.argument("names", metavar="[DEVICE]...", nargs=-1)
@click.option("--known", is_flag=True, help="Show what is known, and measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list, with the paces of all ops.")
def calibrate(names: tuple[str, ...], known: bool, as_json: bool) -> None:
    """Measure how fast each DEVICE (default: all that are chosen by themselves) computes and copies.

    The scheduler places with these numbers, and reports and profiles predict with them. They are kept in HAL_CACHE_DIR,
    for this machine and these versions. A device whose backend declares its speed is not measured. A call takes so long
    whatever its size, and then so long for each million of its operations and of its bytes.
    """
    from hal.cli.console import print_table
    from hal.schedule.report import duration

    devices = [hal.device(n) for n in names] or [d for d in hal.devices() if d.backend.priority >= 0]
    found = []
    for device in devices:
        there = known_calibration(device) if known else calibration_of(device, anew=True, progress=_progress(device))
        if there is None:
            raise ConfigError(f"{device} was never measured here: run `hal calibrate {device}`")
        found.append(there)
    if as_json:
        click.echo(json.dumps([c.to_dict() for c in found], indent=1))
        return
    links = [
        [
            c.device, duration(c.speed.launch), f"{c.speed.bandwidth / 1e9:.3g}",
            f"{c.upload.bandwidth / 1e9:.3g} + {duration(c.upload.latency)}",
            f"{c.download.bandwidth / 1e9:.3g} + {duration(c.download.latency)}",
        ]
        for c in found
    ]  # fmt: skip
    print_table(["device", "launch", "GB/s", "upload GB/s", "download GB/s"], links, align="<>>>>")
    paces = [
        [c.device, kind, duration(pace.start), duration(1e6 * pace.flop), duration(1e6 * pace.byte)]
        for c in found
        for kind in get_args(Kind)
        if (pace := c.speed.paces.get(kind))
    ]
    if paces:
        click.echo()
        print_table(["device", "a call of", "takes", "+ each Mop", "+ each MB"], paces, align="<<>>>")


def _progress(device: hal.Device) -> Progress:
    """One line on a terminal that says how far the measuring is, and is gone in the end; nothing in a file."""

    def show(done: int, of: int) -> None:
        if sys.stderr.isatty():
            click.echo("\r\x1b[K" if done == of else f"\r\x1b[K{device}: {done / of:.0%}", err=True, nl=False)

    return show
