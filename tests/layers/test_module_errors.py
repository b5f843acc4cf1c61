"""What modules and layers refuse: the text of each error, and that nothing has changed after it."""

from collections.abc import Callable
from typing import Any

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


class Forgot(nn.Module):
    def __init__(self) -> None:
        self.linear = nn.Linear(1, 1)


class ForgotParameter(nn.Module):
    def __init__(self) -> None:
        self.weight = nn.Parameter(hal.ones(1))


class ForgotBuffer(nn.Module):
    def __init__(self) -> None:
        self.register_buffer("b", hal.ones(1))


class ForgotAll(nn.Module):
    def __init__(self) -> None:
        pass

    def forward(self, x: Any) -> Any:
        return x


class NoForward(nn.Module):
    pass


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        Forgot,
        AttributeError,
        r"Forgot cannot keep the module 'linear' yet: call super\(\).__init__\(\) in the first line of Forgot",
    ),
    (ForgotParameter, AttributeError, r"ForgotParameter cannot keep the parameter 'weight' yet: call super\(\)"),
    (ForgotBuffer, AttributeError, r"ForgotBuffer cannot keep the buffer 'b' yet: call super\(\)"),
    (lambda: ForgotAll()(1), AttributeError, r"ForgotAll has no attribute '_forward_hooks' yet: call super\(\)"),
    (lambda: NoForward()(1), NotImplementedError, r"NoForward has no forward: write `def forward\(self, x\)`"),
    (lambda: Block().fisrt, AttributeError, "'Block' object has no attribute 'fisrt'"),
    (lambda: Block().add_module("first.x", nn.ReLU()), KeyError, "contain a dot, got 'first.x'"),
    (lambda: Block().add_module("", nn.ReLU()), KeyError, "cannot be empty"),
    (lambda: Block().add_module("forward", nn.ReLU()), KeyError, "Block has an attribute 'forward' already"),
    (
        lambda: Block().add_module("x", nn.ReLU),
        TypeError,
        r"add_module\('x'\) needs an nn.Module or None, got the class ReLU: call it",
    ),
    (lambda: Block().add_module("x", 3), TypeError, "got int"),
    (lambda: Block().add_module(3, nn.ReLU()), TypeError, "must be a string, got int"),
    (
        lambda: Block().register_buffer("x", [1.0]),
        TypeError,
        r"register_buffer\('x'\) needs a tensor or None, got list",
    ),
    (lambda: Block().register_parameter("x", hal.ones(1)), TypeError, "needs an nn.Parameter or None, got Tensor"),
    (
        lambda: setattr(Block(), "scale", hal.ones(4)),
        TypeError,
        "Block.scale needs an nn.Parameter or None, got Tensor",
    ),
    (lambda: setattr(Block(), "first", 3), TypeError, "Block.first needs an nn.Module or None, got int"),
    (lambda: setattr(Block(), "seen", 3), TypeError, "Block.seen needs a tensor or None, got int"),
    (
        lambda: Block().get_submodule("last.2"),
        AttributeError,
        r"no module 'last.2': last has no part '2', but \['0', '1'\]",
    ),
    (
        lambda: Block().get_parameter("first.w"),
        AttributeError,
        r"first has no 'w' among its parameters, but \['weight', 'bias'\]",
    ),
    (lambda: Block().get_buffer("x"), AttributeError, "Block has no 'x' among its buffers"),
    (lambda: Block().train("yes"), ValueError, r"train\(\) needs True or False, got 'yes'"),
    (lambda: Block().to(hal.int32), TypeError, "needs a floating-point dtype, got hal.int32"),
    (lambda: Block().to(3.5), TypeError, "takes a device, a dtype or a tensor, got float"),
    (lambda: Block().to("gpuu"), RuntimeError, "gpuu"),
    (lambda: nn.Parameter([1.0]), TypeError, r"Parameter needs a tensor, got list: make one with hal.tensor"),
    (lambda: nn.Parameter(hal.tensor([1, 2])), RuntimeError, "int64"),
    (lambda: nn.Linear(2, 2)(hal.ones(3)), ValueError, "linear"),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "Conv2d needs in_channels that groups=2 divides, got 3"),
    (lambda: nn.Conv2d(2, 4, 3, padding="around"), TypeError, "'same' or 'valid', got 'around'"),
    (lambda: nn.Conv2d(2, 4, 3, padding_mode="zero"), TypeError, "zeros, reflect, replicate, circular"),
    (lambda: nn.Conv2d(2, 4, 3, stride=2, padding="same"), TypeError, "needs stride=1"),
    (lambda: nn.ConvTranspose2d(2, 4, 3, padding_mode="reflect"), TypeError, "padding_mode='zeros'"),
    (
        lambda: nn.ConvTranspose2d(1, 1, 3, 2)(hal.zeros(1, 1, 5, 5), output_size=(20, 11)),
        ValueError,
        r"from \(11, 11\) to \(12, 12\)",
    ),
    (
        lambda: nn.BatchNorm2d(3)(hal.ones(2, 3)),
        ValueError,
        r"BatchNorm2d needs an input \(N, C, H, W\), got shape \(2, 3\)",
    ),
    (lambda: nn.BatchNorm1d(3)(hal.ones(2, 4)), ValueError, "BatchNorm1d of 3 channels got an input of shape"),
    (lambda: nn.BatchNorm1d(3)(hal.ones(1, 3)), ValueError, "more than one value per channel"),
    (lambda: nn.GroupNorm(3, 4), ValueError, "num_groups=3 divides, got 4"),
    (lambda: nn.Dropout(2), TypeError, "Dropout needs p= between 0 and 1, got 2"),
    (lambda: nn.Embedding(3, 2, padding_idx=3), TypeError, "within its 3 rows, got 3"),
    (lambda: nn.Unflatten(4, (2, 2))(hal.ones(2, 4)), ValueError, "Unflatten got dim=4"),
    (lambda: nn.LSTM(3, 5)(hal.ones(2, 4)), ValueError, "LSTM needs an input"),
    (lambda: nn.GRUCell(3, 5)(hal.ones(2, 3), hal.ones(2, 4)), ValueError, r"needs a hidden state \(2, 5\)"),
    (lambda: nn.RNN(3, 5, nonlinearity="gelu"), TypeError, "'tanh' or 'relu'"),
    (
        lambda: nn.LSTM(3, 5)(hal.ones(4, 2, 3), hal.zeros(1, 2, 5)),
        ValueError,
        r"a pair \(h, c\) of tensors as its init",
    ),
    (
        lambda: nn.GRU(3, 5)(hal.ones(4, 2, 3), (hal.zeros(1, 2, 5),) * 2),
        ValueError,
        "GRU needs one tensor as its init",
    ),
    (
        lambda: nn.GRU(3, 5)(hal.ones(4, 2, 3), hal.zeros(2, 2, 5)),
        ValueError,
        r"initial states \(1, 2, 5\), got \(2, 2,",
    ),
    (
        lambda: nn.GRU(3, 5)(nn.utils.rnn.pack_sequence([hal.ones(4, 2)])),
        ValueError,
        r"packed steps of 3 features, got \(4, 2\)",
    ),
    (lambda: nn.LSTM(3, 5, proj_size=5), TypeError, "proj_size= below hidden_size, from 0 to 4, got 5"),
    (lambda: nn.MultiheadAttention(5, 2), TypeError, "num_heads divides, got 5 and 2"),
    (lambda: nn.ZeroPad2d((1, 2)), ValueError, "one number or 4 of them"),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2][:28] for e in ERRORS])
def test_error(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_nothing_has_changed_after_an_error() -> None:
    net = Block()
    before = {k: v.numpy().copy() for k, v in net.state_dict().items()}
    for name, value in (("scale", hal.ones(4)), ("first", 3), ("seen", "x")):
        with pytest.raises(TypeError):
            setattr(net, name, value)
    with pytest.raises(TypeError):
        net.to(hal.int8)
    assert all((net.state_dict()[k].numpy() == v).all() for k, v in before.items())
