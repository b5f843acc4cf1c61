"""Writes the parts of the documentation that code already knows: mkdocs calls it on every page.

A page asks with a comment of its own, `<!-- generated: ops -->`, and gets the section in its place.
"""

import importlib
import re
from collections.abc import Callable, Iterator
from inspect import isclass, isfunction
from typing import Any

import click

MARK = re.compile(r"<!-- generated: (\w+) -->")
OPTIONS = "    options:\n      heading_level: 4\n      show_root_heading: false\n      show_root_toc_entry: false\n"


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


def offered(package: str) -> str:
    """What a module offers, name by name: mkdocstrings fills each in from where it is written."""
    from hal.op import Op

    module = importlib.import_module(package)
    # a tensor's methods are in its bases; a layer has Module's, and once is enough
    inherited = "      inherited_members: true\n" if package == "hal" else ""
    ops, entries, seen = [], [], set()
    for name in sorted(dir(module)):
        value = getattr(module, name)
        if isinstance(value, Op):
            ops.append(f"`{name}`")
        home = getattr(value, "__module__", None) or ""
        ours = home.partition(".")[0] == package.partition(".")[0] and (isclass(value) or isfunction(value))
        if ours and not name.startswith("_") and id(value) not in seen:
            seen.add(id(value))  # an alias is shown once
            entries.append(f"### `{package}.{name}`\n\n::: {home}.{value.__qualname__}\n{OPTIONS}{inherited}")
    if ops:
        entries.insert(0, f"Ops of [the table](ops.md) under the same name: {', '.join(ops)}.\n")
    return "\n".join([f"## {package}\n", *entries])


def planted_faults() -> str:
    """Every planted fault: what is wrong, and the cases of which one must fail."""
    from hal.testing.faults import all_faults

    faults = all_faults()
    rows = [f"| `{f.name}` | {f.doc} | `{f.caught}` |" for f in faults.values()]
    return "\n".join([f"{len(rows)} faults.", "", "| name | what is wrong | caught by |", "|---|---|---|", *rows])


def conformance_levels() -> str:
    """Every level of the conformance suite, in the order in which they run, with how many cases the CPU has of it."""
    from hal.testing.levels import all_levels
    from hal.testing.suite import listed

    cases = listed("cpu")
    rows = [f"| `{v.name}` | {v.doc} | {len(cases.get(v.name, [])):,} |" for v in all_levels()]
    total = sum(map(len, cases.values()))
    head = ["| level | about | cases of the CPU |", "|---|---|---|"]
    return "\n".join([f"{len(rows)} levels, {total:,} cases on the CPU.", "", *head, *rows])


NN = [
    "nn",
    "nn.functional",
    "nn.init",
    "nn.utils",
    "nn.utils.rnn",
    "nn.utils.parametrize",
    "nn.utils.parametrizations",
    "nn.optim",
    "nn.optim.lr_scheduler",
    "nn.optim.swa_utils",
    "nn.amp",
    "nn.fitting",
    "nn.metrics",
    "nn.models",
    "nn.data",
    "nn.data.transforms",
]
SECTIONS: dict[str, Callable[[], str]] = {
    "ops": op_table,
    "commands": command_line,
    "faults": planted_faults,
    "levels": conformance_levels,
    "hal": lambda: offered("hal"),
    "nn": lambda: "\n\n".join(map(offered, NN)),
}
