"""Layers give the same numbers on every device: one of each kind, forward and backward, beside the CPU."""

from collections.abc import Callable

import numpy as np
import pytest

import hal
import nn

IMAGE, SIGNAL = (2, 4, 6, 5), (2, 4, 7)

# fmt: off
LAYERS: list[tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = [
    ("linear", lambda: nn.Linear(5, 3), (2, 5)),
    ("conv1d", lambda: nn.Conv1d(4, 3, 3, padding=1), SIGNAL),
    ("conv2d", lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), IMAGE),
    ("conv_transpose2d", lambda: nn.ConvTranspose2d(4, 2, 3, stride=2), IMAGE),
    ("max_pool2d", lambda: nn.MaxPool2d(2), IMAGE),
    ("avg_pool2d", lambda: nn.AvgPool2d(3, 2, 1), IMAGE),
    ("adaptive_avg_pool2d", lambda: nn.AdaptiveAvgPool2d((2, 3)), IMAGE),
    ("adaptive_max_pool2d", lambda: nn.AdaptiveMaxPool2d((2, 3)), IMAGE),
    ("batch_norm", lambda: nn.BatchNorm2d(4), IMAGE),
    ("layer_norm", lambda: nn.LayerNorm((6, 5)), IMAGE),
    ("group_norm", lambda: nn.GroupNorm(2, 4), IMAGE),
    ("instance_norm", lambda: nn.InstanceNorm2d(4, affine=True), IMAGE),
    ("rms_norm", lambda: nn.RMSNorm(5), IMAGE),
    ("local_response_norm", lambda: nn.LocalResponseNorm(3), IMAGE),
    ("activations", lambda: nn.Sequential(nn.GELU(), nn.SiLU(), nn.ELU(), nn.Softplus(), nn.Tanh()), SIGNAL),
    ("prelu", lambda: nn.PReLU(4), SIGNAL),
    ("in place", lambda: nn.Sequential(nn.Linear(7, 7), nn.ReLU(inplace=True), nn.LeakyReLU(inplace=True)), SIGNAL),
    ("softmax", lambda: nn.Sequential(nn.Softmax(1), nn.LogSoftmax(-1)), SIGNAL),
    ("dropout", lambda: nn.Dropout(0.4), IMAGE),
    ("dropout2d", lambda: nn.Dropout2d(0.4), IMAGE),
    ("padding", lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.CircularPad2d(2), nn.ZeroPad2d(1)), IMAGE),
    ("unfold", lambda: nn.Sequential(nn.Unfold(2, stride=2), nn.Fold((6, 4), 2, stride=2)), (2, 4, 6, 4)),
    ("upsample", lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Upsample((5, 7), mode="bicubic")), IMAGE),
    ("lp_pool2d", lambda: nn.LPPool2d(2, 2), IMAGE),
    ("spectral_norm", lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 3, 2)), IMAGE),
    ("positions", lambda: nn.Sequential(nn.SinusoidalPositions(6), nn.RotaryPositions(6)), (2, 5, 6)),
    ("lstm", lambda: nn.LSTM(4, 3, bidirectional=True), (3, 2, 4)),
    ("gru", lambda: nn.GRU(4, 3), (3, 2, 4)),
    ("rnn", lambda: nn.RNN(4, 3), (3, 2, 4)),
    ("lazy", lambda: nn.Sequential(nn.LazyConv2d(3, 2), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2)), IMAGE),
]
# fmt: on


@pytest.mark.parametrize(("build", "shape"), [r[1:] for r in LAYERS], ids=[r[0] for r in LAYERS])
def test_layer(each_device: hal.Device, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def run(device: hal.Device) -> list[hal.Tensor]:
        with device:
            hal.manual_seed(7)
            layer = build()
            inputs = hal.tensor(x, requires_grad=True)
            out = layer(inputs)
            out = out[0] if isinstance(out, tuple) else out
            assert out.device == device
            (out * out).sum().backward()
            return [out.detach(), inputs.grad, *(p.grad for p in layer.parameters()), *layer.buffers()]

    for got, want in zip(run(each_device), run(hal.device("cpu")), strict=True):
        assert got.device == each_device
        scale = max(1.0, want.float().abs().max().item())
        np.testing.assert_allclose(got.cpu().numpy(), want.numpy(), rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("padding_idx", [None, 1])
def test_embedding(each_device: hal.Device, padding_idx: int | None) -> None:
    layer = nn.Embedding(4, 3, padding_idx=padding_idx)
    layer(hal.tensor([[0, 1], [1, 3]])).sum().backward()
    assert layer.weight.grad.device == each_device
    assert layer.weight.grad.sum(dim=1).tolist() == [3, 0 if padding_idx == 1 else 6, 0, 3]


def test_attention(each_device: hal.Device) -> None:
    hal.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2)
    x = hal.randn(3, 2, 8)
    out, weights = layer(x, x, x)
    twin = layer.cpu()
    want, want_weights = twin(x.cpu(), x.cpu(), x.cpu())
    assert hal.allclose(out.cpu(), want, atol=1e-5)
    assert hal.allclose(weights.cpu(), want_weights, atol=1e-5)
