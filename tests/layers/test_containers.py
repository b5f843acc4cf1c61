"""Containers: modules and parameters in lists and dictionaries, with the habits of Python's own."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

import hal
import nn


def three() -> list[nn.Module]:
    return [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)]


def test_sequential_takes_modules_a_list_or_names() -> None:
    parts = three()
    for net in (nn.Sequential(*parts), nn.Sequential(parts)):
        assert list(net) == parts
        assert list(net._modules) == ["0", "1", "2"]
    named = nn.Sequential(OrderedDict(zip("abc", parts, strict=True)))
    assert named.b is parts[1]
    assert named[2] is parts[2]
    x = hal.rand(4, 2)
    assert named(x).tolist() == parts[2](parts[1](parts[0](x))).tolist()


def test_sequential_is_indexed_and_sliced() -> None:
    parts = three()
    net = nn.Sequential(*parts)
    assert len(net) == 3
    assert net[-1] is parts[2]
    assert list(net[:2]) == parts[:2]
    assert isinstance(net[1:], nn.Sequential)
    assert list(net[1:]._modules) == ["1", "2"]
    net[1] = nn.Tanh()
    assert isinstance(net[1], nn.Tanh)
    del net[1]
    assert list(net) == [parts[0], parts[2]]
    assert list(net._modules) == ["0", "1"]


def test_sequential_grows_and_shrinks() -> None:
    a, b, c = three()
    net = nn.Sequential(a)
    assert net.append(c) is net
    net.insert(1, b)
    assert list(net) == [a, b, c]
    assert list(net.extend([nn.Tanh()])._modules) == ["0", "1", "2", "3"]
    assert net.pop(0) is a
    assert list(net)[:2] == [b, c]
    both = net + nn.Sequential(a)
    assert list(both)[-1] is a
    both += nn.Sequential(b)
    assert len(both) == 5
    assert len(nn.Sequential(a, b) * 3) == len(3 * nn.Sequential(a, b)) == 6
    del net[1:]
    assert list(net) == [b]


def test_a_sequential_can_be_filled_by_hand() -> None:
    class Mine(nn.Module):
        def __init__(self, *parts: nn.Module) -> None:
            super().__init__()
            for i, part in enumerate(parts):
                self._modules[str(i)] = part

        def forward(self, x: hal.Tensor) -> hal.Tensor:
            for part in self._modules.values():
                x = part(x)
            return x

    parts = three()
    x = hal.rand(4, 2)
    assert Mine(*parts)(x).tolist() == nn.Sequential(*parts)(x).tolist()
    assert list(Mine(*parts).state_dict()) == list(nn.Sequential(*parts).state_dict())


def test_module_list() -> None:
    a, b, c = three()
    items = nn.ModuleList([a])
    items.append(c).insert(1, b)
    assert list(items) == [a, b, c]
    assert isinstance(items[1:], nn.ModuleList)
    assert list((items + nn.ModuleList([a]))._modules) == ["0", "1", "2", "3"]
    items += [a]
    assert items.pop(-1) is a
    items[0] = b
    assert items[0] is b
    del items[1:]
    assert list(items) == [b]
    assert len(nn.ModuleList()) == 0
    assert len(list(nn.ModuleList(three()).parameters())) == 4


def test_module_dict() -> None:
    a, b, c = three()
    items = nn.ModuleDict({"a": a})
    items["b"] = b
    items.update([("c", c)])
    assert list(items) == list(items.keys()) == ["a", "b", "c"]
    assert list(items.values()) == [a, b, c]
    assert dict(items.items())["b"] is b
    assert "a" in items
    assert items.pop("a") is a
    del items["b"]
    assert len(items) == 1
    items.clear()
    assert len(items) == 0


def test_parameter_list_and_dict() -> None:
    items = nn.ParameterList([hal.ones(2), nn.Parameter(hal.zeros(3))])
    assert all(isinstance(p, nn.Parameter) for p in items)
    items.append(hal.ones(1))
    items += [hal.ones(4)]
    assert [p.shape for p in items] == [(2,), (3,), (1,), (4,)]
    assert items[-1].shape == (4,)
    assert [p.shape for p in items[1:3]] == [(3,), (1,)]
    items[0] = hal.ones(5)
    assert list(items.state_dict()) == ["0", "1", "2", "3"]
    named = nn.ParameterDict({"a": hal.ones(2)})
    named["b"] = hal.ones(3)
    assert [n for n, _ in named.named_parameters()] == ["a", "b"]
    assert named.get("c") is None
    assert named.setdefault("c", hal.ones(1)).shape == (1,)
    assert named.pop("a").shape == (2,)
    assert list(named) == ["b", "c"]
    named.clear()
    assert len(named) == 0


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: nn.Sequential(*three())[3], IndexError, "Sequential has 3 modules, there is no number 3"),
    (lambda: nn.Sequential(nn.Linear(1, 1), hal.ones(1)), TypeError, "needs an nn.Module or None, got Tensor"),
    (lambda: nn.ModuleList(three())[-4], IndexError, "ModuleList has 3 modules"),
    (lambda: nn.ModuleList(three()).insert(1, 3), TypeError, "insert needs an nn.Module, got int"),
    (lambda: nn.Sequential().insert(1, nn.ReLU()), IndexError, "has 0 modules, nothing can be put at 1"),
    (lambda: nn.ModuleDict({"a": nn.ReLU()})["b"], KeyError, r"ModuleDict has no module 'b', but \['a'\]"),
    (lambda: nn.ModuleDict({"keys": nn.ReLU()}), KeyError, "an attribute 'keys' already"),
    (lambda: nn.ModuleList(three())(hal.ones(1)), NotImplementedError, "ModuleList has no forward"),
    (lambda: nn.ParameterList([hal.ones(1)])[1], IndexError, "ParameterList has 1 parameters, there is no number 1"),
    (lambda: nn.ParameterDict()["a"], KeyError, r"ParameterDict has no 'a', but \[\]"),
    (lambda: nn.ParameterDict({"pop": hal.ones(1)}), KeyError, "cannot take 'pop'"),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2][:28] for e in ERRORS])
def test_error(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
