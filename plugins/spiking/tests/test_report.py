"""Reports, against counts made by hand."""

from __future__ import annotations

import json
import threading

import hal
import nn
import numpy as np
import pytest
from hal import ops

import hal_spiking
from hal_spiking.reporting import si


def layer(weight: list[list[float]]) -> nn.Linear:
    made = nn.Linear(len(weight[0]), len(weight), bias=False)
    made.weight.data = hal.tensor(weight)
    return made


def two_layers() -> nn.Sequential:
    """Two neurons with threshold 1, read by three outputs."""
    hidden = layer([[0.5, 0.0], [0.0, 0.5]])
    net = nn.Sequential(hidden, nn.Hardtanh(0.0, 1.0), layer([[1.0, 1.0], [-1.0, 2.0], [0.0, 0.0]]))
    return net.requires_grad_(False).to("spiking")


def test_counts_are_those_made_by_hand(spiking: hal.Device) -> None:
    # Four steps. The first neuron's current is 0.5 a step, so it fires in the first and third; the other's is 0.25,
    # and it fires in the second. Each of the three spikes arrives at three outputs.
    net = two_layers()
    with hal_spiking.steps(4), hal_spiking.report() as report:
        out = net(hal.tensor([[1.0, 0.5]], device=spiking)).cpu()
    assert out.tolist() == [[0.75, 0.0, 0.0]]
    hidden, read = report.rows
    assert (hidden.layer, read.layer) == ("1 linear 2x2", "2 linear 3x2")
    assert (hidden.spikes, hidden.updates, hidden.synaptic_ops, hidden.macs, hidden.analog_macs) == (3, 8, 0, 4, 4)
    assert (read.spikes, read.updates, read.synaptic_ops, read.macs, read.analog_macs) == (0, 12, 9, 6, 0)
    assert (hidden.rate, read.rate) == (3 / 8, 0)
    assert (report.samples, report.steps, report.depth, report.latency) == (1, 4, 1, 5)
    assert report.energy == pytest.approx(9 * 23.6e-12 + 20 * 81e-12 + 4 * 4.6e-12)
    assert report.conventional_energy == pytest.approx(10 * 4.6e-12)


def test_runs_add_up(spiking: hal.Device) -> None:
    net, x = two_layers(), hal.tensor([[1.0, 0.5]], device=spiking)
    with hal_spiking.steps(4), hal_spiking.report() as outer:
        net(x).cpu()
        with hal_spiking.report() as inner:
            net(x.expand(3, 2)).argmax(dim=1).cpu()
    net(x).cpu()
    assert (inner.samples, inner.spikes, inner.synaptic_ops, inner.macs) == (3, 9, 27, 30)
    assert (outer.samples, outer.spikes, outer.synaptic_ops, outer.macs) == (4, 12, 36, 40)
    assert len(outer.rows) == 2


def test_an_event_reaches_the_windows_that_it_lies_in(spiking: hal.Device) -> None:
    # A spike in each step from a corner, an edge and the middle of 3 x 3 neurons: with padding they lie in 4, 6 and 9
    # of the 3 x 3 windows, of each of two outputs.
    image = np.zeros((1, 1, 3, 3), np.float32)
    image[0, 0, 0, 0] = image[0, 0, 0, 1] = image[0, 0, 1, 1] = 1
    with hal_spiking.steps(5), hal_spiking.report() as report:
        x = ops.relu(hal.tensor(image, device=spiking))
        ops.conv2d(x, hal.ones(2, 1, 3, 3, device="cpu").to(spiking), padding=(1, 1))
        ops.max_pool2d(x, kernel=(2, 2), stride=(1, 1))
    rectified, convolved, pooled = report.rows
    assert (rectified.layer, rectified.spikes, rectified.updates) == ("1 relu", 15, 45)
    assert (convolved.layer, convolved.synaptic_ops, convolved.macs) == ("2 conv2d 2x1x3x3", 5 * (4 + 6 + 9) * 2, 162)
    # In 2 x 2 windows they lie in 1, 2 and 4; each of the four windows sees a spike in every step.
    assert (pooled.layer, pooled.synaptic_ops, pooled.spikes) == ("3 max_pool2d", 5 * (1 + 2 + 4), 20)


def test_groups_reach_only_their_own(spiking: hal.Device) -> None:
    with hal_spiking.steps(2), hal_spiking.report() as report:
        x = ops.relu(hal.ones(1, 4, 1, 1, device="cpu").to(spiking))
        ops.conv2d(x, hal.ones(6, 2, 1, 1, device="cpu").to(spiking), groups=2)
    assert report.rows[1].synaptic_ops == 4 * 2 * 3
    assert report.rows[1].macs == 6 * 2


def test_costs_can_be_those_of_another_chip(spiking: hal.Device) -> None:
    costs = hal_spiking.Costs(synaptic_op=1.0, neuron_update=10.0, mac=100.0, source="made up")
    with hal_spiking.steps(4), hal_spiking.report(costs) as report:
        two_layers()(hal.tensor([[1.0, 0.5]], device=spiking)).cpu()
    assert report.energy == 9 + 200 + 400
    assert "made up" in str(report)


def test_json_has_what_the_table_has(spiking: hal.Device) -> None:
    with hal_spiking.steps(4), hal_spiking.report() as report:
        two_layers()(hal.tensor([[1.0, 0.5]], device=spiking)).cpu()
    told = json.loads(report.to_json())
    assert told["latency"] == 5
    assert told["energy"] == report.energy
    assert [row["layer"] for row in told["layers"]] == ["1 linear 2x2", "2 linear 3x2"]
    assert sum(row["synaptic_ops"] for row in told["layers"]) == told["synaptic_ops"] == 9
    assert told["costs"]["synaptic_op"] == 23.6e-12
    assert "Loihi" in told["costs"]["source"]
    lines = str(report).splitlines()
    assert lines[2].split()[:3] == ["1", "linear", "2x2"]
    assert lines[2].split()[3:] == ["2", "3.0", "0.3750", "0", "666", "pJ", "4", "18.4", "pJ"]
    assert "1 inputs, 4 time steps each; the answer is there after 5" in str(report)


def test_a_report_of_nothing_says_so() -> None:
    with hal_spiking.report() as report:
        pass
    assert str(report) == "nothing ran on spiking"
    assert json.loads(report.to_json())["layers"] == []


def test_a_report_hears_of_its_own_thread_only(spiking: hal.Device) -> None:
    def run() -> None:
        two_layers()(hal.tensor([[1.0, 0.5]], device=spiking)).cpu()

    with hal_spiking.report() as report:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert not report.rows


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0 pJ"), (23.6e-12, "23.6 pJ"), (1.5e-9, "1.5 nJ"), (2e-6, "2 µJ"), (3.0, "3 J")]
)
def test_small_numbers_are_readable(value: float, text: str) -> None:
    assert si(value, "J") == text
