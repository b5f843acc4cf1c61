"""Ops on the device: right on the samples of their records, and on spike trains what they are on the rates."""

from __future__ import annotations

from typing import Any

import hal
import numpy as np
import pytest
from hal import dtypes, ops
from hal.plugin import Array
from hal.testing.calls import call_of, check_call, samples_of

import hal_spiking
from hal_spiking.signals import Current, Recorded, Spikes

Shape = tuple[int, ...]
NATIVE = (
    "linear", "conv1d", "conv2d", "conv3d", "batch_norm", "add", "relu", "relu6", "reshape", "permute", "broadcast_to",
    "slice", "pad", "full", "cast", "argmax", "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d",
    "max_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
)  # fmt: skip


@pytest.mark.parametrize("steps", [16, 256])
@pytest.mark.parametrize("name", NATIVE)
def test_agrees_with_the_reference_within_the_accuracy_that_is_stated(name: str, steps: int) -> None:
    device = hal.device("spiking")
    native = 0
    for number, sample in enumerate(samples_of(name)):
        call = call_of(name, number, dtypes.float32, device)
        with hal_spiking.steps(steps):
            outcome = check_call(device, call)
        assert not outcome.failed, f"sample {number} {sample.settings}: {outcome}"
        native += outcome.status == "native"
    assert native >= 3, f"only {native} samples of {name} ran on the device"


def test_the_tolerance_of_neurons_is_half_a_spike_and_shrinks_with_the_steps() -> None:
    backend = hal.device("spiking").backend
    with hal_spiking.steps(100):
        found = backend.tolerance(ops.relu, dtypes.float32)
    assert found is not None
    assert found.unit == "norm"
    assert found.float32 * 2**-24 == pytest.approx(0.005, rel=2e-3)
    assert found.source == "rates of spikes in 100 steps: half a spike"
    assert backend.tolerance(ops.linear, dtypes.float32) is None
    assert backend.tolerance(ops.relu, dtypes.int32) is None


def spikes(shape: tuple[int, ...], seed: int = 0) -> hal.Tensor:
    x = np.random.default_rng(seed).uniform(-0.5, 1, shape).astype(np.float32)
    with hal_spiking.steps(20):
        return ops.relu(hal.tensor(x, device="spiking"))


def weights(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


# fmt: off
AFFINE: list[tuple[str, Shape, tuple[Shape, ...], dict[str, Any]]] = [
    ("linear",     (5, 7),          ((3, 7), (3,)), {}),
    ("linear",     (2, 5, 7),       ((3, 7),), {}),
    ("linear",     (7,),            ((3, 7), (3,)), {}),
    ("conv1d",     (2, 4, 9),       ((6, 2, 3), (6,)), {"groups": 2, "stride": (2,), "padding": (1,)}),
    ("conv2d",     (2, 3, 6, 5),    ((4, 3, 3, 2), (4,)), {"padding": (1, 0)}),
    ("conv2d",     (1, 4, 8, 8),    ((4, 1, 3, 3),), {"groups": 4, "dilation": (2, 2), "stride": (1, 2)}),
    ("conv3d",     (1, 2, 4, 4, 4), ((3, 2, 2, 2, 2),), {}),
    ("add",        (2, 3),          ((3,),), {}),
    ("reshape",    (2, 6),          (), {"shape": (3, 4)}),
    ("permute",    (2, 3, 4),       (), {"axes": (2, 0, 1)}),
    ("slice",      (4, 5),          (), {"start": (1, 4), "stop": (3, -1), "step": (1, -2)}),
    ("pad",        (2, 3),          (), {"padding": ((0, 1), (2, 0)), "value": 0}),
    ("broadcast_to", (3,),          (), {"shape": (2, 3)}),
]
# fmt: on


@pytest.mark.parametrize(("name", "shape", "others", "settings"), AFFINE)
def test_what_is_affine_gives_of_spikes_what_it_gives_of_their_rates(
    spiking: hal.Device,
    name: str,
    shape: tuple[int, ...],
    others: tuple[tuple[int, ...], ...],
    settings: dict[str, Any],
) -> None:
    x, constants = spikes(shape), [weights(*s) for s in others]
    out = ops.TABLE[name](x, *(hal.tensor(c, device=spiking) for c in constants), **settings)
    want = ops.TABLE[name](x.cpu(), *(hal.tensor(c) for c in constants), **settings).numpy()
    signal = out.buffer
    assert isinstance(signal, Current | Spikes)
    assert signal.steps == 20
    step_by_step = np.mean([signal.at(step) for step in range(20)], axis=0)
    np.testing.assert_allclose(out.cpu().numpy(), want, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(step_by_step, want, rtol=2e-5, atol=2e-6)


def test_batch_norm_after_a_convolution_is_affine_too(spiking: hal.Device) -> None:
    x, kernel = spikes((2, 3, 5, 5)), weights(4, 3, 3, 3)
    mean, var, scale, shift = (np.abs(weights(4)) + 0.1 * i for i in range(4))
    results = []
    for device in (spiking, hal.device("cpu")):
        there = ops.conv2d(x.to(device), hal.tensor(kernel, device=device))
        norm = [hal.tensor(v, device=device) for v in (mean, var, scale, shift)]
        results.append(ops.batch_norm(there, *norm, eps=1e-5).cpu().numpy())
    np.testing.assert_allclose(results[0], results[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("max_pool2d", {"kernel": (2, 2), "stride": (2, 2)}),
        ("max_pool2d", {"kernel": (3, 3), "stride": (2, 1), "padding": (1, 1)}),
        ("max_pool2d", {"kernel": (2, 2), "stride": (1, 1), "dilation": (2, 3)}),
    ],
)
def test_a_gate_lets_through_the_largest_rate_exactly(spiking: hal.Device, name: str, settings: dict[str, Any]) -> None:
    x = spikes((2, 3, 7, 8))
    out = ops.TABLE[name](x, **settings)
    assert isinstance(out.buffer, Spikes)
    assert out.cpu().tolist() == ops.TABLE[name](x.cpu(), **settings).tolist()


def test_a_gate_never_waits_for_the_end(spiking: hal.Device) -> None:
    """At every step it has passed as many spikes as the busiest input has sent so far."""
    x = spikes((1, 1, 4, 4))
    out = ops.max_pool2d(x, kernel=(4, 4), stride=(4, 4)).buffer
    so_far = x.buffer.train.cumsum(axis=0).reshape(20, 16).max(axis=1)
    assert out.train.cumsum(axis=0).reshape(20).tolist() == so_far.tolist()


def test_a_maximum_of_currents_is_that_of_the_totals(spiking: hal.Device) -> None:
    current = ops.conv2d(spikes((2, 3, 6, 6)), hal.tensor(weights(4, 3, 3, 3), device=spiking))
    out = ops.max_pool2d(current, kernel=(2, 2), stride=(2, 2))
    assert isinstance(out.buffer, Recorded)
    want = ops.max_pool2d(current.cpu(), kernel=(2, 2), stride=(2, 2)).numpy()
    np.testing.assert_allclose(out.cpu().numpy(), want, rtol=1e-4, atol=1e-5)
    assert isinstance(ops.relu(out).buffer, Spikes)


@pytest.mark.parametrize("name", ["avg_pool2d", "adaptive_avg_pool2d"])
def test_a_mean_of_spikes_is_sent_by_neurons(spiking: hal.Device, name: str) -> None:
    x = spikes((2, 3, 4, 4))
    settings: dict[str, Any] = {"kernel": (2, 2), "stride": (2, 2)} if name == "avg_pool2d" else {"output": (2, 2)}
    out = ops.TABLE[name](x, **settings)
    assert isinstance(out.buffer, Spikes)
    want = ops.TABLE[name](x.cpu(), **settings).numpy()
    assert np.abs(out.cpu().numpy() - want).max() <= x.buffer.amplitude / 20  # a spike


def test_a_mean_of_currents_is_part_of_the_weights(spiking: hal.Device) -> None:
    current = ops.conv2d(spikes((1, 2, 6, 6)), hal.tensor(weights(3, 2, 3, 3), device=spiking))
    out = ops.avg_pool2d(current, kernel=(2, 2), stride=(2, 2))
    assert isinstance(out.buffer, Current)
    want = ops.avg_pool2d(current.cpu(), kernel=(2, 2), stride=(2, 2)).numpy()
    np.testing.assert_allclose(out.cpu().numpy(), want, rtol=1e-5, atol=1e-6)


def test_a_residual_block_adds_currents(spiking: hal.Device) -> None:
    x, kernel = spikes((2, 3, 6, 6)), weights(3, 3, 3, 3) / 5
    out = ops.relu(ops.conv2d(x, hal.tensor(kernel, device=spiking), padding=(1, 1)) + x)
    there = x.cpu()
    want = ops.relu(ops.conv2d(there, hal.tensor(kernel), padding=(1, 1)) + there).numpy()
    assert np.abs(out.cpu().numpy() - want).max() <= 2.5 * out.buffer.amplitude / 20


def test_a_result_does_not_change_with_its_weights(spiking: hal.Device) -> None:
    """Currents are computed when they are needed, with the weights that there were."""
    x, weight = spikes((2, 3)), hal.tensor(weights(4, 3), device=spiking)
    out = ops.linear(x, weight)
    want = ops.linear(x.cpu(), weight.cpu()).numpy()
    with hal.fallback("allow"):
        weight.mul_(0.0)
    np.testing.assert_allclose(out.cpu().numpy(), want, rtol=2e-5, atol=2e-6)
    assert not weight.cpu().numpy().any()
