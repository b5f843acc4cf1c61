"""nn.quantize: what it makes of layers, how near its results are, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import hal
import nn
from hal.errors import DataError
from nn import functional as F


def _images(n: int = 32) -> hal.Tensor:
    hal.manual_seed(1)
    return hal.randn(n, 3, 8, 8)


def _normed() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(24, 10, bias=False), nn.BatchNorm1d(10),
    )  # fmt: skip
    net(_images())  # running statistics that are not those of the beginning
    return net


class _Own(nn.Module):
    """A network whose data flow stands in its own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, groups=1, padding="same")
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Linear(256, 5)

    def forward(self, x: hal.Tensor) -> hal.Tensor:
        y = F.relu(self.norm(self.conv(x)))
        found: hal.Tensor = self.out(y.flatten(1))
        return found


# fmt: off
NETS: dict[str, Callable[[], nn.Module]] = {
    "linear":   lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 7)),
    "one":      lambda: nn.Conv2d(3, 4, 3),
    "mlp":      lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, 7)),
    "signed":   lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(4, 2, 2)),
    "grouped":  lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Tanh(), nn.Conv2d(6, 2, 3, dilation=2)),
    "normed":   _normed,
    "own":      _Own,
}
# fmt: on


@pytest.mark.parametrize("name", NETS)
def test_results_are_near_those_in_float(name: str) -> None:
    hal.manual_seed(0)
    net, x = NETS[name](), _images()
    quantized = nn.quantize(net, [x[:16], (x[16:], None)])
    net.eval()
    with hal.no_grad():
        want, got = net(x).numpy(), quantized(x).numpy()
    assert got.dtype == np.float32
    assert np.abs(got - want).max() < 0.04 * np.abs(want).max()
    assert not any(isinstance(m, (nn.Linear, nn.Conv2d, nn.BatchNorm2d)) for m in quantized.modules())


def test_activations_stay_integers_from_layer_to_layer() -> None:
    hal.manual_seed(0)
    quantized = nn.quantize(NETS["signed"](), [_images()])
    seen: list[object] = []
    for module in quantized:
        module.register_forward_hook(lambda module, args, result: seen.append(result.dtype))
    with hal.no_grad():
        quantized(_images())
    assert seen == [hal.int8, hal.int8, hal.int8, hal.float32]


def test_the_model_stays_as_it_is() -> None:
    net = _normed().train()
    before = {name: x.numpy().copy() for name, x in net.state_dict().items()}
    nn.quantize(net, [_images()])
    assert net.training
    for name, x in net.state_dict().items():
        np.testing.assert_array_equal(x.numpy(), before[name])


def test_weights_of_zero_and_inputs_of_zero() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    nn.init.zeros_(net[0].weight)
    quantized = nn.quantize(net, [hal.zeros(4, 3)])
    want = net(hal.ones(1, 3)).detach().numpy()
    np.testing.assert_allclose(quantized(hal.ones(1, 3)).numpy(), want, atol=0.01)


def test_what_is_no_plain_layer_stays() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: hal.Tensor) -> hal.Tensor:
            return super().forward(input) * 2

    net = nn.Sequential(Doubled(3, 3), nn.Linear(3, 2), nn.LayerNorm(2))
    quantized = nn.quantize(net, [hal.randn(5, 3)])
    assert type(quantized[0]) is Doubled
    assert type(quantized[2]) is nn.LayerNorm
    reflected = nn.quantize(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), [hal.randn(1, 1, 5, 5)])
    assert type(reflected) is nn.Conv2d


def test_no_calibration_data_is_an_error() -> None:
    with pytest.raises(DataError, match="calibration data"):
        nn.quantize(nn.Linear(2, 2), [])
