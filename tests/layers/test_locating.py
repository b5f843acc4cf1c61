"""Errors of a forward pass name the layer's path in the model, what it expected and what it got."""

from collections.abc import Callable

import pytest

import hal
import nn
from hal.errors import HalError, ShapeError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(40, 4))

    def forward(self, x: hal.Tensor) -> hal.Tensor:
        return self.head(self.encoder(x))


def broken(path: str, part: nn.Module) -> Net:
    net = Net()
    owner, _, name = path.rpartition(".")
    net.get_submodule(owner)._modules[name] = part
    return net


def test_the_path_the_need_and_what_came() -> None:
    net = broken("encoder.layers.2.linear1", nn.Linear(9, 16))
    with pytest.raises(ShapeError) as caught:
        net(hal.randn(2, 5, 8))
    said = str(caught.value)
    assert said.startswith("linear needs an input (..., in_features) and a weight (out_features, in_features)")
    assert "got (2, 5, 8) and (16, 9)" in said
    assert said.endswith(
        "in encoder.layers.2.linear1 of Net, which is Linear(in_features=9, out_features=16, bias=True)"
    )
    assert said.count(" of Net") == 1


def test_a_layer_on_its_own_has_no_path() -> None:
    with pytest.raises(ShapeError) as caught:
        nn.Linear(2, 2)(hal.ones(3))
    assert " of Linear" not in str(caught.value)


def test_code_of_a_block_between_its_layers_is_the_blocks() -> None:
    class Block(nn.Module):
        def forward(self, x: hal.Tensor) -> hal.Tensor:
            return x @ hal.ones(7, 7)

    with pytest.raises(ShapeError, match=r"in 1\.0 of Sequential, which is Block\(\)$"):
        nn.Sequential(nn.Identity(), nn.Sequential(Block()))(hal.ones(2, 3))


def hooked(net: Net) -> Net:
    net.head.register_forward_hook(lambda module, args, out: None)
    return net


@pytest.mark.parametrize("change", [hooked, lambda net: net.eval()])
def test_whatever_way_the_layer_is_called(change: Callable[[Net], Net]) -> None:
    with pytest.raises(HalError, match=r"in head\.1 of Net, which is Linear"):
        change(Net())(hal.randn(2, 6, 8))


def test_other_errors_stay_as_they_are() -> None:
    class Strange(nn.Module):
        def forward(self, x: hal.Tensor) -> hal.Tensor:
            raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        nn.Sequential(Strange())(hal.ones(1))
    assert caught.value.args == ("mine",)


def test_an_index_outside_of_a_table_is_located_too() -> None:
    net = nn.ModuleDict({"words": nn.Embedding(5, 3)})
    net.forward = lambda x: net["words"](x)
    with pytest.raises(IndexError, match=r"index 9 is out of bounds.*; in words of ModuleDict, which is Embedding"):
        net(hal.tensor([1, 9]))
