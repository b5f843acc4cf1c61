"""`hal explain` and `hal calibrate`: of scripts and models, on this machine and on others, as text, JSON and a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hal.cli import cli

SCRIPT = """
import sys
import hal

weight = hal.ones(64, 64)

@hal.compile
def f(x):
    return (x @ weight).relu().sum()

if __name__ == "__main__":
    for n in (8, 16):
        print("result", f(hal.ones(n, 64)).item(), sys.argv[1:])
"""


@pytest.fixture
def script(tmp_path: Path, measured_roughly: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script with a compiled function; speeds are measured roughly, and kept in its folder."""
    monkeypatch.setenv("HAL_CACHE_DIR", str(tmp_path))
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["explain", *map(str, arguments)])


def test_a_script_is_run_and_its_plans_are_told(script: Path) -> None:
    done = explain(script, "more", "words")
    assert done.exit_code == 0, done.output
    assert "result 32768.0 ['more', 'words']" in done.output
    assert "plan 2 of 2" in done.output
    assert "the only device" in done.output
    assert f"{script}:9" in done.output
    told = explain(script, "--op", "matmul").output
    assert "step 0: matmul(float32[8, 64], float32[64, 64]) -> float32[8, 64]" in told


def test_json_and_a_page(script: Path, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    done = explain(script, "--json", "--html", page)
    assert done.exit_code == 0, done.output
    reports = json.loads(done.stdout)
    assert len(reports) == 2
    assert reports[0]["rows"][0]["op"] == "matmul"
    assert "result" in done.stderr
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_a_model_on_a_machine_that_is_not_here(script: Path) -> None:
    done = explain(f"{script}:f", "--input", "float32[4096,64]", "--devices", "dgx", "--json")
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)
    assert told["machine"] == "eight GPUs with NVLink"
    assert told["seconds"] > 0
    assert {"gpu:7", "host"} <= told["busy"].keys()
    assert told["memory"]["gpu:0"] == 80e9
    assert any("lie on" in note for note in told["notes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.py"], "there is no script nothing.py"),
        (["{script}:f"], "needs an --input, such as --input 64,784"),
        (["{script}:g", "--input", "3"], "has no 'g'"),
        (["{script}:f", "--input", "three"], "--input takes a shape such as 64,784 or int64[64], got 'three'"),
        (["{script}", "--devices", "gdx"], "no file and no preset 'gdx'"),
        (["{script}", "--op", "tanh"], "the plan has no 'tanh'; it has"),
        (["{empty}"], "ran no compiled function"),
    ],
)
def test_what_cannot_be_explained_is_said(script: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty.py").write_text("import hal; hal.ones(3)\n")
    done = explain(*(a.format(script=script, empty=tmp_path / "empty.py") for a in arguments))
    assert done.exit_code == 1
    assert message in done.output


def test_calibrate_measures_keeps_and_shows(script: Path) -> None:
    run = CliRunner().invoke
    asked = run(cli, ["calibrate", "cpu", "--known"])
    assert asked.exit_code == 1
    assert "cpu was never measured here: run `hal calibrate cpu`" in asked.output
    done = run(cli, ["calibrate", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    (measured,) = json.loads(done.stdout)
    assert 0 < measured["speed"]["paces"]["matmul"]["flop"] < 1e-6
    assert json.loads(run(cli, ["calibrate", "cpu", "--known", "--json"]).stdout) == [measured]
    assert run(cli, ["calibrate", "cpu", "--known"]).output.splitlines()[1].startswith("cpu ")
