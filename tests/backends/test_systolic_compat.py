"""SCALE-Sim's counts, against scalesim_sample.csv: a sample of what SCALE-Sim 3.0.0 itself reported."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from hal.cli import cli
from hal.errors import ConfigError
from hal_systolic.compat import Convolution, Layer, count, read_layer
from hal_systolic.presets import load
from hal_systolic.simulation import simulate
from hal_systolic.work import Matmul, Operand

TABLE = Path(__file__).with_name("scalesim_sample.csv")
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
EXACT = ["compute_cycles", "mapping_eff_pct", "compute_util_pct", "folds"]
EXACT += ["sram_ifmap_reads", "sram_filter_reads", "sram_ofmap_writes"]
WITHOUT_STALLS = ["total_cycles", "overall_util_pct", "dram_filter_reads", "dram_ofmap_writes"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_counts_are_those_of_scalesim(row: dict[str, str]) -> None:
    counts = count(read_layer(row))
    names = EXACT + (WITHOUT_STALLS if row["mode"] == "CALC" else [])
    if row["mode"] == "CALC" and row["kind"] == "gemm":
        names = [*names, "dram_ifmap_reads"]
    assert {name: getattr(counts, name) for name in names} == pytest.approx({n: float(row[n]) for n in names}, rel=1e-9)
    assert counts.total_cycles == int(row["total_cycles"]) - int(row["stall_cycles"])


@pytest.mark.parametrize("row", ROWS[::4], ids=lambda row: row["id"])
def test_the_event_level_counts_the_same_cycles(row: dict[str, str]) -> None:
    """Its count is one more: SCALE-Sim gives the index of the last cycle."""
    m, n, k, rows, cols = (int(row[name]) for name in ("M", "N", "K", "rows", "cols"))
    machine = load("scalesim-compat", rows=rows, cols=cols, dataflow=row["dataflow"])
    a, b, out = (Operand(key, 1) for key in range(3))
    simulation = simulate([Matmul(m, k, n, a, b, out, "int8")], machine)
    assert simulation.cycles == int(row["compute_cycles"]) + 1
    assert simulation.total.tiles == int(row["folds"])


def test_the_command_writes_the_table_with_its_results(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    result = CliRunner().invoke(cli, ["sim", "compat", str(TABLE), "--out", str(out)])
    assert result.exit_code == 0, result.output
    written = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    names = ["id", "M", "compute_cycles", "compute_util_pct", "sram_ofmap_writes", "mapping_eff_pct"]
    assert [[row[n] for n in names] for row in written] == [[row[n] for n in names] for row in ROWS]

    listed = CliRunner().invoke(cli, ["sim", "compat", str(TABLE), "--json"])
    assert [row["id"] for row in json.loads(listed.stdout)] == [row["id"] for row in ROWS]


@pytest.mark.parametrize(
    ("text", "gemm", "pixels"),
    [
        ((13, 11, 4, 2, 5, 7, 3), (16, 7, 40), 520),  # stride beyond the kernel: columns that no window covers
        ((14, 14, 1, 1, 256, 512, 2), (64, 512, 256), 12544),  # the last window lies outside
        ((5, 5, 5, 5, 16, 120, 1), (1, 120, 400), 400),
        ((30, 30, 3, 3, 1, 1, 1), (784, 1, 9), 900),
    ],
)
def test_a_convolution_is_a_product(text: tuple[int, ...], gemm: tuple[int, int, int], pixels: int) -> None:
    conv = Convolution(*text)
    assert (conv.gemm, conv.pixels_read) == (gemm, pixels)


GOOD = {"id": "r1", "M": "4", "N": "4", "K": "4", "dataflow": "ws", "rows": "8", "cols": "8"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": "0"}, "r1: rows needs a whole number of 1 or more, got '0'"),
        ({"M": "x"}, "r1: M needs a whole number"),
        ({"dataflow": "rs"}, "dataflow must be ws, os or is, got 'rs'"),
        ({"conv": "3x3x5x5x1x1x1"}, "kernel of conv 3x3x5x5x1x1x1 is larger than its image"),
        ({"conv": "5x5x3x3x1x1"}, "conv is HxWx"),
        ({"conv": "5x5x3x3x1x1x1"}, r"the row says \(4, 4, 4\)"),
        ({"sram_kb": "64"}, "sram_kb is IFMAP/FILTER/OFMAP"),
    ],
)
def test_a_row_that_means_nothing_is_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_layer({**GOOD, **changes})


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "in.csv"
    table.write_text("id,M,N,K\nr1,1,1,1\n", encoding="utf-8")
    result = CliRunner().invoke(cli, ["sim", "compat", str(table)])
    assert result.exit_code == 1
    assert "needs the columns" in result.output
    assert "dataflow" in result.output


def remembered(k: int, n: int, cols: int, passes: int, window: int) -> int:
    """Words read from memory, one by one: a full window is forgotten, and what is in it is not read again."""
    known: set[int] = set()
    reads = 0
    for block in range(0, n, cols):
        for _ in range(passes):
            for word in range(block * k, min(block + cols, n) * k):
                if word in known:
                    continue
                known.add(word)
                reads += 1
                if len(known) == window:
                    known.clear()
    return reads


def test_filters_that_do_not_fit_are_read_as_often_as_they_are_forgotten() -> None:
    rng = random.Random(0)
    for _ in range(150):
        k, n, cols, passes = (rng.randint(1, most) for most in (40, 60, 20, 4))
        sram = rng.choice([200, 600, 1000])
        layer = Layer(4 * passes, n, k, 1, "os", 4, cols, (sram, sram, sram))
        assert count(layer).dram_filter_reads == remembered(k, n, cols, passes, sram // 2)
