"""A course's programs on custom layers, without parameters and with them."""

import pytest

import hal
import nn
from nn import functional as F

pytestmark = pytest.mark.usefixtures("each_device")


class Centred(nn.Module):
    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)

    def forward(self, X: hal.Tensor) -> hal.Tensor:
        return X - X.mean()


class OwnLinear(nn.Module):
    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(hal.randn(inputs, units))
        self.bias = nn.Parameter(hal.randn(units))

    def forward(self, X: hal.Tensor) -> hal.Tensor:
        return F.relu(hal.matmul(X, self.weight) + self.bias)


class CorrelatedPairs(nn.Module):
    """sum over i, j of W[k, i, j] x[i] x[j]: a tensor reduction of one's own."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(hal.randn(units, inputs, inputs))

    def forward(self, X: hal.Tensor) -> hal.Tensor:
        return hal.einsum("ni,kij,nj->nk", X, self.weight, X)


def test_a_layer_without_parameters() -> None:
    layer = Centred()
    assert layer(hal.tensor([1.0, 2, 3, 4, 5])).tolist() == [-2, -1, 0, 1, 2]
    net = nn.Sequential(nn.LazyLinear(128), Centred())
    assert abs(net(hal.rand(4, 8)).mean().item()) < 1e-6


def test_a_layer_with_parameters() -> None:
    linear = OwnLinear(5, 3)
    assert linear.weight.shape == (5, 3)
    assert (linear(hal.rand(2, 5)) >= 0).all()
    net = nn.Sequential(OwnLinear(64, 8), OwnLinear(8, 1))
    assert net(hal.rand(2, 64)).shape == (2, 1)
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_a_layer_that_is_no_linear_map_has_gradients() -> None:
    layer = CorrelatedPairs(3, 2)
    X = hal.rand(4, 3)
    layer(X).sum().backward()
    assert hal.allclose(layer.weight.grad[0], X.T @ X, atol=1e-5)
