"""A course's programs on blocks: networks as classes, a sequential of one's own, control flow, blocks inside blocks."""

import pytest

import hal
import nn
from nn import functional as F

pytestmark = pytest.mark.usefixtures("each_device")


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(20, 256)
        self.out = nn.Linear(256, 10)

    def forward(self, X: hal.Tensor) -> hal.Tensor:
        return self.out(F.relu(self.hidden(X)))


class OwnSequential(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        for number, block in enumerate(blocks):
            self._modules[str(number)] = block

    def forward(self, X: hal.Tensor) -> hal.Tensor:
        for block in self._modules.values():
            X = block(X)
        return X


class NumberedByAddModule(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        for number, block in enumerate(blocks):
            self.add_module(str(number), block)

    def forward(self, X: hal.Tensor) -> hal.Tensor:
        for block in self.children():
            X = block(X)
        return X


class WithConstantsAndLoops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fixed = hal.rand((20, 20), requires_grad=False)
        self.linear = nn.Linear(20, 20)

    def forward(self, X: hal.Tensor) -> hal.Tensor:
        X = self.linear(X)
        X = F.relu(hal.mm(X, self.fixed) + 1)
        X = self.linear(X)  # the same layer twice
        while X.abs().sum() > 1:
            X /= 2
        return X.sum()


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.linear = nn.Linear(32, 16)

    def forward(self, X: hal.Tensor) -> hal.Tensor:
        return self.linear(self.net(X))


def test_a_network_from_layers_and_one_from_a_class() -> None:
    X = hal.rand(2, 20)
    net = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 10))
    assert net(X).shape == (2, 10)
    mlp = MLP()
    assert mlp(X).shape == (2, 10)
    mlp.hidden.load_state_dict(net[0].state_dict())
    mlp.out.load_state_dict(net[2].state_dict())
    assert hal.allclose(mlp(X), net(X), atol=1e-6)


@pytest.mark.parametrize("sequential", [OwnSequential, NumberedByAddModule])
def test_a_sequential_of_ones_own(sequential: type[nn.Module]) -> None:
    hal.manual_seed(1)
    theirs = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 10))
    hal.manual_seed(1)
    own = sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 10))
    X = hal.rand(2, 20)
    assert own(X).tolist() == theirs(X).tolist()
    assert str(own).replace(sequential.__name__, "Sequential") == str(theirs)


def test_any_code_may_stand_in_forward() -> None:
    net = WithConstantsAndLoops()
    before = net.fixed.tolist()
    loss = net(hal.rand(2, 20))
    assert loss.shape == ()
    assert abs(loss.item()) <= 1
    loss.backward()
    assert net.linear.weight.grad is not None
    assert net.fixed.grad is None
    assert net.fixed.tolist() == before
    assert [name for name, _ in net.named_parameters()] == ["linear.weight", "linear.bias"]


def test_blocks_inside_blocks() -> None:
    chimera = nn.Sequential(Nested(), nn.Linear(16, 20), WithConstantsAndLoops())
    assert chimera(hal.rand(2, 20)).shape == ()
    assert chimera[0].net[2].weight.shape == (32, 64)
    assert len(list(chimera.parameters())) == 10
