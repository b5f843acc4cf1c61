"""A course's programs on files: tensors, lists and dictionaries of them, and the parameters of a network."""

from pathlib import Path

import pytest

import hal
import nn
from nn import functional as F


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.LazyLinear(32)
        self.output = nn.LazyLinear(10)

    def forward(self, x: hal.Tensor) -> hal.Tensor:
        return self.output(F.relu(self.hidden(x)))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each_device: hal.Device) -> None:
    monkeypatch.chdir(tmp_path)


def test_tensors_lists_and_dictionaries() -> None:
    x, y = hal.arange(4), hal.zeros(4)
    hal.save(x, "x-file")
    assert hal.load("x-file").tolist() == [0, 1, 2, 3]
    hal.save([x, y], "x-files")
    x2, y2 = hal.load("x-files")
    assert (x2.tolist(), y2.tolist()) == ([0, 1, 2, 3], [0, 0, 0, 0])
    hal.save({"x": x, "y": y}, "mydict")
    loaded = hal.load("mydict")
    assert list(loaded) == ["x", "y"]
    assert loaded["x"].dtype is hal.int64


def test_parameters_of_a_network() -> None:
    net = MLP()
    X = hal.randn(size=(2, 20))
    Y = net(X)
    hal.save(net.state_dict(), "mlp.params")
    clone = MLP()
    clone.load_state_dict(hal.load("mlp.params"))
    assert clone.eval() is clone
    assert (clone(X) == Y).all()


def test_a_run_goes_on_where_it_stopped() -> None:
    def parts() -> tuple[nn.Module, nn.optim.Optimizer]:
        net = nn.Linear(3, 1)
        return net, nn.optim.Adam(net.parameters(), lr=0.1)

    def step(net: nn.Module, trainer: nn.optim.Optimizer) -> None:
        trainer.zero_grad()
        (net(hal.ones(2, 3)) ** 2).sum().backward()
        trainer.step()

    net, trainer = parts()
    step(net, trainer)
    hal.save({"net": net.state_dict(), "trainer": trainer.state_dict()}, "checkpoint")
    step(net, trainer)
    again, trainer_again = parts()
    saved = hal.load("checkpoint")
    again.load_state_dict(saved["net"])
    trainer_again.load_state_dict(saved["trainer"])
    step(again, trainer_again)
    assert again.weight.tolist() == net.weight.tolist()
