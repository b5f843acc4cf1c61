"""Third-party plugins as their users meet them: installed by pip, chosen by HAL_BACKEND, small, and able to train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"


def lines_of_python(folder: Path) -> int:
    return sum(len(f.read_text().splitlines()) for f in folder.rglob("*.py"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed both plugins, with their entry points."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [*command, "--target", str(folder), str(PLUGINS / "template"), str(PLUGINS / "primitive")], check=True
    )
    return folder


def hal(site: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(site), **variables}
    return subprocess.run([sys.executable, "-m", "hal", *args], env=env, capture_output=True, text=True, timeout=300)


def test_the_template_is_one_kernel_and_fits_on_a_screen() -> None:
    import hal_template  # registered by conftest

    assert len(hal_template.kernels) == 1
    assert lines_of_python(PLUGINS / "template" / "hal_template") <= 50


def test_a_fully_native_backend_is_small() -> None:
    import hal_primitive

    assert len(hal_primitive.kernels) <= 30
    assert lines_of_python(PLUGINS / "primitive" / "hal_primitive") <= 150


def test_installed_plugins_are_listed_and_work(site: Path) -> None:
    done = hal(site, "devices", "--json", HAL_BACKEND="template", HAL_FALLBACK="allow")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["template"]["status"] == rows["primitive"]["status"] == "PASS"
    assert rows["template"]["default"]
    assert rows["template"]["source"] == "plugin template of hal-template 0.1.0"


@pytest.mark.parametrize(
    "name", ["template", *(pytest.param(n, marks=pytest.mark.slow) for n in ("primitive", "fake"))]
)
def test_a_network_trains_on_the_digits(site: Path, name: str) -> None:
    done = hal(site, "train", "--json", "--epochs", "3", HAL_BACKEND=name)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["device"] == name
    assert result["test_accuracy"] >= 0.85
    assert result["losses"][-1] < result["losses"][0] / 2
    fell_back = "fell back" in done.stderr
    assert fell_back == (name == "template"), done.stderr


@pytest.mark.slow
def test_a_fully_native_backend_never_falls_back(site: Path) -> None:
    done = hal(site, "train", "--json", "--epochs", "1", HAL_BACKEND="primitive", HAL_FALLBACK="error")
    assert done.returncode == 0, done.stderr
