"""A course's programs on devices: counting them, falling back to the CPU, tensors and networks on them."""

import pytest

import hal
import nn


def try_gpu(kind: str, i: int = 0) -> hal.Device:
    """Device number i of this kind if it is there, else the CPU."""
    return hal.device(f"{kind}:{i}") if hal.device_count(kind) >= i + 1 else hal.device("cpu")


def try_all_gpus(kind: str) -> list[hal.Device]:
    """All devices of this kind, or the CPU."""
    return [hal.device(f"{kind}:{i}") for i in range(hal.device_count(kind))] or [hal.device("cpu")]


def test_a_device_is_a_value() -> None:
    assert hal.device("cpu") == hal.device("cpu")
    assert str(hal.device("cpu")) == "cpu"
    assert hal.device("cpu").type == "cpu"
    assert len({hal.device("cpu"), hal.device("cpu")}) == 1


def test_what_is_not_there_is_the_cpu(each_device: hal.Device) -> None:
    assert try_gpu(each_device.type).type == each_device.type
    assert try_gpu(each_device.type, 10) == hal.device("cpu")
    assert len(try_all_gpus(each_device.type)) == hal.device_count(each_device.type)
    with pytest.raises(RuntimeError, match="nonesuch"):
        hal.device("nonesuch")


def test_tensors_and_their_devices(each_device: hal.Device) -> None:
    x = hal.tensor([1, 2, 3])
    assert x.device == each_device
    X = hal.ones(2, 3, device=try_gpu(each_device.type))
    Y = hal.rand(2, 3, device=try_gpu(each_device.type, 10))
    assert Y.device == hal.device("cpu")
    Z = Y.to(each_device)
    assert (X + Z).device == each_device
    assert Z.to(each_device) is Z
    assert hal.allclose((X + Z).cpu(), Y + 1)


def test_a_network_lives_on_a_device(each_device: hal.Device) -> None:
    net = nn.Sequential(nn.Linear(3, 1))
    net = net.to(device=try_gpu(each_device.type))
    X = hal.ones(2, 3, device=each_device)
    assert net(X).device == each_device
    assert net[0].weight.data.device == each_device
    net.to("cpu")
    assert net[0].weight.device == hal.device("cpu")
    assert hal.allclose(net(X.cpu()), net.to(each_device)(X).cpu(), atol=1e-6)


def test_a_step_of_training_on_a_device(each_device: hal.Device) -> None:
    device = try_gpu(each_device.type)
    net = nn.Linear(3, 1).to(device)
    trainer = nn.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    X, y = hal.rand(8, 3).to(device), hal.rand(8, 1).to(device)
    losses = []
    for _ in range(5):
        loss = nn.functional.mse_loss(net(X), y)
        trainer.zero_grad()
        loss.backward()
        trainer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert net.weight.grad.device == device
    assert trainer.state[net.weight]["momentum_buffer"].device == device
