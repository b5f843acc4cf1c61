"""What the pages show runs, and what they name exists.

A page's Python blocks run in order, in one process and an empty folder. A block with a title is a file of that name,
in a copy of HAL if it belongs there; a shell block runs with `hal`, `python` and `pip install` as a reader has them,
except that pip asks no index.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
FENCE = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)
PRELUDE = f"""set -euo pipefail
python() {{ {shlex.quote(sys.executable)} "$@"; }}
hal() {{ python -m hal "$@"; }}
pip() {{ PYTHONWARNINGS= python -m pip "$@" --target site --upgrade --quiet --no-index --no-deps \\
    --no-build-isolation; }}
"""


class Block(NamedTuple):
    """One fenced block of a page."""

    language: str
    title: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(*match.groups()) for match in FENCE.finditer(page.read_text(encoding="utf-8"))]


def shows_code(page: Path) -> bool:
    return any(block.language == "python" for block in blocks(page))


def steps(page: Path) -> Iterator[Block]:
    """What to do, in order: files to write, shell blocks, and runs of Python blocks joined into one program."""
    program: list[str] = []
    for block in blocks(page):
        if block.title or block.language == "sh":
            if program:
                yield Block("python", None, "\n".join(program))
                program = []
            yield block
        elif block.language == "python":
            program.append(block.text)
    if program:
        yield Block("python", None, "\n".join(program))


@pytest.mark.parametrize("page", [p for p in PAGES if shows_code(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_page_shows_runs(page: Path, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(tmp_path / "site")]),
        "PYTHONWARNINGS": "error",
        "HAL_CACHE_DIR": "cache",
    }
    for block in steps(page):
        if block.title:
            target = tmp_path / block.title
            if target.is_relative_to(tmp_path / "hal") and not (tmp_path / "hal").exists():
                shutil.copytree(ROOT / "hal", tmp_path / "hal", ignore=shutil.ignore_patterns("__pycache__"))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            continue
        command = (
            [sys.executable, "-c", block.text] if block.language == "python" else ["bash", "-c", PRELUDE + block.text]
        )
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_files_that_a_page_links_to_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def variables(*paths: Path) -> set[str]:
    """The environment variables of HAL that these files name."""
    return {
        name for path in paths for name in re.findall(r"\bHAL_[A-Z]+(?:_[A-Z]+)*\b", path.read_text(encoding="utf-8"))
    }


def test_every_variable_is_in_the_readme_and_every_one_there_is_read() -> None:
    sources = [p for folder in ("hal", "nn", "backends") for p in (ROOT / folder).rglob("*.py")]
    assert variables(ROOT / "README.md") == variables(*sources)


def test_every_folder_is_on_the_map() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    folders = [p.name for p in ROOT.iterdir() if p.is_dir() and any(p.rglob("*.py")) and not p.name.startswith(".")]
    packages = [p.parent.name for p in ROOT.glob("backends/*/__init__.py")]
    unnamed = [name for name in [*folders, *packages] if f"{name}/" not in readme]
    assert not unnamed
