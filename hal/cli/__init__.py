"""The command line, `hal ...` and `python -m hal`: its own commands, and those that plugins bring."""

from __future__ import annotations

from typing import Any

import click

import hal
from hal.errors import HalError


class _Commands(click.Group):
    """A group whose commands are looked up when they are needed, so that `hal --version` loads no plugin."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_plugin_commands()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or _plugin_commands().get(cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HalError as error:  # written for people: a traceback would only hide it
            raise click.ClickException(str(error)) from error


def _plugin_commands() -> dict[str, click.Command]:
    from hal.registry import registry

    return {command.name: command for command in registry().commands() if command.name}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(hal.__version__, prog_name="hal")
def cli() -> None:
    """HAL: one network, written once, on any device. Choose it with HAL_BACKEND=name."""


def main() -> None:
    """Run the command line; what `hal` and `python -m hal` call."""
    cli(prog_name="hal")


def _add_own_commands() -> None:
    from hal.cli.devices import devices
    from hal.cli.env import env
    from hal.cli.ops import ops

    for command in (devices, env, ops):
        cli.add_command(command)


_add_own_commands()
__all__ = ["cli", "main"]
