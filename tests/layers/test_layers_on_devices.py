"""Layers, losses and optimizers on whole devices: right, by the cases of the conformance suite, and none elsewhere."""

from collections.abc import Callable

import pytest

import hal
import nn
from hal.testing.case import Case
from nn.conformance import nn_cases

CASES = list(nn_cases(hal.device("cpu")))
WHOLE = [
    "cpu",
    "systolic",
    pytest.param("opencl", marks=[pytest.mark.slow, pytest.mark.device("opencl")]),
]  # backends that need no other


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_right_and_without_fallback(name: str, case: Case) -> None:
    outcome = case.run(hal.device(name))
    assert outcome.status == "native", outcome.detail or outcome.reason


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LeNet5": (nn.models.LeNet5, (2, 1, 28, 28)),
    "TutorialCNN": (lambda: nn.models.TutorialCNN(size=24), (2, 3, 24, 24)),
    "MobileNetV2": (lambda: nn.models.mobilenet_v2(num_classes=4), (2, 3, 32, 32)),
    "VisionTransformer": (lambda: nn.models.VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=4), (1, 3, 16, 16)),
    "GPT": (lambda: nn.models.GPT(11, 8, 1, 2, 8), (2, 6)),
    "LSTMLanguageModel": (lambda: nn.models.LSTMLanguageModel(11, 8, 8, 1), (2, 6)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("model", MODELS)
def test_a_step_of_a_model_stays_on_the_device(name: str, model: str) -> None:
    build, shape = MODELS[model]
    with hal.device(name), hal.fallback("error"), hal.placement_report() as report:
        hal.manual_seed(0)
        net = build()
        optimizer = nn.optim.AdamW(net.parameters())
        out = net(hal.randint(0, 11, shape) if len(shape) == 2 else hal.randn(*shape))
        out = out[0] if isinstance(out, tuple) else out
        (out * out).mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    assert not report.fallbacks
    assert all(p.device is hal.device(name) for p in net.parameters())


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
