"""Networks trained on the digits: nearly as right as on the CPU, and the more so the longer they run."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import hal
import nn
import numpy as np
import pytest
from hal.plugin import Array

import hal_spiking


def answers(network: nn.Module, x: hal.Tensor, steps: int) -> tuple[Array, Array]:
    """The outputs of a network that is on the device, and the classes they name."""
    with hal_spiking.steps(steps), hal.no_grad():
        out = network(x.to("spiking"))
        return out.cpu().numpy(), out.argmax(dim=1).cpu().numpy()


@pytest.fixture(params=["converted", "as it is"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def on_spiking(network: nn.Module, calibration: hal.Tensor, way: str) -> nn.Module:
    there = hal_spiking.convert(network, calibration) if way == "converted" else copy.deepcopy(network)
    return there.to("spiking")


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_accuracy_is_within_two_points_of_the_cpu(
    name: str, way: str, images: Any, spiking: hal.Device, request: pytest.FixtureRequest
) -> None:
    trained = request.getfixturevalue(name)
    assert trained.accuracy > 0.9, "the network learned too little to say anything"
    network = on_spiking(trained.network, images.calibration, way)
    _, named = answers(network, images.test, 64)
    assert abs((named == images.labels).mean() - trained.accuracy) <= 0.02
    assert (named == trained.answers).mean() >= 0.98


def test_more_steps_are_more_exact(mlp: Any, way: str, images: Any, spiking: hal.Device) -> None:
    some = images.test[:90]
    with hal.no_grad():
        want = mlp.network(some).numpy()
    network = on_spiking(mlp.network, images.calibration, way)
    errors, agreeing = [], []
    for steps in (2, 8, 32, 128, 512):
        got, named = answers(network, some, steps)
        errors.append(float(np.abs(got - want).mean()))
        agreeing.append(float((named == np.argmax(want, axis=1)).mean()))
    assert all(later < 0.6 * sooner for sooner, later in pairwise(errors)), errors
    assert agreeing[0] < agreeing[-1]
    assert agreeing[-1] >= 0.98


def test_a_converted_network_gives_a_sample_the_same_in_every_batch(cnn: Any, images: Any, spiking: hal.Device) -> None:
    network = hal_spiking.convert(cnn.network, images.calibration).to("spiking")
    whole, _ = answers(network, images.test[:20], 16)
    alone, _ = answers(network, images.test[7:8], 16)
    np.testing.assert_allclose(whole[7:8], alone, rtol=1e-4, atol=1e-5)


def test_what_the_network_costs_is_reported_by_layer(cnn: Any, images: Any, spiking: hal.Device) -> None:
    network = hal_spiking.convert(cnn.network, images.calibration).to("spiking")
    with hal_spiking.report() as report:
        answers(network, images.test[:50], 32)
    kinds = [row.layer.split()[1] for row in report.rows]
    assert kinds == ["conv2d", "max_pool2d", "conv2d", "avg_pool2d", "linear"]
    first, gate, second, means, read = report.rows
    assert first.macs == first.analog_macs == 50 * 8 * 64 * 9
    assert second.macs == 50 * 16 * 16 * 72
    assert second.analog_macs == 0
    assert gate.synaptic_ops == first.spikes  # windows that do not overlap
    assert means.synaptic_ops == second.spikes
    assert read.synaptic_ops == means.spikes * 10
    assert first.updates == 50 * 8 * 64 * 32
    assert report.depth == 4
    assert 0 < second.rate < 0.5
