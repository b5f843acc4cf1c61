"""`hal env`: what to paste into a bug report."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform

import click
import numpy as np

import hal
from hal import config
from hal.cli.console import print_table
from hal.plugin_files import plugin_files
from hal.registry import GROUP, registry

LIBRARIES = ("numpy", "ml_dtypes", "pluggy", "safetensors", "click", "rich")


def facts() -> dict[str, object]:
    """Versions, plugins, devices and variables."""
    found = registry()
    plugins = {}
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: e.name):
        plugins[entry.name] = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
    plugins |= {path.stem: str(path) for path in plugin_files(config.get("HAL_PLUGIN_PATH"))}
    return {
        "hal": hal.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "blas": _blas(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "plugins": plugins,
        "problems": [f"{p.plugin}: {p.message}" for p in found.problems],
        "devices": [str(d) for d in hal.devices()],
        "variables": {name: config.get(name) for name in config.VARIABLES if config.get(name)},
        "cache": str(config.cache_dir()),
    }


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not found"


def _blas() -> str:
    """What NumPy multiplies matrices with."""
    built = np.show_config(mode="dicts")
    blas = built.get("Build Dependencies", {}).get("blas", {}) if isinstance(built, dict) else {}
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


@click.command(short_help="Print what belongs into a bug report.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def env(as_json: bool) -> None:
    """Print versions, plugins, devices and variables, to paste into a bug report."""
    known = facts()
    if as_json:
        click.echo(json.dumps(known, indent=2))
        return
    print_table(["", ""], [[name, _text(name, value)] for name, value in known.items()])
    click.echo("\nVariables that hal reads:")
    print_table(["", ""], [[f"  {name}", meaning.replace("`", "")] for name, meaning in config.VARIABLES.items()])


def _text(name: str, value: object) -> str:
    if isinstance(value, dict):
        link = "=" if name == "variables" else " "
        return ", ".join(f"{k}{link}{v}" for k, v in value.items()) or "none is set"
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)
