"""What the pages show runs, and what they name exists.

A page's Python blocks run in order, in one process and an empty folder. A block with a title is a file of that name,
in a copy of HAL if it belongs there; a shell block runs with `hal`, `python` and `pip install` as a reader has them,
except that pip asks no index. A text block after either is what it prints: `...` stands for anything, and a number for
any number, except that none is not some. A page with `<!-- slow -->` in it takes longer than a few seconds.
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

from hal.codegen.dialect import OPENCL

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
FENCE = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?!\w)")
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
    """What to do, in order: files to write, shell blocks, runs of Python blocks joined into one program, and output."""
    program: list[str] = []
    for block in blocks(page):
        if block.language == "python" and not block.title:
            program.append(block.text)
            continue
        if block.title or block.language in ("sh", "text"):
            if program:
                yield Block("python", None, "\n".join(program))
                program = []
            yield block
    if program:
        yield Block("python", None, "\n".join(program))


def pattern(shown: str) -> re.Pattern[str]:
    """What a program may print where a page shows `shown`: other numbers, wider columns, more where it has `...`."""
    found = []
    for part in re.split(rf"({NUMBER.pattern}|\.\.\.|\s+)", shown.strip()):
        if NUMBER.fullmatch(part):
            none = float(part.replace(",", "")) == 0
            found.append(r"0(?![\d.,]*[1-9])[\d.]*" if none else r"(?=[\d.,]*[1-9])[\d.,]+")
        elif part == "...":
            found.append(r".*?")
        else:
            found.append(r"\s+" if part.isspace() else re.escape(part))
    return re.compile("".join(found), re.DOTALL)


@pytest.mark.parametrize(
    ("shown", "printed", "fits"),
    [
        ("3 native, 0 wrong", "  12 native,  0 wrong\n", True),
        ("3 native, 0 wrong", "0 native, 0 wrong", False),
        ("3 native, 0 wrong", "3 native, 10 wrong", False),
        ("3 native, 0 wrong", "3 native, 0 wrong, 5 crash", True),
        ("1,234 bytes ... 0.5 s", "7 bytes\nread in 12.25 s", True),
        ("0.0 s", "0.5 s", False),
        ("0.0 s", "0.00 s", True),
        ("of float32", "of float64", False),
    ],
)
def test_what_a_page_shows_as_output_may_have_other_numbers(shown: str, printed: str, fits: bool) -> None:
    assert bool(pattern(shown).search(printed)) == fits


def marks(page: Path) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if "<!-- slow -->" in page.read_text(encoding="utf-8") else []


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=marks(page), id=str(page.relative_to(ROOT))) for page in PAGES if shows_code(page)],
)
def test_what_a_page_shows_runs(page: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()  # and a site it is: what is installed there with --editable is found through a .pth file
    (site / "sitecustomize.py").write_text(f"import site\nsite.addsitedir({str(site)!r})\n", encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(site)]),
        "PYTHONWARNINGS": "error",
        "HAL_CACHE_DIR": "cache",
    }
    printed = ""
    for block in steps(page):
        if block.title:
            target = tmp_path / block.title
            if target.is_relative_to(tmp_path / "hal") and not (tmp_path / "hal").exists():
                shutil.copytree(ROOT / "hal", tmp_path / "hal", ignore=shutil.ignore_patterns("__pycache__"))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            continue
        if block.language == "text":
            assert pattern(block.text).search(printed), f"the page shows\n{block.text}\nand this was printed\n{printed}"
            continue
        command = (
            [sys.executable, "-c", block.text] if block.language == "python" else ["bash", "-c", PRELUDE + block.text]
        )
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        printed = done.stdout + done.stderr
        assert done.returncode == 0, f"{block.text}\n{printed}"


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
    words = {re.sub(r"\(.*", "", word) for word in OPENCL.words}  # of generated source, not of the environment
    assert variables(ROOT / "README.md") == variables(*sources) - words


def test_every_folder_is_on_the_map() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    folders = [p.name for p in ROOT.iterdir() if p.is_dir() and any(p.rglob("*.py")) and not p.name.startswith(".")]
    packages = [p.parent.name for p in ROOT.glob("backends/*/__init__.py")]
    unnamed = [name for name in [*folders, *packages] if f"{name}/" not in readme]
    assert not unnamed
