"""HAL_PLUGIN_PATH: plugins in files, found where they lie, named when broken, and harmless to all others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hal.errors import DeviceError, PluginError
from hal.plugin_files import load_file, plugin_files
from hal.registry import Registry

CHIP = """
from hal.plugin import Backend, Device, Kernels, hookimpl

class Chip(Backend):
    name = "{name}"
    kernels = Kernels()
    def devices(self): return [Device(self)]
    def upload(self, array, device): return array.copy()
    def download(self, buffer, spec): return buffer.copy()

@hookimpl
def hal_backends(): return [Chip()]
"""


@pytest.fixture(autouse=True)
def forget_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, code: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    return path


def loaded(monkeypatch: pytest.MonkeyPatch, *paths: Path | str) -> Registry:
    monkeypatch.setenv("HAL_PLUGIN_PATH", os.pathsep.join(map(str, paths)))
    registry = Registry()
    registry.load_path()
    return registry


def test_a_file_is_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "pathchip.py", CHIP.format(name="pathchip"))
    registry = loaded(monkeypatch, file)
    assert not registry.problems
    assert registry.backend("pathchip").name == "pathchip"
    assert str(registry.sources["pathchip"]) == f"plugin pathchip of {file}"


def test_what_the_path_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "chips"
    b = write(folder / "b_chip.py", "")
    a = write(folder / "a_chip.py", "")
    write(folder / "_helper.py", "")
    write(folder / ".hidden.py", "")
    write(folder / "notes.txt", "")
    package = write(folder / "whole_chip" / "__init__.py", "").parent
    write(folder / "data" / "table.py", "")
    alone = write(tmp_path / "alone.py", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    assert plugin_files("") == []
    assert plugin_files(str(folder)) == [a, b, package]
    assert plugin_files(str(package)) == [package]
    assert plugin_files(os.pathsep.join([" alone.py ", "", "~/alone.py", "chips"])) == [alone, a, b, package]


def test_a_package_may_have_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "pathpack" / "__init__.py", "from .chip import hal_backends")
    write(tmp_path / "pathpack" / "chip.py", CHIP.format(name="packed"))
    assert loaded(monkeypatch, tmp_path / "pathpack").backend("packed").name == "packed"


@pytest.mark.parametrize(
    ("code", "message", "trace"),
    [
        (
            "import a_library_that_is_not_there",
            "cannot be imported: ModuleNotFoundError",
            "a_library_that_is_not_there",
        ),
        ("def deep():\n    raise RuntimeError('boom')\ndeep()", "cannot be imported: RuntimeError('boom')", "in deep"),
        ("def broken(:", "cannot be imported: SyntaxError", "pathbad.py"),
        ("raise SystemExit('done')", "cannot be imported: SystemExit('done')", "SystemExit: done"),
        ("def hal_backends(): raise ValueError('no chip')", "hal_backends failed: ValueError('no chip')", "no chip"),
        ("hal_api = 99\ndef hal_backends(): return []", "was built for plugin API 99", ""),
        ("x = 1", "has none of the hooks that make a plugin (hal_backends, hal_ops, hal_kernels, ", ""),
    ],
)
def test_a_broken_file_is_named_and_harms_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str, trace: str
) -> None:
    bad = write(tmp_path / "pathbad.py", code)
    good = write(tmp_path / "pathgood.py", CHIP.format(name="goodchip"))
    registry = loaded(monkeypatch, bad, good)
    (problem,) = registry.problems
    assert (problem.plugin, problem.distribution) == ("pathbad", str(bad))
    assert message in problem.message
    assert trace in problem.trace
    assert "cannot be imported" not in message or "pathbad" not in sys.modules
    assert registry.backend("goodchip").name == "goodchip"
    with pytest.raises(DeviceError, match=r"'pathbad' cannot be used: plugin pathbad of .*pathbad\.py"):
        registry.backend("pathbad")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.py", None, "is named in HAL_PLUGIN_PATH, but is not there"),
        ("notes.txt", "", "is named in HAL_PLUGIN_PATH, but is no Python file"),
        ("empty", "folder", "is named in HAL_PLUGIN_PATH, but is a folder without Python files"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | None, message: str
) -> None:
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        write(tmp_path / name, content)
    (problem,) = loaded(monkeypatch, tmp_path / name).problems
    assert (problem.plugin, problem.message) == (Path(name).stem, message)
    assert problem.distribution == str(tmp_path / name)


def test_two_files_of_one_backend_are_both_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write(tmp_path / "one" / "pathtwin.py", CHIP.format(name="twin"))
    two = write(tmp_path / "two" / "pathtwin.py", CHIP.format(name="twin"))
    registry = loaded(monkeypatch, one, two)
    with pytest.raises(PluginError) as caught:
        registry.backend("twin")
    assert str(one) in str(caught.value)
    assert str(two) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "there"),
    [("", {"achip", "bchip"}), ("0", set()), ("path_b", {"bchip"}), ("path_a,path_b", {"achip", "bchip"})],
)
def test_hal_plugins_chooses_among_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, there: set[str]
) -> None:
    write(tmp_path / "path_a.py", CHIP.format(name="achip"))
    write(tmp_path / "path_b.py", CHIP.format(name="bchip"))
    monkeypatch.setenv("HAL_PLUGINS", value)
    assert loaded(monkeypatch, tmp_path).backends.keys() == there


def test_a_file_hides_no_module_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "colorsys.py", CHIP.format(name="colourchip"))  # a module of the standard library
    assert loaded(monkeypatch, file).backend("colourchip").name == "colourchip"
    import colorsys

    assert Path(str(colorsys.__file__)) != file


def test_a_file_that_was_imported_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "pathonce.py", CHIP.format(name="once"))
    module = load_file(file)
    assert sys.modules["pathonce"] is module
    assert load_file(file) is module


def test_programs_and_commands_see_the_file(tmp_path: Path) -> None:
    write(tmp_path / "chips" / "pathchip.py", CHIP.format(name="pathchip"))
    write(tmp_path / "chips" / "pathbad.py", "raise RuntimeError('boom')")
    env = {**os.environ, "HAL_PLUGIN_PATH": str(tmp_path / "chips"), "HAL_BACKEND": "pathchip"}
    code = "import hal; print(hal.ones(2, 3).device)"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pathchip"
    command = [sys.executable, "-m", "hal", "devices", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["pathchip"]["default"]
    assert rows["pathchip"]["status"] == "PASS"
    assert "RuntimeError: boom" in rows["pathbad"]["trace"]
