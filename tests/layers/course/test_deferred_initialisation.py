"""A course's programs on deferred initialisation: layers that learn their input's size from the first batch."""

import pytest

import hal
import nn

pytestmark = pytest.mark.usefixtures("each_device")


def test_shapes_are_known_after_the_first_batch() -> None:
    net = nn.Sequential(nn.LazyLinear(256), nn.ReLU(), nn.LazyLinear(10))
    assert repr(net[0].weight) == "<UninitializedParameter>"
    with pytest.raises(RuntimeError, match="no shape yet"):
        print(net[0].weight.shape)
    net(hal.rand(2, 20))
    assert net[0].weight.shape == (256, 20)
    assert net[2].weight.shape == (10, 256)
    assert "(0): Linear(in_features=20, out_features=256, bias=True)" in str(net)


def test_weights_are_initialised_after_a_dry_run() -> None:
    def init_cnn(module: nn.Module) -> None:
        if type(module) in (nn.Linear, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)

    net = nn.Sequential(nn.LazyConv2d(6, kernel_size=5, padding=2), nn.Sigmoid(), nn.Flatten(), nn.LazyLinear(10))
    net.forward(hal.randn(1, 1, 8, 8))
    net.apply(init_cnn)
    assert 0 < net[3].weight.data.abs().max() < (6 / (384 + 10)) ** 0.5


def test_a_lazy_network_trains() -> None:
    hal.manual_seed(0)
    net = nn.Sequential(nn.LazyLinear(16), nn.Tanh(), nn.LazyLinear(1))
    X = hal.randn(64, 5)
    y = (X[:, :1] * 2 - X[:, 1:2]).tanh()
    net(X[:1])
    trainer, loss = nn.optim.Adam(net.parameters(), lr=0.03), nn.MSELoss()
    begin = loss(net(X), y).item()
    for _ in range(40):
        trainer.zero_grad()
        loss(net(X), y).backward()
        trainer.step()
    assert loss(net(X), y).item() < begin / 10
