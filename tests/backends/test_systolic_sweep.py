"""Sweeps: one piece of work on many machines, as a table, JSON and a page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hal.cli import cli
from hal_systolic.presets import load
from hal_systolic.simulation import simulate
from hal_systolic.sweep import sweep
from hal_systolic.work import Matmul, Operand

PRODUCT = Matmul(128, 128, 128, Operand(0, 32768), Operand(1, 32768, True), Operand(2, 32768))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["sim", "sweep", *arguments])


def test_each_point_is_a_simulation_of_its_own() -> None:
    machine = load("tpu-v2-core")
    points = list(sweep([PRODUCT], machine, {"rows": [16, 32], "clock_hz": [1e9, 2e9]}))
    assert [tuple(p.values.values()) for p in points] == [(16, 1e9), (16, 2e9), (32, 1e9), (32, 2e9)]
    for point in points:
        own = machine.override(**point.values, cols=point.values["rows"])
        assert point.measures["cycles"] == pytest.approx(simulate([PRODUCT], own).cycles)
    assert points[2].measures["cycles"] < points[0].measures["cycles"]


def test_the_command_prints_a_table_and_writes_a_picture(tmp_path: Path) -> None:
    page = tmp_path / "sweep.html"
    result = run(
        "--matmul", "64,64,64", "--preset", "tpu-v2-core", "--rows", "8,16,9000", "--set", "arrays=1,2",
        "--html", str(page),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].split()[:3] == ["rows", "arrays", "cycles"]
    assert "rows must be 1 to 4096, got 9000" in lines[5]
    text = page.read_text(encoding="utf-8")
    assert len(re.findall("<polyline", text)) == 4 * 2  # four panels, two lines
    assert len(re.findall("<circle", text)) == 4 * 4
    assert "http" not in text


def test_the_table_is_also_json() -> None:
    result = run("--application", "MLP1", "--preset", "tpu-v1", "--set", "dram.bytes_per_s=34e9,136e9", "--json")
    slow, fast = json.loads(result.output)
    assert slow["values"] == {"dram.bytes_per_s": 34e9}
    assert fast["measures"]["seconds"] < slow["measures"]["seconds"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--matmul", "1,2,3"], "a sweep needs values to try"),
        (["--rows", "8"], "needs one piece of work"),
        (["--matmul", "1,2", "--rows", "8"], "--matmul needs M,K,N"),
        (["--application", "MLP9", "--rows", "8"], "no application 'MLP9'; there are MLP0"),
        (["--matmul", "1,2,3", "--set", "rows"], "--set needs FIELD=V,V"),
    ],
)
def test_a_sweep_of_nothing_says_what_is_needed(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.output


def test_a_network_is_recorded_once_and_swept() -> None:
    result = run("LeNet5", "--preset", "tpu-v2-core", "--rows", "32,64", "--json")
    assert result.exit_code == 0, result.output
    assert len({point["measures"]["cycles"] for point in json.loads(result.output)}) == 2
