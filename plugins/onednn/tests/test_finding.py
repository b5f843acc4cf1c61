"""The library is loaded on first use only, and what is wrong with it is said and harms nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hal_onednn.finding import Status

SETUP = f"""
import importlib.metadata, sys
import hal
if "onednn" not in [entry.name for entry in importlib.metadata.entry_points(group="hal")]:
    sys.path.insert(0, {str(Path(__file__).parents[1])!r})
    import hal_onednn
    hal.register(hal_onednn)
import hal_onednn
import numpy as np
loaded = lambda: "libdnnl" in open("/proc/self/maps").read()
def convolve(scale=1):
    x, w = np.ones((2, 8, 30, 30), np.float32), np.ones((32, 8, 5, 5), np.float32)
    with hal.no_grad():
        y = hal.ops.conv2d(hal.from_numpy(x * scale), hal.from_numpy(w))
    return y
"""


def run(code: str, **variables: str) -> str:
    """What a program prints that has the plugin."""
    env = {**os.environ, "HAL_BACKEND": "cpu", **variables}
    done = subprocess.run([sys.executable, "-c", SETUP + code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.usefixtures("library")
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not list what a process has loaded")
def test_loaded_on_first_use() -> None:
    code = "hal.devices(); hal.ones(3) + 1; print(loaded()); print(convolve().buffer[1, 1, 1, 1], loaded())"
    assert run(code).split() == ["False", "200.0", "True"]


ABSENT = [
    ("0", "HAL_ONEDNN=0 turns oneDNN off"),
    ("/no/such/libdnnl.so", "/no/such/libdnnl.so is not there"),
    (os.__file__, "cannot be used"),
    ("libm.so.6", "it is no oneDNN 3"),
]


@pytest.mark.parametrize(("value", "reason"), ABSENT)
def test_without_a_library_numpy_does_it(value: str, reason: str) -> None:
    code = "y = convolve(); print(y.buffer.flags.c_contiguous, float(y.buffer.max())); print(hal_onednn.status())"
    first, second = run(code, HAL_ONEDNN=value).splitlines()
    assert first == "True 200.0"
    assert reason in second
    if value != "0":
        assert "pip install onednn-cpu-gomp" in second


def test_the_commands_say_which_library_or_why_none() -> None:
    for value in ("", "0"):
        env = {**os.environ, "HAL_BACKEND": "cpu", "HAL_ONEDNN": value}
        want = run("print(hal_onednn.status())", HAL_ONEDNN=value)
        code = f"{SETUP}\nfrom hal.cli import main\nsys.argv = ['hal', *sys.argv[1:]]\nmain()"
        for command in (["devices", "-v"], ["onednn"]):
            done = subprocess.run([sys.executable, "-c", code, *command], env=env, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert want in done.stdout


@pytest.mark.usefixtures("library")
def test_works_on_the_threads_that_it_is_given() -> None:
    code = "print(hal_onednn.status().threads, convolve().buffer.max())"
    for count in ("1", "2"):
        assert run(code, OMP_NUM_THREADS=count) == f"{count} 200.0"


@pytest.mark.usefixtures("library")
def test_how_idle_threads_wait_is_the_users_to_say() -> None:
    code = "import os; convolve(); print('GOMP_SPINCOUNT' in os.environ)"
    assert run(code) == "False"
    assert run(code, GOMP_SPINCOUNT="7") == "True"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.usefixtures("library")
def test_a_forked_child_works_alone() -> None:
    code = """
import os, signal, warnings
warnings.simplefilter("ignore")  # that the parent has threads
convolve()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if float(convolve(2).buffer.max()) == 400.0 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), convolve(3).buffer.max())
"""
    assert run(code, OMP_NUM_THREADS="2") == "0 600.0"


def test_status_says_what_is_there(library: Status) -> None:
    assert library.version.startswith("3.")
    assert Path(library.path).name.startswith("libdnnl")
    assert library.path in str(library)
