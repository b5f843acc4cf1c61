"""Writes the parts of the documentation that code already knows: mkdocs calls it on every page.

A page asks with a comment of its own, `<!-- generated: ops -->`, and gets the section in its place.
"""

import importlib.util
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import click

MARK = re.compile(r"<!-- generated: (\w+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The hook that mkdocs looks for: the page's text with its marks replaced."""
    return MARK.sub(lambda found: SECTIONS[found[1]](), markdown)


def op_table() -> str:
    """Every op, by kind: its call, what is special about it, and the record's own words."""
    from hal import ops

    by_kind: dict[str, list[str]] = {}
    for name, op in sorted(ops.TABLE.items()):
        settings = [f"{s}={op.defaults[s]!r}" if s in op.defaults else f"{s}=" for s in op.settings]
        call = f"{name}({', '.join([*op.input_names, *settings])})"
        notes = (
            ["primitive"] * op.is_primitive
            + ["host only"] * bool(op.host_only)
            + ["no gradient"] * bool(op.no_gradient)
        )
        sentence = (op.doc or "").strip().split("\n")[0]
        cells = [f"`{call}`", ", ".join(notes), sentence]
        by_kind.setdefault(op.kind, []).append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    primitives = sum(op.is_primitive for op in ops.TABLE.values())
    lines = [f"{len(ops.TABLE)} ops, {primitives} of them primitives."]
    for kind, rows in by_kind.items():
        lines += ["", f"## {kind.capitalize()}", "", "| call | | |", "|---|---|---|", *rows]
    return "\n".join(lines)


def command_line() -> str:
    """The help of every command, as the terminal shows it."""
    from hal.cli import cli

    return "\n\n".join(_helps(cli, click.Context(cli, info_name="hal", terminal_width=100, max_content_width=100)))


def _helps(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _helps(below, click.Context(below, parent=context, info_name=name))


def modules(package: str) -> str:
    """A section for every public module of a package, in alphabetical order: mkdocstrings fills them in."""
    found = importlib.util.find_spec(package)
    assert found is not None
    names = [
        m.name for m in pkgutil.iter_modules(found.submodule_search_locations, f"{package}.") if not _hidden(m.name)
    ]
    options = "    options:\n      heading_level: 3\n      show_root_heading: false\n      show_root_toc_entry: false\n"
    return "\n\n".join(f"## `{name}`\n\n::: {name}\n{options}" for name in sorted(names))


def _hidden(module: str) -> bool:
    # the table has a page of its own, and so has the plugin door
    return module in {"hal.ops", "hal.plugin", "hal.cli"} or any(part.startswith("_") for part in module.split("."))


SECTIONS: dict[str, Callable[[], str]] = {
    "ops": op_table,
    "commands": command_line,
    "hal": lambda: modules("hal"),
    "nn": lambda: modules("nn"),
}
