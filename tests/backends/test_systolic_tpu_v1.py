"""The tpu-v1 preset against what was published of the chip (Jouppi et al., ISCA 2017), run as command streams."""

from __future__ import annotations

from statistics import mean

import pytest

from hal_systolic.config import Machine
from hal_systolic.presets import load
from hal_systolic.simulation import Simulation, simulate
from hal_systolic.tpu_v1 import APPLICATIONS, run, work
from hal_systolic.work import Matmul, Operand, Work

V1 = load("tpu-v1")
MEASURED = {name: run(name, V1, non_matrix_pct=app.table3[3]) for name, app in APPLICATIONS.items()}


def percent(simulation: Simulation, column: str) -> float:
    return 100 * simulation.total.cycles[column] / simulation.cycles


def errors(name: str) -> list[float]:
    columns = ("active", "weight_stall", "weight_shift")
    published = APPLICATIONS[name].table3
    return [abs(percent(MEASURED[name], column) - value) for column, value in zip(columns, published, strict=False)]


def test_table_3_within_one_and_a_half_points_on_average_and_three_at_worst() -> None:
    found = [error for name in ("MLP0", "MLP1", "LSTM0", "LSTM1") for error in errors(name)]
    assert mean(found) <= 1.5
    assert max(found) <= 3.0


def test_cnn0_never_waits_for_weights() -> None:
    assert percent(MEASURED["CNN0"], "weight_stall") == 0
    assert percent(MEASURED["CNN0"], "weight_shift") == 0
    assert percent(MEASURED["CNN0"], "active") == pytest.approx(78.2, abs=0.5)


def test_the_fully_connected_layers_of_cnn1_stall_four_times_as_long_as_they_shift() -> None:
    simulation = MEASURED["CNN1 FC"]
    assert percent(simulation, "weight_stall") / percent(simulation, "weight_shift") == pytest.approx(4.0, rel=0.05)


def test_sixty_percent_of_the_active_array_of_lstm1_is_useful() -> None:
    total = MEASURED["LSTM1"].total
    useful = total.macs / (total.cycles["active"] * V1.peak_macs * V1.rates["int8xint16"])
    assert 100 * useful == pytest.approx(60, abs=2)


@pytest.mark.parametrize("name", ["MLP0", "LSTM0"])
def test_operations_a_second(name: str) -> None:
    simulation = MEASURED[name]
    tops = 2 * simulation.total.macs / simulation.seconds / 1e12
    assert tops == pytest.approx(APPLICATIONS[name].tops, rel=0.1)


@pytest.mark.parametrize(("size", "microseconds"), [(256, 18), (512, 32)])
def test_a_600_by_600_matrix_takes_as_long_as_published(size: int, microseconds: float) -> None:
    machine = V1.override(rows=size, cols=size, **{"acc.nbytes": size * 4096 * 4})

    def seconds(count: int) -> float:
        layers: list[Work] = [
            Matmul(96, 600, 600, Operand(0, 96 * 600), Operand(-i, 360_000, True), Operand(i, 96 * 600), "int8")
            for i in range(1, count + 1)
        ]
        return simulate(layers, machine).seconds

    assert 1e6 * (seconds(12) - seconds(4)) / 8 == pytest.approx(microseconds, rel=0.05)


def test_four_times_the_bandwidth_helps_and_four_times_the_clock_only_convolutions() -> None:
    def speedup(name: str, machine: Machine) -> float:
        app = list(work(APPLICATIONS[name]))
        return simulate(app, V1).seconds / simulate(app, machine).seconds

    bandwidth, clock = V1.override(**{"dram.bytes_per_s": 136e9}), V1.override(clock_hz=2.8e9)
    for name in ("MLP0", "LSTM0"):
        assert speedup(name, bandwidth) > 2.5
        assert speedup(name, clock) < 1.1
    assert speedup("CNN0", bandwidth) < 1.1
    assert speedup("CNN0", clock) > 1.5


def test_cnn0_takes_between_six_and_twenty_watts_above_idle() -> None:
    simulation = MEASURED["CNN0"]
    assert 6 <= simulation.watts <= 20
    assert simulation.total.energy["idle"] * 1e-12 / simulation.seconds == pytest.approx(28)
