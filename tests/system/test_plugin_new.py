"""`hal plugin new`: what it writes installs, is clean, trains, keeps its promises, and is what plugins/template is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hal.cli.plugin import check_free, normalised, rendered, write_plugin
from hal.errors import PluginError

ROOT = Path(__file__).resolve().parents[2]
NAME = "odd_chip2"  # two words and a digit, so that every spelling of it differs


def run(*command: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **variables}
    return subprocess.run([*map(str, command)], cwd=folder, env=env, capture_output=True, text=True, check=False)


def hal(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "hal", *arguments, folder=folder, **variables)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package as the command writes it."""
    folder = tmp_path_factory.mktemp("new")
    done = hal("plugin", "new", "Odd Chip2", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "pip install --editable hal-odd-chip2" in done.stdout
    assert f"hal conform {NAME}" in done.stdout
    return folder / "hal-odd-chip2"


@pytest.fixture(scope="module")
def site(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed it."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = run(*pip, "--target", folder, written, folder=written)
    assert done.returncode == 0, done.stderr
    return folder


def test_plugins_template_is_what_the_command_writes() -> None:
    folder = ROOT / "plugins" / "template"
    for path, text in rendered("template").items():
        assert (folder / path).read_text(encoding="utf-8") == text, (
            f"plugins/template/{path}: edit hal/cli/plugin_template instead, "
            "then run `hal plugin new template --path plugins/template --force`"
        )
    ignored = {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
    there = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert {p.as_posix() for p in there if not ignored & set(p.parts)} == set(rendered("template"))


def test_no_mark_of_the_templates_is_left(written: Path) -> None:
    for path in filter(Path.is_file, written.rglob("*")):
        text = path.read_text(encoding="utf-8")
        assert not [mark for mark in ("@name@", "@module@", "@class@", "@distribution@", ".in") if mark in path.name]
        assert "@" not in text.replace("@v4", "").replace("@v5", "").replace("@kernels.", "").replace("@hookimpl", "")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("mychip", "mychip"),
        ("My-Chip", "my_chip"),
        ("hal-mychip", "mychip"),
        ("my chip.2", "my_chip_2"),
        ("a__b", "a_b"),
    ],
)
def test_names_are_brought_into_one_spelling(given: str, name: str) -> None:
    assert normalised(given) == name


@pytest.mark.parametrize("name", ["", "3chip", "my/chip", "çhip", "_", "hal_", "class", "-x", "chip_"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(PluginError, match="cannot be the name of a backend: it needs a letter first"):
        normalised(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cpu", "there is a backend 'cpu' already, of plugin cpu of hal-runtime .*: choose another name"),
        ("fake", "there is a backend 'fake' already"),
        ("runtime", "would be the package hal-runtime, which is HAL itself"),
    ],
)
def test_a_name_that_is_taken_is_refused(name: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        check_free(name)


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    done = hal("plugin", "new", "cpu", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: there is a backend 'cpu' already")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    mine = tmp_path / "README.md"
    mine.write_text("mine")
    with pytest.raises(PluginError, match=r"has README\.md already, and nothing was written: --path .* --force"):
        write_plugin(NAME, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert mine.read_text() == "mine"

    (tmp_path / "LICENSE").write_text("theirs")
    write_plugin(NAME, tmp_path, force=True)
    assert mine.read_text() == rendered(NAME)["README.md"]
    assert (tmp_path / "LICENSE").read_text() == "theirs"


def test_one_can_write_over_ones_own_installed_plugin(written: Path, site: Path) -> None:
    again = [NAME, "--path", str(written)]
    done = hal("plugin", "new", *again, folder=written, PYTHONPATH=str(site))
    assert done.returncode == 1
    assert "--force overwrites" in done.stderr
    done = hal("plugin", "new", *again, "--force", folder=written, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr


def test_it_is_listed(site: Path, tmp_path: Path) -> None:
    done = hal("devices", "--json", folder=tmp_path, PYTHONPATH=str(site), HAL_FALLBACK="allow")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows[NAME]["status"] == "PASS"
    assert not rows[NAME]["default"]


def test_a_file_can_become_a_package_of_the_same_name(written: Path, tmp_path: Path) -> None:
    single = tmp_path / "single.py"
    single.write_text((written / f"hal_{NAME}" / "__init__.py").read_text())
    done = hal("plugin", "new", NAME, folder=tmp_path, HAL_PLUGIN_PATH=str(single))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hal-odd-chip2" / "pyproject.toml").exists()


@pytest.mark.slow
def test_it_trains(site: Path, tmp_path: Path) -> None:
    chosen = {"PYTHONPATH": str(site), "HAL_BACKEND": NAME}
    done = hal("train", "--json", "--epochs", "1", folder=tmp_path, **chosen)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["device"] == NAME
    assert "fell back" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("tool", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join)
def test_it_passes_the_checkers(written: Path, tmp_path: Path, tool: list[str]) -> None:
    pytest.importorskip(tool[0], reason="the checkers come with `make dev`")
    done = run(sys.executable, "-m", *tool, folder=written, RUFF_NO_CACHE="true", MYPY_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_its_own_tests_pass(written: Path, site: Path) -> None:
    done = run(sys.executable, "-m", "pytest", "-q", folder=written, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_its_suite_starts_mostly_with_what_falls_back(site: Path, tmp_path: Path) -> None:
    code = """
import json, sys
from hal.testing.suite import run
print(json.dumps(run(sys.argv[1], levels=["primitives"]).counts))
"""
    done = run(sys.executable, "-c", code, NAME, folder=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["wrong"] == counts["crash"] == 0
    assert counts["native"] >= 50
    assert counts["fallback"] > 0.8 * sum(counts.values())
