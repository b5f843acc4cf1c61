"""A course's programs on parameters: reading them, all at once, initialising them with `apply`, and tying them."""

from typing import Any

import pytest

import hal
import nn

pytestmark = pytest.mark.usefixtures("each_device")


@pytest.fixture
def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def test_parameters_are_read_by_index(net: nn.Sequential) -> None:
    X = hal.rand(size=(2, 4))
    assert net(X).shape == (2, 1)
    assert list(net[2].state_dict()) == ["weight", "bias"]
    assert isinstance(net[2].bias, nn.Parameter)
    assert type(net[2].bias.data) is hal.Tensor
    assert not net[2].bias.data.requires_grad
    assert net[2].weight.grad is None
    net(X).sum().backward()
    assert net[2].bias.grad.tolist() == [2]
    assert net.state_dict()["2.bias"].data.tolist() == net[2].bias.tolist()


def test_parameters_all_at_once(net: nn.Sequential) -> None:
    assert [(name, param.shape) for name, param in net[0].named_parameters()] == [("weight", (8, 4)), ("bias", (8,))]
    assert [(name, param.shape) for name, param in net.named_parameters()] == [
        ("0.weight", (8, 4)), ("0.bias", (8,)), ("2.weight", (1, 8)), ("2.bias", (1,)),
    ]  # fmt: skip


def test_parameters_of_nested_blocks() -> None:
    def block() -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU())

    outer = nn.Sequential()
    for i in range(4):
        outer.add_module(f"block {i}", block())
    net = nn.Sequential(outer, nn.Linear(4, 1))
    assert net(hal.rand(2, 4)).shape == (2, 1)
    assert "(block 3): Sequential(" in str(net)
    assert net[0][1][0].bias.data.shape == (8,)
    assert net.state_dict()["0.block 1.0.bias"].shape == (8,)


def test_initialisation_with_apply(net: nn.Sequential) -> None:
    def normal(module: nn.Module) -> None:
        if type(module) is nn.Linear:
            nn.init.normal_(module.weight, mean=0, std=0.01)
            nn.init.zeros_(module.bias)

    def constant(module: nn.Module) -> None:
        if type(module) == nn.Linear:  # noqa: E721  # as courses write it
            nn.init.constant_(module.weight, 1)
            nn.init.zeros_(module.bias)

    net.apply(normal)
    assert net[0].weight.data.abs().max() < 0.06
    assert net[0].bias.data[0] == 0
    net.apply(constant)
    assert net[0].weight.data[0].tolist() == [1, 1, 1, 1]


def test_initialisation_layer_by_layer(net: nn.Sequential) -> None:
    def xavier(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)

    def answer(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.constant_(module.weight, 42)

    net[0].apply(xavier)
    net[2].apply(answer)
    assert 0 < net[0].weight.data.abs().max() < (6 / 12) ** 0.5
    assert (net[2].weight.data == 42).all()


def test_initialisation_by_hand(net: nn.Sequential) -> None:
    def wide(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.uniform_(module.weight, -10, 10)
            module.weight.data *= module.weight.data.abs() >= 5

    net.apply(wide)
    weight = net[0].weight
    assert ((weight.data == 0) | (weight.data.abs() >= 5)).all()
    assert (weight.data == 0).any()
    first = weight.data[0, 1].item()
    net[0].weight.data[:] += 1
    net[0].weight.data[0, 0] = 42
    assert net[0].weight[0, 0].item() == 42
    assert net[0].weight[0, 1].item() == first + 1
    assert weight.requires_grad
    assert weight.is_leaf


def test_tied_layers_stay_equal() -> None:
    shared = nn.Linear(8, 8)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(8, 1))
    net(hal.rand(2, 4))
    assert (net[2].weight.data[0] == net[4].weight.data[0]).tolist() == [True] * 8
    net[2].weight.data[0, 0] = 100
    assert net[4].weight.data[0, 0] == 100
    assert (net[2].weight.data[0] == net[4].weight.data[0]).all()
    assert len(list(net.parameters())) == 6


def test_gradients_of_tied_layers_add_up() -> None:
    shared = nn.Linear(3, 3, bias=False)
    X = hal.rand(2, 3)

    def gradient(net: Any) -> hal.Tensor:
        net(X).sum().backward()
        return shared.weight.grad

    once = gradient(nn.Sequential(shared)).clone()
    shared.weight.grad = None
    both = gradient(nn.Sequential(shared, shared))
    inner = shared(X).detach()
    outer = hal.ones(2, 3).T @ inner + (hal.ones(2, 3) @ shared.weight.detach()).T @ X
    assert hal.allclose(both, outer, atol=1e-5)
    assert not hal.allclose(both, once)
