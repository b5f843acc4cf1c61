"""Single neurons: how often they fire, when, and what their thresholds are."""

from __future__ import annotations

import hal
import numpy as np
import pytest
from hal import ops
from hal.errors import ConfigError, DeviceError

import hal_spiking
from hal_spiking.signals import Spikes


def spikes_of(x: hal.Tensor) -> Spikes:
    assert isinstance(x.buffer, Spikes)
    return x.buffer


def fired(values: list[float], steps: int, high: float = 1.0) -> hal.Tensor:
    with hal_spiking.steps(steps):
        return ops.hardtanh(hal.tensor(values, device="spiking"), low=0.0, high=high)


def test_a_neuron_fires_when_its_potential_reaches_the_threshold(spiking: hal.Device) -> None:
    # The potential begins at 0.5 and grows by 0.5: 1.0 fires, 0.5, 1.0 fires, ... and by 0.25: 0.75, 1.0 fires.
    train = spikes_of(fired([0.5, 0.25, 1.0, 0.0, -3.0, 7.0], 4)).train
    assert train.T.tolist() == [
        [True, False, True, False],
        [False, True, False, False],
        [True, True, True, True],
        [False, False, False, False],
        [False, False, False, False],
        [True, True, True, True],
    ]


@pytest.mark.parametrize("steps", [1, 3, 64, 1000])
@pytest.mark.parametrize("high", [1.0, 2.5])
def test_a_rate_is_the_nearest_number_of_spikes(spiking: hal.Device, steps: int, high: float) -> None:
    x = np.random.default_rng(steps).uniform(-0.5, 1.5, 500).astype(np.float32) * np.float32(high)
    got = fired(x.tolist(), steps, high).cpu().numpy()
    assert np.abs(got - np.clip(x, 0, high)).max() <= high / (2 * steps) * 1.001


def test_the_threshold_of_relu_is_the_strongest_current(spiking: hal.Device) -> None:
    y = ops.relu(hal.tensor([-8.0, 1.0, 2.0, 4.0], device="spiking"))
    assert spikes_of(y).amplitude == 4.0
    assert y.cpu().tolist() == [0.0, 1.0, 2.0, 4.0]


def test_the_threshold_of_relu6_is_at_most_6(spiking: hal.Device) -> None:
    assert spikes_of(ops.relu6(hal.tensor([1.0, 9.0], device="spiking"))).amplitude == 6.0
    assert spikes_of(ops.relu6(hal.tensor([1.0, 3.0], device="spiking"))).amplitude == 3.0
    assert ops.relu6(hal.tensor([3.0, 9.0], device="spiking")).cpu().tolist() == [3.0, 6.0]


def test_a_layer_without_positive_currents_is_silent(spiking: hal.Device) -> None:
    for values in ([-1.0, -2.0], [0.0, 0.0]):
        assert spikes_of(ops.relu(hal.tensor(values, device="spiking"))).counts.tolist() == [0, 0]


def test_given_thresholds_make_a_sample_the_same_in_every_batch(spiking: hal.Device) -> None:
    alone, beside = fired([0.3], 16), fired([0.3, 0.9], 16)
    assert spikes_of(alone).train[:, 0].tolist() == spikes_of(beside).train[:, 0].tolist()


def test_rectifying_spikes_again_changes_nothing(spiking: hal.Device) -> None:
    once = ops.relu(hal.tensor([0.2, 0.7, 1.0, -1.0], device="spiking"))
    assert ops.relu(once).cpu().tolist() == once.cpu().tolist()


def test_what_neurons_cannot_integrate_is_handed_on(spiking: hal.Device) -> None:
    nan, inf = float("nan"), float("inf")
    x = hal.tensor([1.0, nan, inf, -inf, 0.5, -1.0], device=spiking)
    np.testing.assert_array_equal(ops.relu(x).cpu().numpy(), [1.0, nan, inf, 0.0, 0.5, 0.0])
    np.testing.assert_array_equal(ops.relu6(x).cpu().numpy(), [1.03125, nan, 6.0, 0.0, 0.46875, 0.0])
    np.testing.assert_array_equal(ops.hardtanh(x, low=0.0, high=1.0).cpu().numpy(), [1.0, nan, 1.0, 0.0, 0.5, 0.0])


@pytest.mark.parametrize("pool", ["max_pool1d", "avg_pool1d"])
def test_it_is_still_there_behind_other_layers(spiking: hal.Device, pool: str) -> None:
    nan, inf = float("nan"), float("inf")
    x = ops.relu(hal.tensor([[[1.0, 0.5, 0.5, nan, inf, 0.25, 1.0, 1.0]]], device=spiking))
    out = ops.TABLE[pool](x, kernel=(2,), stride=(2,)).reshape(4)
    np.testing.assert_array_equal(np.isnan(out.cpu().numpy()), [False, True, False, False])
    assert out.cpu().tolist()[2] == inf
    weighted = ops.linear(out, hal.tensor([[1.0, 1.0, 1.0, 1.0]], device=spiking)).relu()
    assert np.isnan(weighted.cpu().numpy()).all()


def test_numbers_near_the_largest_do_not_overflow(spiking: hal.Device) -> None:
    largest = float(np.finfo(np.float32).max)
    got = ops.relu(hal.tensor([largest, 0.75 * largest, -largest], device=spiking)).cpu().numpy()
    np.testing.assert_allclose(got, [largest, 0.75 * largest, 0.0])


def test_steps_are_64_or_as_the_environment_says_or_as_the_code_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hal_spiking.current_steps() == 64
    monkeypatch.setenv("HAL_SPIKING_STEPS", "32")
    assert hal_spiking.current_steps() == 32
    with hal_spiking.steps(8):
        assert hal_spiking.current_steps() == 8
        with hal_spiking.steps(4):
            assert len(spikes_of(ops.relu(hal.ones(3, device="spiking"))).train) == 4
        assert hal_spiking.current_steps() == 8
    assert len(spikes_of(ops.relu(hal.tensor([1.0], device="spiking"))).train) == 32


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_number_of_steps_that_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HAL_SPIKING_STEPS", text)
    with pytest.raises(ConfigError, match="HAL_SPIKING_STEPS needs a whole number of time steps, 1 or more"):
        hal_spiking.current_steps()
    with pytest.raises(ConfigError, match=r"hal_spiking\.steps needs a whole number"):
        hal_spiking.steps(0)


def test_signals_of_different_lengths_do_not_mix(spiking: hal.Device) -> None:
    with pytest.raises(DeviceError, match="one number of time steps, got 4 and 8"):
        fired([0.5], 4) + fired([0.5], 8)
