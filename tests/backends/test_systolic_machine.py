"""The machine: presets, files, changes, refusals; and the command stream that is made for it."""

from __future__ import annotations

import json
import random
import tomllib
from collections import deque
from pathlib import Path

import pytest
from click.testing import CliRunner

from hal.cli import cli
from hal.errors import ConfigError
from hal_systolic.cli.presets import toml
from hal_systolic.config import Machine
from hal_systolic.energy import NM7, NM45, process, read_table
from hal_systolic.presets import DEFAULT, PRESETS, load
from hal_systolic.runs import Feeder, run
from hal_systolic.simulation import simulate
from hal_systolic.work import Matmul, Operand, Pause, Transfer, Vector, Work

NAMES = {
    "tpu-v1", "tpu-v2-core", "tpu-v3-core", "tpu-v4-core", "gemmini-16", "edge-8", "eyeriss-like", "scalesim-compat",
}  # fmt: skip
PEAKS = {"tpu-v1": 91.75, "tpu-v2-core": 22.94, "tpu-v3-core": 61.6, "tpu-v4-core": 137.6, "edge-8": 0.064}


def test_the_presets_are_there_with_their_published_peaks() -> None:
    assert set(PRESETS) == NAMES
    for name, tera in PEAKS.items():
        assert 2 * PRESETS[name].peak_macs * PRESETS[name].clock_hz / 1e12 == pytest.approx(tera, rel=1e-3)
    assert not PRESETS["tpu-v1"].training
    assert PRESETS["tpu-v1"].accumulator_rows == 4096


def test_a_machine_survives_the_way_through_its_file(tmp_path: Path) -> None:
    for preset in PRESETS.values():
        path = tmp_path / f"{preset.name}.toml"
        path.write_text(toml(preset), encoding="utf-8")
        assert load(path) == preset
        assert tomllib.loads(toml(preset))["rates"] == dict(preset.rates)


def test_a_file_changes_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('preset = "tpu-v1"\nrows = 128\n[dram]\nlatency = 7\n', encoding="utf-8")
    monkeypatch.setenv("HAL_SYSTOLIC", str(path))
    machine = load()
    assert (machine.name, machine.rows, machine.cols, machine.dram.latency) == ("mine", 128, 256, 7)
    assert machine.dram.bytes_per_s == 34e9
    monkeypatch.delenv("HAL_SYSTOLIC")
    assert load().name == DEFAULT


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rows": 0}, "rows must be 1 to 4096, got 0"),
        ({"arrays": -1}, "arrays must be 1 or more"),
        ({"weight_buffers": 3}, "weight_buffers must be 1 or 2"),
        ({"clock_hz": 0.0}, "clock_hz must be above 0"),
        ({"acc.nbytes": 100}, "the accumulators .* acc.nbytes must be 2048 or more"),
        ({"weight_fifo_tiles": 0, "act.nbytes": 1 << 20}, "weight tile .* is larger than its buffer"),
        ({"weight_fifo_tiles": 0, "weight.nbytes": 1 << 16}, "weight.nbytes must be 262144 or more"),
        ({"act.nbytes": 1024}, "act .* is too small"),
        ({"dataflow": "os"}, "a weight FIFO feeds stationary weights"),
        ({"acc_dtype": "float32"}, "int8 goes with int32"),
        ({"in_dtype": "bfloat16", "acc_dtype": "float32"}, "rates has no entry for in_dtype bfloat16"),
        ({"rowz": 3}, "no field 'rowz'.*did you mean rows"),
        ({"dram.latncy": 3}, "did you mean dram.latency"),
        ({"dataflow": "rs"}, "dataflow must be one of ws, os, is"),
        ({"rows": 1.5}, "rows needs a whole number"),
        ({"training": 1}, "training needs true or false"),
        ({"dram": 5}, "dram has parts"),
        ({"rates": {"int8": 0}}, "rates.int8 needs"),
    ],
)
def test_a_machine_that_cannot_work_is_refused_with_the_reason(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load("tpu-v1", **changes)


def test_an_unknown_machine_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean tpu-v1"):
        load("tpuv1")
    with pytest.raises(ConfigError, match="is no machine in TOML"):
        load(tmp_path / "none.toml")


def test_energy_lies_between_its_processes_and_can_be_replaced(tmp_path: Path) -> None:
    middle = process(28)
    assert NM7.mac_int8 < middle.mac_int8 < NM45.mac_int8
    assert NM45.sram_byte(8 << 10) == 10 / 8
    assert NM45.sram_byte(1 << 20) == NM45.sram_byte(4 << 20) == 100 / 8
    assert NM45.sram_byte(1 << 10) < NM45.sram_byte(16 << 10) < NM45.sram_byte(64 << 10)
    table = tmp_path / "mine.csv"
    table.write_text("event,pj\nmac_int8,0.5\n", encoding="utf-8")
    assert read_table(table, NM45).mac_int8 == 0.5
    machine = tmp_path / "mine.toml"
    machine.write_text('preset = "tpu-v1"\nenergy = "mine.csv"\n', encoding="utf-8")
    assert (load(machine).energy.mac_int8, load(machine).energy.dram) == (0.5, NM45.dram)
    table.write_text("event,pj\nmac_int9,0.5\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no event 'mac_int9'"):
        read_table(table, NM45)
    with pytest.raises(ConfigError, match="there is no table of energies"):
        read_table(tmp_path / "none.csv", NM45)


def product(m: int, k: int, n: int, key: int = 0, dtype: str = "bfloat16", layer: str = "fc") -> Matmul:
    a, b, out = Operand(key, 2 * m * k), Operand(1000 + key, 2 * k * n, weight=True), Operand(key + 1, 2 * m * n)
    return Matmul(m, k, n, a, b, out, dtype, layer=layer)


def test_the_stream_is_text_that_says_what_waits_for_what() -> None:
    simulation = simulate([product(300, 256, 256)], load("tpu-v2-core", acc__nbytes=1 << 17))
    text = simulation.program.text()
    assert text.startswith("# fc\n")
    for op in ("DMA_IN", "LOAD_W", "MATMUL", "ACT", "DMA_OUT"):
        assert op in text
    commands = simulation.program.commands
    sums = [i for i, c in enumerate(commands) if c.op == "MATMUL"]
    reads = [i for i, c in enumerate(commands) if c.op == "ACT"]
    assert (sums[0], "acc") in commands[reads[0]].after
    assert (reads[0], "acc") in commands[sums[2]].after  # the third block writes where the first was read
    starts = simulation.timeline.start
    assert starts[sums[1]] < starts[reads[0]]  # and the second runs while it is


def test_what_a_layer_leaves_on_the_chip_is_not_brought_again() -> None:
    two = simulate([product(64, 128, 128), product(64, 128, 128, key=1)], load("tpu-v2-core"))
    loaded = [c.what for c in two.program.commands if c.op == "DMA_IN"]
    assert sorted(set(loaded)) == ["t0", "t1000", "t1001"]
    assert [c.what for c in two.program.commands if c.op == "DMA_OUT"] == ["t2"]


def test_a_tensor_too_large_to_stay_passes_in_slices() -> None:
    machine = load("gemmini-16")
    simulation = simulate([product(4000, 64, 64, dtype="int8")], machine)
    brought = [c for c in simulation.program.commands if c.op == "DMA_IN" and c.what == "t0"]
    assert len(brought) > 10
    assert sum(c.nbytes for c in brought) == 2 * 4000 * 64
    starts, done = simulation.timeline.start, simulation.timeline.done
    second, third = (simulation.program.commands.index(c) for c in brought[1:3])
    assert starts[second] < done[second] <= starts[third]


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiplies int8, not bfloat16: give it a rate"):
        simulate([product(8, 8, 8)], load("gemmini-16"))


def test_the_host_is_waited_for() -> None:
    work: list[Work] = [
        Transfer(Operand(0, 1 << 20), to_device=True, layer="input"), product(512, 1024, 128),
        Vector("relu", 512 * 128, 1.0, (Operand(1, 512 * 256),), (Operand(2, 512 * 256),), "relu"),
        Transfer(Operand(2, 512 * 256), to_device=False, layer="output"), Pause(10_000.0),
    ]  # fmt: skip
    for name in ("tpu-v1", "tpu-v2-core"):
        machine = load(name, **{"rates.bfloat16": 1.0})
        simulation = simulate(work, machine)
        assert simulation.cycles >= 10_000 + (1 << 20) / machine.host_bytes_per_cycle
        assert simulation.layers["host"].cycles["idle"] == 10_000
        assert simulation.total.bytes_at("host read") >= 1 << 20
        assert simulation.total.bytes_at("host written") == 512 * 256


def expected(feeder: Feeder, tiles: int, issue: float, fetch: float, load: int, drain: float, rows: float) -> float:
    """The recurrence of a run, tile by tile."""
    f, loaded, s, loads = feeder.fetched, feeder.loaded, feeder.switched, deque(feeder.loads)
    for i in range(tiles):
        f = max(f, loads[0]) + fetch if fetch else 0.0
        loaded = max(loaded, f, s + issue + drain if drain >= 0 and i else s) + load
        s = max(s + issue if i else rows, loaded)
        loads.append(loaded)
        loads.popleft()
    return s + issue


def test_the_closed_form_of_a_run_is_its_recurrence() -> None:
    rng = random.Random(0)
    for _ in range(400):
        feeder = Feeder(0.0, 0.0, 0.0, deque([0.0] * rng.choice([1, 2, 4])))
        fetch = rng.choice([0.0, rng.randint(1, 2000) / 7])
        tiles, issue, load = rng.randint(1, 300), float(rng.randint(1, 60)), rng.randint(1, 40)
        drain, rows = rng.choice([-1.0, 20.0]), float(rng.randint(0, 500))
        want = expected(feeder, tiles, issue, fetch, load, drain, rows)
        got = run(feeder, tiles, issue, fetch, load, drain, weights=0.0, rows=rows)
        assert got.issued == pytest.approx(want, abs=1e-6)


def test_presets_are_listed_and_shown() -> None:
    listed = CliRunner().invoke(cli, ["sim", "presets", "--json"])
    assert set(json.loads(listed.stdout)) == NAMES
    shown = CliRunner().invoke(cli, ["sim", "presets", "tpu-v1"])
    assert tomllib.loads(shown.stdout)["rows"] == 256
    assert "tpu-v4-core" in CliRunner().invoke(cli, ["sim", "presets"]).stdout
    assert isinstance(load("tpu-v1"), Machine)
