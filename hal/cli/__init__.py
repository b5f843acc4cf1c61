"""The command line, `hal ...` and `python -m hal`: its own commands, and those that plugins bring."""

from __future__ import annotations

import errno
import importlib
import os
from typing import Any

import click

import hal
from hal.config import did_you_mean
from hal.errors import HalError

OWN = ("calibrate", "conform", "devices", "diff", "env", "explain", "ops", "plugin")  # each in the module of its name


class _Commands(click.Group):
    """A group whose commands are looked up when they are needed, so that `hal --version` loads no plugin."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*OWN, *_plugin_commands()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in OWN:
            found: click.Command = getattr(importlib.import_module(f"hal.cli.{cmd_name}"), cmd_name)
            return found
        return _plugin_commands().get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            known = self.list_commands(ctx)
            near = did_you_mean(name, known)
            ctx.fail(f"there is no command {name!r}; there are {', '.join(known)}{near}{_left_out()}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. What goes wrong for a reason that the user can do something about is one line."""
        try:
            return super().invoke(ctx)
        except HalError as error:
            raise click.ClickException(str(error)) from error
        except MemoryError as error:
            raise click.ClickException(f"out of memory: {error}; smaller batches need less") from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # `hal ops | head`: click ends quietly
                raise
            where = f"{error.filename}: " if error.filename else ""
            cure = "check the path and the room on its disk"
            raise click.ClickException(f"{where}{error.strerror or error}; {cure}") from error


def _plugin_commands() -> dict[str, click.Command]:
    from hal.registry import registry

    return {command.name: command for command in registry().commands() if command.name and command.name not in OWN}


def _left_out() -> str:
    """Which plugins were left out, since one of them may have brought the command."""
    from hal.registry import registry

    broken = sorted({p.plugin for p in registry().problems})
    return f" (plugins that were left out: {', '.join(broken)}; `hal devices` says why)" if broken else ""


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(hal.__version__, prog_name="hal")
def cli() -> None:
    """HAL: one network, written once, on any device. Choose it with HAL_BACKEND=name."""


def main() -> None:
    """Run the command line; what `hal` and `python -m hal` call."""
    cli(prog_name="hal", color=False if os.environ.get("NO_COLOR") else None)  # None: colours on a terminal


__all__ = ["cli", "main"]
