"""`hal sim`: each command in the module of its name; what is none of them is a model to simulate."""

from __future__ import annotations

import importlib

import click

COMMANDS = ("compat", "model", "presets", "sweep")


class _Commands(click.Group):
    """Commands that are imported when they are needed; the first word may also be the model of `hal sim MODEL`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(importlib.import_module(f"hal_systolic.cli.{cmd_name}"), cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, or `model` before what is none."""
        named = args[0] in COMMANDS or args[0].startswith("-")
        return super().resolve_command(ctx, args if named else ["model", *args])


@click.group(cls=_Commands, short_help="Simulate a systolic-array accelerator.")
def sim() -> None:
    """Simulate a systolic-array accelerator, cycle by cycle."""
