"""One network on several devices gives the results and gradients of one device."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import hal
import nn
from hal.errors import SettingError, ShapeError
from hal.testing.fake import Fake


@pytest.fixture
def several() -> Iterator[list[str]]:
    with Fake("many", count=3).registered():
        yield ["cpu", "many:0", "many:2"]


class Net(nn.Module):
    """A tied weight, running statistics, results of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.twin = nn.Linear(4, 4)
        self.twin.weight = self.first.weight
        self.calls: list[Any] = []

    def forward(self, x: hal.Tensor, scale: hal.Tensor | None = None, **named: Any) -> dict[str, Any]:
        self.calls.append((x.device, x.shape, self.norm.training))
        y = self.twin(hal.tanh(self.norm(self.first(x))))
        y = y if scale is None else y * scale
        return {"y": y, "pair": (y.sum(dim=1), y.mean()), "name": "net", **named}


def test_results_and_gradients_are_those_of_one_device(several: list[str]) -> None:
    hal.manual_seed(0)
    net, alone = Net().eval(), Net().eval()
    alone.load_state_dict(net.state_dict())
    parallel = nn.DataParallel(net, several)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    a, b = hal.tensor(x, requires_grad=True), hal.tensor(x, requires_grad=True)

    got, want = parallel(a, scale=hal.tensor(2.0)), alone(b, scale=hal.tensor(2.0))

    assert net.calls == [(hal.device(d), (n, 4), False) for d, n in zip(several, (3, 3, 2), strict=True)]
    assert got["name"] == "net"
    assert got["y"].device is hal.device("cpu")
    np.testing.assert_allclose(got["y"].detach().numpy(), want["y"].detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got["pair"][0].detach().numpy(), want["pair"][0].detach().numpy(), rtol=1e-5, atol=1e-6)
    assert got["pair"][1].shape == (3,)
    for result in (got, want):
        (result["y"] ** 2).mean().backward()
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-5, atol=1e-6)
    for (name, p), q in zip(net.named_parameters(), alone.parameters(), strict=True):
        assert p.device is hal.device("cpu"), name
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_the_first_device_keeps_the_statistics(several: list[str]) -> None:
    net, alone = Net(), Net()
    alone.load_state_dict(net.state_dict())
    parallel = nn.DataParallel(net, several)
    x = hal.randn(6, 4)
    parallel(x)
    alone(x[:2])
    assert [training for _, _, training in net.calls] == [True] * 3
    np.testing.assert_allclose(net.norm.running_mean.numpy(), alone.norm.running_mean.numpy(), rtol=1e-6)
    assert net.norm.num_batches_tracked.item() == 1
    assert list(parallel.state_dict()) == [f"module.{name}" for name in net.state_dict()]
    assert [name for name, _ in parallel.named_modules()] == [
        "",
        *(f"module{'.' * bool(n)}{n}" for n, _ in net.named_modules()),
    ]


def test_devices(several: list[str]) -> None:
    with hal.device("many:1"):
        parallel = nn.DataParallel(nn.Linear(2, 3), output_device="cpu")
    assert [str(device) for device in parallel.devices] == ["many:0", "many:1", "many:2"]
    assert parallel.module.weight.device is hal.device("many:0")
    out = parallel(hal.randn(2, 2, device="cpu"))  # two rows: one device has nothing to do
    assert (out.device, out.shape) == (hal.device("cpu"), (2, 3))
    with pytest.raises(SettingError, match="each once"):
        nn.DataParallel(nn.Linear(2, 3), ["cpu", "cpu"])
    with pytest.raises(ShapeError, match="a tensor to cut"):
        nn.DataParallel(nn.Linear(2, 3), ["cpu"])(3)
