"""`hal env`: what to paste into a bug report."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform

import click

import hal
from hal import config
from hal.registry import GROUP, registry

LIBRARIES = ("numpy", "ml_dtypes", "pluggy", "safetensors", "click", "rich")


def facts() -> dict[str, object]:
    """Versions, plugins, devices and variables."""
    found = registry()
    plugins = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        plugins[entry.name] = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
    return {
        "hal": hal.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "plugins": plugins,
        "problems": [f"{p.plugin}: {p.message}" for p in found.problems],
        "devices": [str(d) for d in hal.devices()],
        "variables": {name: config.get(name) for name in config.VARIABLES if config.get(name)},
        "cache": str(config.cache_dir()),
    }


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def env(as_json: bool) -> None:
    """Print versions, plugins, devices and variables, to paste into a bug report."""
    known = facts()
    if as_json:
        click.echo(json.dumps(known, indent=2))
        return
    for name, value in known.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
        elif isinstance(value, list):
            value = ", ".join(value) or "none"
        click.echo(f"{name + ':':<12} {value}")
    click.echo("\nvariables that hal reads:")
    for name, meaning in config.VARIABLES.items():
        click.echo(f"  {name:<14} {meaning}")
