"""Modules: how they find their parts, walk through them, and change all of them at once."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.scale = nn.Parameter(hal.ones(4))
        self.register_buffer("seen", hal.zeros(4))
        self.register_buffer("scratch", hal.zeros(2), persistent=False)
        self.last = nn.Sequential(nn.ReLU(), nn.Linear(4, 2, bias=False))
        self.nothing = None

    def forward(self, x: hal.Tensor) -> hal.Tensor:
        return self.last(self.first(x) * self.scale)


def names(pairs: Any) -> list[str]:
    return [name for name, _ in pairs]


# Registration.


def test_attributes_are_found_in_the_order_in_which_they_were_assigned() -> None:
    net = Block()
    assert names(net.named_parameters()) == ["scale", "first.weight", "first.bias", "last.1.weight"]
    assert names(net.named_buffers()) == ["seen", "scratch"]
    assert names(net.named_children()) == ["first", "last"]
    assert names(net.named_modules()) == ["", "first", "last", "last.0", "last.1"]
    assert list(net.state_dict()) == ["scale", "seen", "first.weight", "first.bias", "last.1.weight"]
    assert [type(m).__name__ for m in net.children()] == ["Linear", "Sequential"]
    assert len(list(net.parameters())) == 4
    assert names(net.named_parameters(recurse=False)) == ["scale"]
    assert names(net.named_parameters(prefix="net")) == [f"net.{n}" for n in names(net.named_parameters())]


def test_an_attribute_can_change_its_kind() -> None:
    net = Block()
    net.scale = nn.Linear(4, 4)
    assert "scale" not in names(net.named_parameters(recurse=False))
    net.scale = nn.Parameter(hal.ones(1))
    assert "scale" not in names(net.named_children())
    net.first = None
    assert net.first is None
    assert names(net.named_children()) == ["last"]
    net.seen = hal.ones(4)
    assert net.seen.tolist() == [1, 1, 1, 1]
    assert "seen" in net.state_dict()
    del net.seen
    assert "seen" not in net.state_dict()
    net.plain = hal.ones(2)
    assert "plain" not in net.state_dict()
    del net.plain
    assert not hasattr(net, "plain")


def test_parts_can_be_added_by_name() -> None:
    net = nn.Module()
    net.add_module("a", nn.Linear(1, 1))
    net.register_module("b", nn.ReLU())
    net.register_parameter("w", nn.Parameter(hal.ones(2)))
    net.register_parameter("later", None)
    net._modules["c"] = nn.Tanh()
    assert names(net.named_children()) == ["a", "b", "c"]
    assert net.c is net._modules["c"]
    assert net.later is None
    net.later = nn.Parameter(hal.ones(3))
    assert names(net.named_parameters()) == ["w", "later", "a.weight", "a.bias"]


def test_what_is_shared_is_listed_once() -> None:
    shared = nn.Linear(2, 2)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert names(net.named_parameters()) == ["0.weight", "0.bias"]
    assert names(net.named_parameters(remove_duplicate=False)) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert names(net.named_modules()) == ["", "0", "1"]
    assert names(net.named_modules(remove_duplicate=False)) == ["", "0", "1", "2"]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    tied = nn.Linear(2, 2)
    tied.weight = shared.weight
    assert len(list(nn.ModuleList([shared, tied]).parameters())) == 3


def test_parts_are_found_by_dotted_names() -> None:
    net = Block()
    assert net.get_submodule("last.1") is net.last[1]
    assert net.get_submodule("") is net
    assert net.get_parameter("last.1.weight") is net.last[1].weight
    assert net.get_buffer("seen") is net.seen
    net.set_submodule("last.0", nn.Tanh())
    assert isinstance(net.last[0], nn.Tanh)


# What is done to all parts.


def test_apply_begins_with_the_innermost() -> None:
    seen: list[str] = []
    assert Block().apply(lambda m: seen.append(type(m).__name__)).training
    assert seen == ["Linear", "ReLU", "Linear", "Sequential", "Block"]


def test_train_and_eval_reach_all_parts() -> None:
    net = Block()
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    assert all(m.training for m in net.train().modules())


def test_gradients_are_forgotten_or_zeroed_or_switched_off() -> None:
    net = Block()
    net(hal.ones(5, 3)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert net.scale.grad.tolist() == [0, 0, 0, 0]
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())
    assert not net(hal.ones(1, 3)).requires_grad


@pytest.mark.parametrize(
    ("convert", "dtype"),
    [
        (lambda n: n.double(), hal.float64),
        (lambda n: n.half(), hal.float16),
        (lambda n: n.bfloat16(), hal.bfloat16),
        (lambda n: n.double().float(), hal.float32),
        (lambda n: n.to(hal.float64), hal.float64),
        (lambda n: n.to("float16"), hal.float16),
        (lambda n: n.to(dtype=hal.float64, device="cpu"), hal.float64),
        (lambda n: n.to(hal.zeros(1, dtype=hal.float64)), hal.float64),
    ],
)
def test_conversion_keeps_the_parameters_and_leaves_integers(convert: Callable[[Any], Any], dtype: hal.DType) -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = list(net.parameters())
    net(hal.rand(4, 2)).sum().backward()

    assert convert(net) is net

    assert all(a is b for a, b in zip(before, net.parameters(), strict=True))
    assert {p.dtype for p in net.parameters()} == {p.grad.dtype for p in net.parameters()} == {dtype}
    assert net[1].running_mean.dtype is dtype
    assert net[1].num_batches_tracked.dtype is hal.int64


def test_type_converts_integers_too() -> None:
    assert nn.BatchNorm1d(3).type(hal.float64).num_batches_tracked.dtype is hal.float64


def test_to_moves_everything(each_device: hal.Device) -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    home = net.to("cpu")
    assert {str(t.device) for t in (*home.parameters(), *home.buffers())} == {"cpu"}
    net.to(each_device)
    assert {t.device for t in (*net.parameters(), *net.buffers())} == {each_device}
    assert net.cpu()[0].weight.device == hal.device("cpu")
    assert net(hal.rand(4, 2, device="cpu")).device == hal.device("cpu")


def test_layers_are_made_where_and_as_they_are_told(each_device: hal.Device) -> None:
    assert nn.Linear(2, 2).weight.device == each_device
    assert nn.BatchNorm2d(2, device="cpu").running_var.device == hal.device("cpu")
    layer = nn.Conv2d(1, 2, 3, device="cpu", dtype=hal.float64)
    assert (layer.bias.device, layer.bias.dtype) == (hal.device("cpu"), hal.float64)
    assert nn.Linear(2, 2).weight.origin.strength == 3


def test_a_deep_copy_shares_nothing_and_keeps_ties() -> None:
    net = Block()
    net.tied = nn.Linear(3, 4)
    net.tied.weight = net.first.weight
    twin = copy.deepcopy(net)
    assert twin.tied.weight is twin.first.weight
    with hal.no_grad():
        twin.scale.fill_(7)
        twin.seen.fill_(7)
        twin.tied.weight.fill_(7)
    assert net.scale.tolist() == [1, 1, 1, 1]
    assert net.seen.tolist() == [0, 0, 0, 0]
    assert twin.first.weight[0, 0].item() == 7
    assert net.first.weight[0, 0].item() != 7
    assert repr(twin) == repr(net)
    assert twin.scale.requires_grad
    assert isinstance(twin.scale, nn.Parameter)


# Hooks.


def test_forward_hooks_see_and_change_what_goes_in_and_comes_out() -> None:
    layer, seen = nn.Linear(2, 2), []
    before = layer.register_forward_pre_hook(lambda m, args: (args[0] * 0,))
    after = layer.register_forward_hook(lambda m, args, out: seen.append((m is layer, out.tolist())) or out + 1)
    y = layer(hal.ones(2))
    assert seen == [(True, layer.bias.tolist())]
    np.testing.assert_allclose(y.tolist(), [b + 1 for b in layer.bias.tolist()], rtol=1e-6)
    before.remove()
    after.remove()
    after.remove()
    assert layer(hal.zeros(2)).tolist() == layer.bias.tolist()
    assert len(seen) == 1


def test_hooks_come_in_order_with_keywords_and_after_errors() -> None:
    class Scale(nn.Module):
        def forward(self, x: float, *, by: float = 1.0) -> float:
            if by == 0:
                raise ZeroDivisionError
            return x * by

    layer, order = Scale(), []
    layer.register_forward_hook(lambda m, a, k, y: order.append(("second", k, y)), with_kwargs=True, always_call=True)
    layer.register_forward_hook(lambda m, a, y: order.append("first"), prepend=True)
    with layer.register_forward_pre_hook(lambda m, a, k: (a, {"by": k["by"] * 2}), with_kwargs=True):
        assert layer(3, by=5) == 30
        assert order == ["first", ("second", {"by": 10}, 30)]
        with pytest.raises(ZeroDivisionError):
            layer(3, by=0)
    assert order[2:] == [("second", {"by": 0}, None)]
    assert layer(3, by=5) == 15


def test_backward_hooks_see_and_change_gradients() -> None:
    layer, seen = nn.Linear(2, 3), []
    layer.register_full_backward_pre_hook(lambda m, g: (g[0] * 2,))
    handle = layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)) or (gi[0] * 10,))
    x = hal.ones(4, 2, requires_grad=True)
    layer(x).sum().backward()
    (grad_input,), (grad_output,) = seen[0]
    assert grad_output.tolist() == [[2, 2, 2]] * 4
    want = 2 * layer.weight.detach().numpy().sum(0)
    np.testing.assert_allclose(grad_input.numpy()[0], want, rtol=1e-5)
    np.testing.assert_allclose(x.grad.numpy()[0], 10 * want, rtol=1e-5)
    assert layer.bias.grad.tolist() == [8, 8, 8]
    handle.remove()
    layer(x.detach()).sum().backward()
    assert len(seen) == 1


def test_a_backward_hook_is_called_when_the_input_needs_no_gradient() -> None:
    layer, seen = nn.Linear(2, 3), []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go[0].tolist())))
    layer(hal.ones(1, 2)).sum().backward()
    assert seen == [((None,), [[1, 1, 1]])]


# Printing.


def both(build: Callable[[Any], Any], torch: ModuleType) -> tuple[str, str]:
    return repr(build(nn)), repr(build(torch.nn))


@pytest.mark.parametrize(
    "build",
    [
        lambda nn: nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(1, 2, 3)), nn.Flatten()),
        lambda nn: nn.Sequential(OrderedDict([("first", nn.Linear(2, 3, bias=False)), ("then", nn.ReLU6())])),
        lambda nn: nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Tanh(), nn.Tanh())]),
        lambda nn: nn.ModuleDict({"a": nn.ReLU(), "b": nn.ModuleDict()}),
        lambda nn: nn.MultiheadAttention(4, 2),
        lambda nn: nn.LSTM(3, 4, 2, bias=False, batch_first=True, dropout=0.5, bidirectional=True),
        lambda nn: nn.Embedding(3, 4, 1, 2.0, 3.0),
        lambda nn: nn.Sequential(),
        lambda nn: nn.Sequential(nn.LazyLinear(3), nn.LazyConv2d(3, 2, padding=1), nn.LazyBatchNorm1d()),
        lambda nn: nn.Sequential(nn.Dropout(), nn.Dropout1d(0.1), nn.Dropout2d(inplace=True), nn.AlphaDropout()),
        lambda nn: nn.Conv2d(4, 8, (3, 5), 2, 1, 2, 2, False, "circular"),
        lambda nn: nn.ConvTranspose1d(4, 8, 3, 2, 1, 1, 2, False),
        lambda nn: nn.Parameter(nn.Linear(1, 1).weight.data * 0 + 1.5),
    ],
    ids=range(13),
)
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_printed_as_in_torch(torch: ModuleType, build: Callable[[Any], Any]) -> None:
    ours, theirs = both(build, torch)
    assert ours == theirs


def test_extra_repr_of_a_users_module() -> None:
    class Scale(nn.Module):
        def extra_repr(self) -> str:
            return "by=2\nand=3"

    assert repr(Scale()) == "Scale(\n  by=2\n  and=3\n)"
