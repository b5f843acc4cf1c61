"""The wheel: that it carries all it needs, and that what it installs trains from any folder."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
PACKAGES = PACKAGES["wheel"]["packages"]

pytestmark = pytest.mark.slow


def pip(*arguments: str | Path) -> None:
    """Run pip with no index: the build tools are in the environment, and so is every dependency."""
    command = [
        sys.executable,
        "-m",
        "pip",
        *map(str, arguments),
        "--no-deps",
        "--no-index",
        "--disable-pip-version-check",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", ROOT, "--wheel-dir", folder, "--no-build-isolation")
    (built,) = folder.glob("hal_runtime-*.whl")
    return built


def test_the_wheel_holds_every_package_and_data_file(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = set()
    for package in PACKAGES:
        folder = ROOT / package
        names = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        wanted |= {path.relative_to(folder.parent).as_posix() for path in names}
    assert {"hal/py.typed", "nn/py.typed", "hal_cpu/py.typed", "nn/data/digits.csv.gz", "nn/data/DIGITS.md"} <= wanted
    assert wanted <= held, sorted(wanted - held)
    strangers = {name.partition("/")[0] for name in held} - {Path(package).name for package in PACKAGES}
    assert {name.rpartition(".")[2] for name in strangers} == {"dist-info"}


def test_what_the_wheel_installs_trains_on_the_digits(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip("install", wheel, "--target", site)
    done = subprocess.run(
        [sys.executable, "-m", "hal", "train", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["test_accuracy"] >= 0.97
    where = "import hal, nn, hal_cpu; print(hal.__file__, nn.__file__, hal_cpu.__file__)"
    found = subprocess.check_output(
        [sys.executable, "-c", where], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)}, text=True
    )
    assert all(Path(name).is_relative_to(site) for name in found.split())
