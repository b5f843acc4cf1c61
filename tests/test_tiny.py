"""The whole stack in a second: a network learns what no line can separate, on each kind of device."""

import hal
import nn
from nn import functional as F
from nn import optim


def test_a_network_learns_exclusive_or(each_device: hal.Device) -> None:
    hal.manual_seed(0)
    x = hal.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = hal.tensor([0, 1, 1, 0])
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = optim.Adam(net.parameters(), lr=0.1)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert net(x).device == each_device
    assert net(x).argmax(dim=1).tolist() == [0, 1, 1, 0]
    assert losses[0] > 0.5 > 0.1 > losses[-1]
