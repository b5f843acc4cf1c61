"""Initialisation: torch's distributions, by their bounds and moments, and those that layers begin with."""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn
from nn import init

SHAPE = (60, 50, 3, 2)  # fan_in 300, fan_out 360


@pytest.fixture(autouse=True)
def seed() -> None:
    hal.manual_seed(0)


# fmt: off
UNIFORM: list[tuple[str, Callable[[Any], Any], float, float]] = [
    ("uniform", lambda t: init.uniform_(t, -2, 3), -2, 3),
    ("xavier", lambda t: init.xavier_uniform_(t, gain=2), -2 * math.sqrt(6 / 660), 2 * math.sqrt(6 / 660)),
    ("kaiming", lambda t: init.kaiming_uniform_(t), -math.sqrt(6 / 300), math.sqrt(6 / 300)),
    ("kaiming out", lambda t: init.kaiming_uniform_(t, mode="fan_out", nonlinearity="tanh"),
     -5 / 3 * math.sqrt(3 / 360), 5 / 3 * math.sqrt(3 / 360)),
    ("kaiming a", lambda t: init.kaiming_uniform_(t, a=math.sqrt(5)), -1 / math.sqrt(300), 1 / math.sqrt(300)),
]
NORMAL: list[tuple[str, Callable[[Any], Any], float, float]] = [
    ("normal", lambda t: init.normal_(t, 2, 3), 2, 3),
    ("xavier", lambda t: init.xavier_normal_(t), 0, math.sqrt(2 / 660)),
    ("kaiming", lambda t: init.kaiming_normal_(t, nonlinearity="relu"), 0, math.sqrt(2 / 300)),
    ("kaiming a", lambda t: init.kaiming_normal_(t, a=1, mode="fan_out"), 0, math.sqrt(1 / 360)),
]
# fmt: on


@pytest.mark.parametrize(("fill", "low", "high"), [r[1:] for r in UNIFORM], ids=[r[0] for r in UNIFORM])
def test_uniform(fill: Callable[[Any], Any], low: float, high: float) -> None:
    tensor = nn.Parameter(hal.empty(*SHAPE))
    assert fill(tensor) is tensor
    x = tensor.detach().numpy()
    width = high - low
    assert low <= x.min() < low + 0.01 * width
    assert high - 0.01 * width < x.max() < high
    assert abs(x.mean() - (low + high) / 2) < 0.01 * width
    assert abs(x.std() - width / math.sqrt(12)) < 0.01 * width


@pytest.mark.parametrize(("fill", "mean", "std"), [r[1:] for r in NORMAL], ids=[r[0] for r in NORMAL])
def test_normal(fill: Callable[[Any], Any], mean: float, std: float) -> None:
    x = fill(nn.Parameter(hal.empty(*SHAPE))).detach().numpy()
    assert abs(x.mean() - mean) < 0.03 * std
    assert abs(x.std() - std) < 0.03 * std
    assert abs(((x - mean) / std < -1).mean() - 0.1587) < 0.02


@pytest.mark.parametrize(
    ("name", "args", "settings"),
    [
        ("uniform_", (-2, 3), {}),
        ("normal_", (2, 3), {}),
        ("constant_", (4,), {}),
        ("ones_", (), {}),
        ("zeros_", (), {}),
        ("eye_", (), {}),
        ("xavier_uniform_", (2,), {}),
        ("xavier_normal_", (), {"gain": 3}),
        ("kaiming_uniform_", (), {"mode": "fan_out", "nonlinearity": "tanh"}),
        ("kaiming_uniform_", (0.3,), {}),
        ("kaiming_normal_", (), {"nonlinearity": "relu"}),
        ("orthogonal_", (2.0,), {}),
        ("sparse_", (0.3,), {"std": 2}),
    ],
    ids=str,
)
def test_as_spread_as_torchs(torch: ModuleType, name: str, args: Any, settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    x = getattr(init, name)(hal.empty(150, 200), *args, **settings).numpy()
    y = getattr(torch.nn.init, name)(torch.empty(150, 200), *args, **settings).numpy()
    spread = max(y.std(), 1e-6)
    assert abs(x.mean() - y.mean()) < 0.03 * spread
    assert abs(x.std() - y.std()) <= 0.02 * spread
    assert (x == 0).sum() == (y == 0).sum()
    quantiles = np.linspace(0.05, 0.95, 7)
    np.testing.assert_allclose(np.quantile(x, quantiles), np.quantile(y, quantiles), atol=0.06 * spread)


@pytest.mark.parametrize(("a", "b"), [(-2.0, 2.0), (-0.5, 0.1), (1.5, 3.0), (-9.0, -2.0)])
def test_truncated_normal(torch: ModuleType, a: float, b: float) -> None:
    x = init.trunc_normal_(hal.empty(40_000), 0.2, 1.1, a, b).numpy()
    y = torch.nn.init.trunc_normal_(torch.empty(40_000), 0.2, 1.1, a, b).numpy()
    assert a <= x.min() < x.max() <= b
    quantiles = np.linspace(0.02, 0.98, 9)
    np.testing.assert_allclose(np.quantile(x, quantiles), np.quantile(y, quantiles), atol=0.04)


def test_constants() -> None:
    assert init.constant_(hal.empty(2), 3).tolist() == [3, 3]
    assert init.ones_(hal.empty(2)).tolist() == [1, 1]
    assert init.zeros_(hal.ones(2)).tolist() == [0, 0]
    assert init.eye_(hal.empty(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("groups", [1, 2])
def test_dirac_passes_channels_on(torch: ModuleType, groups: int) -> None:
    ours, theirs = init.dirac_(hal.empty(4, 3, 3, 3), groups), torch.nn.init.dirac_(torch.empty(4, 3, 3, 3), groups)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (4, 3, 2)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    x = init.orthogonal_(hal.empty(*shape), gain=2).numpy().reshape(shape[0], -1)
    small = x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-5)


def test_sparse_has_zeros_in_every_column() -> None:
    x = init.sparse_(hal.empty(10, 20), 0.25, std=1).numpy()
    assert ((x == 0).sum(0) == 3).all()
    assert abs(x[x != 0].std() - 1) < 0.2


@pytest.mark.parametrize("name", ["linear", "conv2d", "sigmoid", "tanh", "relu", "selu", "leaky_relu"])
def test_gain(torch: ModuleType, name: str) -> None:
    assert init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    assert init.calculate_gain("leaky_relu", 0.3) == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", 0.3))


def test_a_generator_decides_the_numbers() -> None:
    drawn = [init.normal_(hal.empty(5), generator=hal.Generator().manual_seed(s)).tolist() for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_seed_decides_a_network() -> None:
    def weights(seed: int) -> Any:
        hal.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.Conv1d(2, 3, 2), nn.LSTM(2, 2))[2].weight_hh_l0.tolist()

    assert weights(4) == weights(4) != weights(5)


# fmt: off
BEGINNINGS: list[tuple[str, Callable[[Any], Any]]] = [
    ("Linear", lambda nn: nn.Linear(300, 200)),
    ("Conv2d", lambda nn: nn.Conv2d(30, 40, (3, 5), groups=2)),
    ("ConvTranspose2d", lambda nn: nn.ConvTranspose2d(40, 30, 5)),
    ("Bilinear", lambda nn: nn.Bilinear(40, 30, 20)),
    ("Embedding", lambda nn: nn.Embedding(100, 80)),
    ("LSTM", lambda nn: nn.LSTM(40, 50)),
    ("GRUCell", lambda nn: nn.GRUCell(40, 50)),
    ("BatchNorm2d", lambda nn: nn.BatchNorm2d(50)),
    ("LayerNorm", lambda nn: nn.LayerNorm(50)),
    ("PReLU", lambda nn: nn.PReLU(50)),
    ("MultiheadAttention", lambda nn: nn.MultiheadAttention(64, 4, add_bias_kv=True)),
    ("MultiheadAttention kdim", lambda nn: nn.MultiheadAttention(64, 4, kdim=40, vdim=30)),
]
# fmt: on


@pytest.mark.parametrize("build", [b[1] for b in BEGINNINGS], ids=[b[0] for b in BEGINNINGS])
def test_layers_begin_as_in_torch(torch: ModuleType, build: Callable[[Any], Any]) -> None:
    theirs = dict(build(torch.nn).named_parameters())
    for name, parameter in build(nn).named_parameters():
        x, y = parameter.detach().numpy(), theirs[name].detach().numpy()
        spread = max(float(y.std()), 1e-9)
        error = 6 / math.sqrt(x.size)  # six times the standard error of a mean
        assert abs(x.mean() - y.mean()) <= 2 * error * spread, name
        assert abs(x.std() / spread - y.std() / spread) <= 2 * error, name
        if "bias_" not in name:  # a normal distribution's extremes are not so near each other
            assert abs(x).max() == pytest.approx(abs(y).max(), rel=0.35, abs=1e-9), name


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: init.xavier_uniform_(hal.empty(3)),
        ValueError,
        r"xavier_uniform_ needs a weight of at least two axes.*\(3,\)",
    ),
    (lambda: init.kaiming_normal_(hal.empty(3, 2), mode="fan"), TypeError, "'fan_in' or 'fan_out', got 'fan'"),
    (lambda: init.calculate_gain("swish"), TypeError, "knows linear.*got 'swish'"),
    (lambda: init.eye_(hal.empty(3)), ValueError, "eye_ needs a matrix"),
    (lambda: init.dirac_(hal.empty(3, 2)), ValueError, "dirac_ needs the weight of a convolution"),
    (lambda: init.orthogonal_(hal.empty(3)), ValueError, "at least two axes"),
    (lambda: init.sparse_(hal.empty(3), 0.1), ValueError, "sparse_ needs a matrix"),
    (lambda: init.trunc_normal_(hal.empty(3), a=2, b=1), TypeError, "needs a < b"),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2][:20] for e in ERRORS])
def test_error(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
