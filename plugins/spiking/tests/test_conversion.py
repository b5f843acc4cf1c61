"""Conversion: what comes out computes the same, with activations between 0 and 1, and what cannot be is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hal
import nn
import numpy as np
import pytest
from nn import functional as F

import hal_spiking
from hal_spiking.conversion import ConversionError


def data(*shape: int) -> hal.Tensor:
    return hal.tensor(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32), device="cpu")


def settled(network: nn.Module, x: hal.Tensor) -> nn.Module:
    """`network` with running statistics that are not those of the beginning."""
    with hal.no_grad():
        for _ in range(3):
            network(x)
    return network.eval()


# fmt: off
IMAGE = (
    lambda: nn.Conv2d(2, 5, 3, padding=1), lambda: nn.BatchNorm2d(5), nn.ReLU, lambda: nn.MaxPool2d(2),
    lambda: nn.Conv2d(5, 4, 2), nn.ReLU, lambda: nn.AvgPool2d(2), lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten,
    lambda: nn.Linear(4, 3),
)
POOL_FIRST = (
    lambda: nn.Conv2d(2, 5, 3), lambda: nn.MaxPool2d(2), nn.ReLU, lambda: nn.Conv2d(5, 4, 2), lambda: nn.AvgPool2d(3),
    nn.ReLU, nn.Flatten, lambda: nn.Linear(4, 3),
)
SIGNAL = (
    lambda: nn.Conv1d(2, 4, 3), nn.ReLU, lambda: nn.MaxPool1d(2), nn.Flatten, lambda: nn.Linear(16, 3),
)
# fmt: on


def wide() -> nn.Linear:
    return nn.Linear(6, 9)


def narrow() -> nn.Linear:
    return nn.Linear(9, 4)


NETWORKS: dict[str, tuple[tuple[Callable[[], nn.Module], ...], tuple[int, ...]]] = {
    "linear": ((wide, nn.ReLU, narrow), (50, 6)),
    "one layer": ((wide,), (50, 6)),
    "no bias": ((lambda: nn.Linear(6, 9, bias=False), nn.ReLU, lambda: nn.Linear(9, 4, bias=False)), (50, 6)),
    "norm": ((wide, lambda: nn.BatchNorm1d(9), nn.ReLU, narrow), (50, 6)),
    "plain norm": ((lambda: nn.Linear(6, 9, bias=False), lambda: nn.BatchNorm1d(9, affine=False), nn.ReLU), (50, 6)),
    "no neurons": ((wide, nn.Dropout, lambda: nn.Linear(9, 9), nn.ReLU, narrow), (50, 6)),
    "twice": ((nn.ReLU, wide, nn.ReLU, nn.ReLU, narrow), (50, 6)),
    "six": ((wide, nn.ReLU6, nn.Identity, narrow, nn.ReLU), (50, 6)),
    "parts": ((lambda: nn.Sequential(wide(), nn.ReLU()), lambda: nn.Sequential(narrow())), (50, 6)),
    "image": (IMAGE, (20, 2, 10, 10)),
    "pool first": (POOL_FIRST, (20, 2, 10, 10)),
    "signal": (SIGNAL, (20, 2, 10)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_limit_of_many_steps_is_the_network_itself(name: str) -> None:
    parts, shape = NETWORKS[name]
    hal.manual_seed(1)
    x = data(*shape)
    network = settled(nn.Sequential(*(part() for part in parts)), x)
    with hal.no_grad():
        want = network(x).numpy()
        converted = hal_spiking.convert(network, x, percentile=100)
        rectified = []
        for layer in converted:
            before, x = x, layer(x)
            if isinstance(layer, nn.Hardtanh):
                rectified.append(float(before.numpy().max()))
    got = x.numpy()
    if isinstance(converted[-1], nn.Hardtanh):  # ends in neurons, which can only say how active they are
        got = got * (want.max() / got.max())
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    assert len(rectified) == sum(isinstance(layer, nn.ReLU | nn.ReLU6) for layer in network.modules())
    assert max(rectified, default=0.0) <= 1.0 + 1e-5, "a layer's activations are above the threshold"


def test_one_layer_alone_is_a_network_too() -> None:
    network, x = wide(), data(50, 6)
    np.testing.assert_allclose(
        hal_spiking.convert(network, x)(x).numpy(), network(x).detach().numpy(), rtol=1e-5, atol=1e-6
    )


def test_the_percentile_says_how_many_activations_are_cut() -> None:
    hal.manual_seed(2)
    x = data(2000, 6)
    converted = hal_spiking.convert(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4)), x, percentile=90)
    activations = converted[0](x).numpy()
    assert (activations > 1).mean() == pytest.approx(0.1, abs=0.002)


def test_what_comes_out_is_ordinary_and_what_went_in_is_as_before() -> None:
    network = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 4)).train()
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    converted = hal_spiking.convert(network, data(30, 6).numpy())
    assert [type(layer).__name__ for layer in converted] == ["Linear", "Hardtanh", "Linear"]
    assert not converted.training
    assert not any(p.requires_grad for p in converted.parameters())
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    assert not network[0]._forward_hooks


def test_neurons_come_before_the_gates() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    converted = hal_spiking.convert(network, data(5, 1, 6, 6))
    assert [type(layer).__name__ for layer in converted] == ["Conv2d", "Hardtanh", "MaxPool2d", "Flatten", "Linear"]


class Chain(nn.Module):
    """Not a Sequential, and a chain all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4)

    def forward(self, x: hal.Tensor) -> Any:
        return self.last(self.act(self.first(x)))


class Functional(Chain):
    """Rectified by a function."""

    def forward(self, x: hal.Tensor) -> Any:
        return self.last(F.relu(self.first(x)))


class Residual(Chain):
    """With a branch."""

    def forward(self, x: hal.Tensor) -> Any:
        y = self.first(x)
        return self.last(self.act(y) + y)


class After(Chain):
    """With a function at the end."""

    def forward(self, x: hal.Tensor) -> Any:
        return F.softmax(self.last(self.act(self.first(x))), dim=1)


def test_a_chain_of_any_class_will_do() -> None:
    network, x = Chain(), data(40, 6)
    converted = hal_spiking.convert(network, x, percentile=100)
    with hal.no_grad():
        np.testing.assert_allclose(converted(x).numpy(), network(x).numpy(), rtol=1e-4, atol=1e-5)


# fmt: off
REFUSED: list[tuple[Callable[[], nn.Module], str]] = [
    (Functional, r"last \(Linear\) was given something else than first \(Linear\) gave: use layers instead of func"),
    (Residual,   r"last \(Linear\) was given something else than act \(ReLU\) gave"),
    (After,      r"After does something after it: make that a layer"),
    (lambda: nn.Sequential(wide(), nn.Tanh(), narrow()), r"no spiking counterpart of 1 \(Tanh\)"),
    (lambda: nn.Sequential(wide(), nn.ReLU(), nn.BatchNorm1d(9)), r"fold 2 \(BatchNorm1d\) only into a Linear"),
    (lambda: nn.Sequential(nn.BatchNorm1d(6), wide()), r"fold 0 \(BatchNorm1d\) only into a Linear"),
    (lambda: nn.Sequential(wide(), nn.BatchNorm1d(9, track_running_stats=False)), r"without running statistics"),
]
# fmt: on


@pytest.mark.parametrize(("build", "message"), REFUSED)
def test_what_has_no_counterpart_is_refused_with_the_cure(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ConversionError, match=message) as caught:
        hal_spiking.convert(build(), data(20, 6))
    assert "the network runs on spiking as it is, too" in str(caught.value)


@pytest.mark.parametrize("percentile", [0, -1, 101])
def test_a_percentile_that_means_nothing_is_refused(percentile: float) -> None:
    with pytest.raises(ConversionError, match="needs a percentile above 0 and up to 100"):
        hal_spiking.convert(nn.Linear(6, 4), data(20, 6), percentile=percentile)
