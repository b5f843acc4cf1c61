"""`hal plugin`: the beginning of a plugin of one's own, written out as a package that works."""

from __future__ import annotations

import importlib.resources
import keyword
import re
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from hal.errors import PluginError
from hal.registry import OURS, registry

SUFFIX = ".in"  # of the files that the package is made from, so that no tool takes them for what they are not yet
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def normalised(name: str) -> str:
    """The name of a backend as programs write it: lower case, with `_` between words.

    Raises:
        PluginError: there is no such name in it.
    """
    short = re.sub(r"[-.\s_]+", "_", name.strip().lower()).removeprefix("hal_")
    if NAME.fullmatch(short) is None or keyword.iskeyword(short):
        raise PluginError(
            f"{name!r} cannot be the name of a backend: it needs a letter first, then letters, digits, - or _, "
            "and must be no word of Python's own; for example 'mychip' or 'my-chip2'"
        )
    return short


def check_free(name: str) -> None:
    """See to it that no other package has a backend of this name.

    Raises:
        PluginError: one has, or this is the package that HAL itself comes in.
    """
    distribution = _words(name)["distribution"]
    if distribution == OURS:
        raise PluginError(f"a backend {name!r} would be the package {OURS}, which is HAL itself: choose another name")
    source = registry().sources.get(name)
    if source is None or Path(source.distribution).is_absolute():  # a file that is to become this package
        return
    if source.distribution.partition(" ")[0] != distribution:
        raise PluginError(f"there is a backend {name!r} already, of {source}: choose another name")


def rendered(name: str) -> dict[str, str]:
    """The files of a new package with a backend called `name`, by their path in it."""
    return {_filled(path, name).removesuffix(SUFFIX): _filled(text, name) for path, text in _templates()}


def write_plugin(name: str, folder: Path, *, force: bool = False) -> list[Path]:
    """Write the files of a new package into `folder`, and give their paths.

    Raises:
        PluginError: some are there, and `force` does not say that they may go. Nothing is written then.
    """
    files = {folder / path: text for path, text in rendered(name).items()}
    there = sorted(str(path.relative_to(folder)) for path in files if path.exists())
    if there and not force:
        raise PluginError(
            f"{folder} has {', '.join(there)} already, and nothing was written: "
            "--path chooses another folder, --force overwrites"
        )
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    return list(files)


def _words(name: str) -> dict[str, str]:
    """What the marks of the templates stand for."""
    return {
        "name": name,
        "module": f"hal_{name}",
        "distribution": f"hal-{name.replace('_', '-')}",
        "class": "".join(part.capitalize() for part in name.split("_")) + "Backend",
    }


def _filled(text: str, name: str) -> str:
    for mark, word in _words(name).items():
        text = text.replace(f"@{mark}@", word)
    return text


def _templates() -> Iterator[tuple[str, str]]:
    """Path and text of each file that the package is made from."""
    yield from _below(importlib.resources.files("hal.cli") / "plugin_template", "")


def _below(folder: Traversable, path: str) -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            yield from _below(entry, f"{path}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            yield path + entry.name, entry.read_text(encoding="utf-8")


@click.group()
def plugin() -> None:
    """Begin a plugin of your own."""


@plugin.command()
@click.argument("name")
@click.option(
    "--path",
    metavar="DIRECTORY",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write into. Default: hal-NAME, in this folder.",
)
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def new(name: str, path: Path | None, force: bool) -> None:
    """Write a package with a backend called NAME.

    It has one kernel, which is enough to train a network; all else falls back, and the report says so. With it come
    its conformance tests, a workflow that runs them, and a README that says what to do next.
    """
    short = normalised(name)
    check_free(short)
    folder = Path(_words(short)["distribution"]) if path is None else path
    for written in write_plugin(short, folder, force=force):
        click.echo(f"wrote {written}")
    click.echo(
        f"\nNext:\n"
        f"  pip install --editable {folder}\n"
        f"  hal devices                  is it there, and does it work?\n"
        f"  hal conform {short:<16} what is native, what falls back, what is wrong\n"
        f"  HAL_BACKEND={short} hal train\n"
        f"The kernels go into {folder / _words(short)['module'] / '__init__.py'}."
    )
