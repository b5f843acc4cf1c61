"""Layers, losses and optimizers on whole devices: right, by the cases of the conformance suite, and none elsewhere."""

import pytest

import hal
import nn
from hal.testing.case import Case
from nn.conformance import nn_cases

CASES = list(nn_cases(hal.device("cpu")))
WHOLE = ["cpu", "systolic", pytest.param("opencl", marks=pytest.mark.slow)]  # backends that need no other


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_right_and_without_fallback(name: str, case: Case) -> None:
    if not hal.device_count(name):
        pytest.skip(f"there is no {name} device")
    outcome = case.run(hal.device(name))
    assert outcome.status == "native", outcome.detail or outcome.reason


@pytest.mark.parametrize("padding_idx", [None, 1])
def test_embedding(each_device: hal.Device, padding_idx: int | None) -> None:
    layer = nn.Embedding(4, 3, padding_idx=padding_idx)
    layer(hal.tensor([[0, 1], [1, 3]])).sum().backward()
    assert layer.weight.grad.device == each_device
    assert layer.weight.grad.sum(dim=1).tolist() == [3, 0 if padding_idx == 1 else 6, 0, 3]


def test_what_is_drawn_is_drawn_on_the_device(each_device: hal.Device) -> None:
    drawn = []
    for device in (each_device, hal.device("cpu")):
        with device:
            hal.manual_seed(7)
            weight = nn.init.orthogonal_(hal.empty(3, 3))
            drawn += [weight, nn.Dropout2d(0.4)(hal.ones(2, 4, 3, 3)), nn.functional.gumbel_softmax(hal.zeros(2, 3))]
    for got, want in zip(drawn[:3], drawn[3:], strict=True):
        assert got.device is each_device
        assert hal.allclose(got.cpu(), want.cpu(), atol=1e-5)
