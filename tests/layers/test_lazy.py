"""Lazy layers: sizes from the first input, and errors about what is asked of them before."""

import copy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal.errors import StateError

pytestmark = pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")

# fmt: off
LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("LazyLinear", (4,), {}, (2, 3)),
    ("LazyLinear", (4,), {"bias": False}, (5, 2, 3)),
    ("LazyConv1d", (6, 3), {"padding": 1}, (2, 4, 9)),
    ("LazyConv2d", (6, 3), {"groups": 2, "stride": 2}, (2, 4, 9, 8)),
    ("LazyConv2d", (6, 3), {"bias": False, "padding": "same"}, (4, 9, 8)),
    ("LazyConv3d", (2, 3), {}, (2, 4, 5, 6, 7)),
    ("LazyConvTranspose1d", (6, 3), {"stride": 2}, (2, 4, 9)),
    ("LazyConvTranspose2d", (6, 3), {"groups": 2, "output_padding": 1, "stride": 2}, (2, 4, 5, 6)),
    ("LazyConvTranspose3d", (2, 2), {}, (2, 4, 5, 6, 7)),
    ("LazyBatchNorm1d", (), {}, (5, 4)),
    ("LazyBatchNorm2d", (), {"momentum": 0.2}, (2, 4, 9, 8)),
    ("LazyBatchNorm2d", (), {"affine": False}, (2, 4, 9, 8)),
    ("LazyBatchNorm3d", (), {"track_running_stats": False, "bias": False}, (2, 4, 5, 6, 7)),
    ("LazyInstanceNorm1d", (), {}, (2, 4, 9)),
    ("LazyInstanceNorm2d", (), {"affine": True, "track_running_stats": True}, (2, 4, 9, 8)),
    ("LazyInstanceNorm3d", (), {"affine": True, "bias": False}, (2, 4, 5, 6, 7)),
]
# fmt: on


@pytest.mark.parametrize(("name", "args", "settings", "shape"), LAYERS, ids=lambda r: r if isinstance(r, str) else None)
def test_lazy_layer(
    torch: ModuleType,
    parity: Callable[..., None],
    name: str,
    args: Any,
    settings: dict[str, Any],
    shape: tuple[int, ...],
) -> None:
    ours, theirs = getattr(nn, name)(*args, **settings), getattr(torch.nn, name)(*args, **settings)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    ours.eval()(hal.tensor(x))
    theirs.eval()(torch.tensor(x))

    assert type(ours).__name__ == type(theirs).__name__ == name.removeprefix("Lazy")
    assert repr(ours) == repr(theirs)
    parity(ours.train(), theirs.train(), x)


def lazy() -> nn.Sequential:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))


def test_a_network_is_initialised_by_one_forward_pass(each_device: hal.Device) -> None:
    net = lazy()
    assert net(hal.rand(2, 3, 5, 5)).shape == (2, 2)
    assert [p.shape for p in net.parameters()] == [(4, 3, 3, 3), (4,), (4,), (4,), (2, 36), (2,)]
    assert all(type(p) is nn.Parameter and p.device == each_device for p in net.parameters())
    weight = net[4].weight.detach().cpu().numpy()
    assert 0 < np.abs(weight).max() <= 1 / 6
    before = net[4].weight.tolist()
    net(hal.rand(2, 3, 5, 5))
    assert net[4].weight.tolist() == before


def test_an_optimizer_may_be_made_before() -> None:
    net = lazy()
    optimizer = nn.optim.SGD(net.parameters(), lr=0.1)
    x = hal.rand(2, 3, 5, 5)
    net(x).sum().backward()
    before = net[4].bias.tolist()
    optimizer.step()
    np.testing.assert_allclose(net[4].bias.tolist(), [b - 0.2 for b in before], rtol=1e-5)


def test_conversion_and_copies_before_the_first_pass() -> None:
    net = copy.deepcopy(lazy()).double()
    net(hal.rand(2, 3, 5, 5, dtype=hal.float64))
    assert {p.dtype for p in net.parameters()} == {hal.float64}
    assert net[1].running_mean.dtype is hal.float64
    original = lazy()
    copy.deepcopy(original)(hal.rand(2, 3, 5, 5))
    assert isinstance(original[4], nn.LazyLinear)
    with pytest.raises(StateError):
        print(original[4].weight.shape)


def test_a_state_gives_shapes(tmp_path: Path) -> None:
    source = lazy()
    x = hal.rand(2, 3, 5, 5)
    source(x)
    source.eval()
    hal.save(source.state_dict(), tmp_path / "lazy.params")
    target = lazy().eval()
    target.load_state_dict(hal.load(tmp_path / "lazy.params"))
    assert target[4].weight.shape == (2, 36)
    np.testing.assert_allclose(target(x).tolist(), source(x).tolist(), rtol=1e-6)
    assert repr(target) == repr(source)


def test_a_users_lazy_module() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.UninitializedParameter()

        def forward(self, x: hal.Tensor) -> hal.Tensor:
            return x * self.by

    class LazyScale(nn.LazyModuleMixin, Scale):
        cls_to_become = Scale

        def initialize_parameters(self, x: hal.Tensor) -> None:
            self.by.materialize(x.shape[-1:])
            nn.init.constant_(self.by, 3)

    net = LazyScale()
    assert net(hal.ones(2, 4)).tolist() == [[3] * 4] * 2
    assert type(net) is Scale


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: nn.LazyLinear(2).weight.shape,
        StateError,
        "UninitializedParameter has no shape yet.*run the module's forward",
    ),
    (lambda: nn.LazyLinear(2).weight.data, StateError, "no shape yet"),
    (lambda: nn.LazyLinear(2).weight + 1, StateError, "no shape yet"),
    (lambda: nn.init.normal_(nn.LazyLinear(2).weight), StateError, "no shape yet"),
    (lambda: sum(p.numel() for p in lazy().parameters()), StateError, "no shape yet"),
    (lambda: nn.LazyBatchNorm1d().running_mean.sum(), StateError, "UninitializedBuffer has no shape yet"),
    (
        lambda: nn.LazyConv2d(4, 3)(hal.zeros(2, 3)),
        ValueError,
        r"LazyConv2d needs an input with 3 or 4 axes, got shape \(2, 3\)",
    ),
    (lambda: nn.LazyConv2d(4, 3, groups=2)(hal.zeros(2, 3, 5, 5)), ValueError, "channels that groups=2 divides"),
    (lambda: nn.LazyConv2d(3, 3, groups=2), ValueError, "out_channels that groups=2 divides, got 3"),
    (lambda: nn.LazyBatchNorm2d()(hal.zeros(2, 3)), ValueError, r"needs an input \(N, C, H, W\)"),
    (lambda: nn.Linear(3, 2).load_state_dict(nn.LazyLinear(2).state_dict()), StateError, "has no shape in the state"),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=range(len(ERRORS)))
def test_error(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_failed_first_pass_can_be_tried_again() -> None:
    layer = nn.LazyConv2d(4, 3)
    with pytest.raises(ValueError, match="LazyConv2d"):
        layer(hal.zeros(2, 3))
    assert layer(hal.zeros(1, 3, 5, 5)).shape == (1, 4, 3, 3)
