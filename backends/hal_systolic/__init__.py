"""A simulated systolic-array accelerator: it computes what a TPU-like machine would, and counts its cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hal.plugin import Backend, hookimpl
from hal_systolic.backend import Systolic

if TYPE_CHECKING:
    import click

_LAZY = {  # what `hal_systolic.NAME` is, by the file that has it: imported when asked for
    "Machine": "config", "PRESETS": "presets", "load": "presets", "precision": "accuracy", "report": "reporting",
    "Report": "reporting",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"hal_systolic.{_LAZY[name]}"), name)


@hookimpl
def hal_backends() -> list[Backend]:
    """The simulated machines."""
    return [Systolic()]


@hookimpl
def hal_commands() -> list[click.Command]:
    """`hal sim`."""
    from hal_systolic.cli import sim

    return [sim]
