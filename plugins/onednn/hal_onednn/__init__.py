"""oneDNN's kernels for hal's cpu device. The library is loaded when the first call asks for a kernel, not before."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from hal.plugin import Kernels, hookimpl

if TYPE_CHECKING:
    import click

    from hal_onednn.finding import Status


@hookimpl
def hal_kernels() -> dict[str, Kernels]:
    """Kernels for the cpu backend, which are asked before its own."""
    from hal_onednn.all_kernels import kernels

    return {"cpu": kernels}


@hookimpl
def hal_commands() -> list[click.Command]:
    """`hal onednn`."""
    from hal_onednn.command import onednn

    return [onednn]


def status() -> Status:
    """Whether there is a oneDNN library, which one, and if there is none, why."""
    from hal_onednn.finding import status

    return status()


def off() -> AbstractContextManager[None]:
    """Leave everything to the backend's own kernels inside a `with` block, in all threads: to compare the two."""
    from hal_onednn.finding import off

    return off()
