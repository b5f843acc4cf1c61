"""The device as others see it: it infers and does not train, keeps data exactly, and falls back in the open."""

from __future__ import annotations

import hal
import nn
import numpy as np
import pytest
from hal import dtypes
from hal.errors import DeviceError, DTypeError, FallbackError
from nn import functional as F

import hal_spiking


def test_it_is_chosen_by_name_only() -> None:
    assert hal.device("spiking") in hal.devices()
    assert hal.tensor([1.0]).device.type != "spiking"


def test_it_declares_that_it_cannot_train() -> None:
    backend = hal.device("spiking").backend
    assert not backend.training
    assert dtypes.float64 not in backend.dtypes
    assert "64 (HAL_SPIKING_STEPS" in backend.describe(hal.device("spiking"))["time steps"]


def test_training_is_refused_and_nothing_is_recorded(spiking: hal.Device) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to(spiking)
    before = [p.detach().cpu().numpy() for p in network.parameters()]
    x = hal.ones(2, 3, device="cpu").to(spiking)
    with pytest.raises(DeviceError, match=r"linear on spiking would record a gradient.* only infer: use hal.no_grad"):
        F.cross_entropy(network(x), hal.tensor([0, 1], device=spiking)).backward()
    assert all(p.grad is None for p in network.parameters())
    for p, values in zip(network.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.detach().cpu().numpy(), values)
    with hal.no_grad():
        assert network(x).shape == (2, 2)


def test_what_falls_back_cannot_record_either(spiking: hal.Device) -> None:
    x = hal.tensor([1.0, 2.0], device=spiking, requires_grad=True)
    with hal.fallback("allow"), pytest.raises(DeviceError, match="exp on spiking would record a gradient"):
        x.exp()


def test_a_network_trains_elsewhere_and_infers_here() -> None:
    """The same parameters, moved to and fro, go on training where they can."""
    hal.manual_seed(0)
    network = nn.Linear(3, 1)
    x, y = hal.ones(4, 3, device="cpu"), hal.ones(4, 1, device="cpu")
    for _ in range(2):
        network.to("cpu")
        loss = F.mse_loss(network(x), y)
        loss.backward()
        with hal.no_grad():
            for p in network.parameters():
                assert p.grad is not None
                p.sub_(0.05 * p.grad)
                p.grad = None
            want = network(x).numpy()
            got = network.to("spiking")(x.to("spiking")).cpu().numpy()
        np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("dtype", [d for d in dtypes.REAL if d in hal_spiking.Spiking.dtypes], ids=lambda d: d.name)
def test_data_at_rest_comes_back_bit_for_bit(dtype: dtypes.DType) -> None:
    values = np.random.default_rng(0).integers(0, 2**32, 50, np.uint64).astype(dtype.numpy).reshape(5, 10)
    if dtype is dtypes.float32:
        values = np.random.default_rng(0).integers(0, 2**32, (5, 10), np.uint32).view(np.float32)
    for array in (values, values[::-2, ::3], values[:0], values[0, 0]):
        got = hal.tensor(array, device="spiking").cpu().numpy()
        assert got.dtype == array.dtype
        assert got.tobytes() == np.ascontiguousarray(array).tobytes()


def test_a_buffer_does_not_follow_the_array_it_was_made_of() -> None:
    array = np.ones(3, np.float32)
    there = hal.tensor(array, device="spiking")
    array[:] = 5
    got = there.cpu().numpy()
    got[:] = 7
    assert there.cpu().tolist() == [1, 1, 1]


def test_it_holds_no_float64() -> None:
    with pytest.raises(DTypeError, match="spiking has no float64"):
        hal.tensor([1.0], dtype=hal.float64, device="spiking")


def test_an_op_without_a_kernel_falls_back_in_the_open() -> None:
    x = hal.tensor([1.0, -2.0, 3.0], device="spiking")
    with hal.fallback("allow"), hal.placement_report() as report:
        y = hal.exp(x.relu())
    assert y.device.type == "spiking"
    np.testing.assert_allclose(y.cpu().numpy(), np.exp([1, 0, 3]), rtol=0.03)
    (entry,) = report.fallbacks.values()
    assert (entry.what, entry.source, entry.target) == ("exp", "spiking", "cpu")
    assert "no kernel for exp" in entry.reason
    with hal.fallback("error"), pytest.raises(FallbackError, match="exp would fall back from spiking"):
        hal.exp(x)


def test_layers_on_either_side_of_a_copy(spiking: hal.Device) -> None:
    """A network of which one half spikes and the other does not."""
    hal.manual_seed(3)
    first, second = nn.Sequential(nn.Linear(6, 20), nn.ReLU()), nn.Linear(20, 3)
    x = hal.tensor(np.random.default_rng(0).uniform(0, 1, (8, 6)).astype(np.float32), device="cpu")
    with hal.no_grad(), hal_spiking.steps(200):
        want = second(first(x)).numpy()
        got = second(first.to(spiking)(x.to(spiking)).cpu()).numpy()
        back = second.to(spiking)(first.cpu()(x).to(spiking)).cpu().numpy()
    assert np.abs(got - want).max() < 0.02
    np.testing.assert_allclose(back, want, rtol=1e-4, atol=1e-5)
