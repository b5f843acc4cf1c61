"""The oneDNN plugin as its users meet it: installed by pip, found by hal, and training as NumPy does, only sooner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PLUGIN = Path(__file__).parents[2] / "plugins" / "onednn"
WHEEL = "onednn-cpu-gomp==2023.2.0"


def install(prefix: Path, *what: str) -> subprocess.CompletedProcess[str]:
    """Install into a folder of its own: `--target` would leave out the library, which is no Python."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    given = [*command, "--ignore-installed", "--prefix", str(prefix), *what]
    return subprocess.run(given, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin in it, and without the library."""
    folder = tmp_path_factory.mktemp("prefix")
    done = install(folder, "--no-build-isolation", "--no-index", str(PLUGIN))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def with_library(prefix: Path) -> Path:
    """The same folder, with the library."""
    done = install(prefix, WHEEL)
    if done.returncode:
        pytest.skip(f"{WHEEL} cannot be had: {' '.join(done.stderr.split()[:40])}")
    said = hal(prefix, "onednn").stdout
    if "cannot be used" in said:
        pytest.skip(said)
    return prefix


def hal(prefix: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with what is installed there."""
    site = sysconfig.get_path("purelib", "posix_prefix", vars={"base": str(prefix)})
    env = {**os.environ, "PYTHONPATH": site, "HAL_BACKEND": "cpu", **variables}
    return subprocess.run([sys.executable, "-m", "hal", *args], env=env, capture_output=True, text=True, timeout=300)


def trained(prefix: Path, **variables: str) -> dict[str, object]:
    done = hal(prefix, "train", "--json", "--epochs", "2", **variables)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_installed_without_a_library_it_says_why_and_harms_nothing(prefix: Path) -> None:
    done = hal(prefix, "devices", "-v", HAL_ONEDNN="0")
    assert done.returncode == 0, done.stderr
    assert "kernels of plugin onednn of hal-onednn 0.1.0: HAL_ONEDNN=0 turns oneDNN off" in done.stdout
    assert trained(prefix, HAL_ONEDNN="0")["device"] == "cpu"


def test_devices_say_which_library_is_used(with_library: Path) -> None:
    done = hal(with_library, "devices", "-v")
    assert done.returncode == 0, done.stderr
    assert "ops in float32, by oneDNN 3.2.0" in done.stdout
    assert str(with_library) in done.stdout


def test_training_is_the_same_with_and_without(with_library: Path) -> None:
    ours, theirs = trained(with_library), trained(with_library, HAL_ONEDNN="0")
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-3)
    assert ours["test_accuracy"] == pytest.approx(theirs["test_accuracy"], abs=0.02)


def test_what_runs_is_onednn(with_library: Path) -> None:
    code = """
import hal
from hal import ops
with hal.no_grad():
    y = ops.conv2d(hal.randn(4, 8, 10, 10), hal.randn(16, 8, 3, 3))
print(y.buffer.transpose(0, 2, 3, 1).flags.c_contiguous)
"""
    site = sysconfig.get_path("purelib", "posix_prefix", vars={"base": str(with_library)})
    env = {**os.environ, "PYTHONPATH": site, "HAL_BACKEND": "cpu"}
    for variable, want in (("", "True"), ("0", "False")):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**env, "HAL_ONEDNN": variable}, capture_output=True, text=True
        )
        assert done.stdout.strip() == want, done.stderr
