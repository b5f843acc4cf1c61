"""Positions of a sequence: the waves of the paper, and rotations that leave only distances in products."""

import numpy as np
import pytest

import hal
import nn
from nn import functional as F


def test_the_waves_of_the_paper() -> None:
    table = F.sinusoidal_positions(50, 8).numpy()
    for position in (0, 1, 17, 49):
        for i in range(4):
            angle = position / 10000 ** (2 * i / 8)
            assert table[position, 2 * i] == pytest.approx(np.sin(angle), abs=1e-6)
            assert table[position, 2 * i + 1] == pytest.approx(np.cos(angle), abs=1e-6)


def test_sinusoidal_layer() -> None:
    layer = nn.SinusoidalPositions(6, max_length=9, dropout=0.5)
    assert list(layer.state_dict()) == []
    assert repr(layer) == "SinusoidalPositions(6, max_length=9, dropout=0.5)"
    x = hal.randn(2, 4, 6)
    np.testing.assert_allclose(layer.eval()(x).numpy(), x.numpy() + F.sinusoidal_positions(4, 6).numpy(), rtol=1e-6)
    assert (layer.train()(hal.ones(2, 9, 6)) == 0).any()
    assert layer.eval()(x.half()).dtype is hal.float16
    for wrong in (hal.zeros(2, 10, 6), hal.zeros(2, 4, 5), hal.zeros(6)):
        with pytest.raises(ValueError, match=r"an input \(..., time, 6\) of at most 9 steps, got shape"):
            layer(wrong)
    with pytest.raises(ValueError, match="an even number of features, got 5"):
        nn.SinusoidalPositions(5)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotations_leave_only_distances(interleaved: bool) -> None:
    rng = np.random.default_rng(0)
    q, k = (hal.tensor(rng.normal(size=(1, 8))) for _ in range(2))

    def product(i: int, j: int) -> float:
        turned = (F.rotary_positions(x, at, interleaved=interleaved) for x, at in ((q, i), (k, j)))
        a, b = turned
        return (a * b).sum().item()

    assert product(0, 0) == pytest.approx((q * k).sum().item())
    assert product(7, 3) == pytest.approx(product(104, 100))
    assert product(7, 3) != pytest.approx(product(7, 4))


def test_a_rotation_is_that_of_complex_numbers() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 5, 6))
    angles = np.arange(5)[:, None] / 10000 ** (np.arange(0, 6, 2) / 6)
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    want = np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)
    got = nn.RotaryPositions(6, interleaved=True)(hal.tensor(x))
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12)
    halves = np.concatenate([x[..., 0::2], x[..., 1::2]], axis=-1)
    got = nn.RotaryPositions(6)(hal.tensor(halves))
    np.testing.assert_allclose(got.numpy(), np.concatenate([turned.real, turned.imag], axis=-1), rtol=1e-12)


def test_a_sequence_can_be_continued() -> None:
    layer = nn.RotaryPositions(4)
    x = hal.randn(2, 6, 4)
    whole = layer(x).numpy()
    np.testing.assert_allclose(layer(x[:, 4:], offset=4).numpy(), whole[:, 4:], rtol=1e-5, atol=1e-6)
    assert repr(layer) == "RotaryPositions(4, base=10000.0, interleaved=False)"
    with pytest.raises(ValueError, match=r"an input \(..., time, 4\), got shape \(2, 3\)"):
        layer(hal.zeros(2, 3))
    with pytest.raises(ValueError, match="even number of features, got 3"):
        nn.RotaryPositions(3)


def test_gradients_turn_back() -> None:
    x = hal.randn(5, 4).requires_grad_()
    y = F.rotary_positions(x)
    y.backward(y.detach())
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), x.detach().numpy(), rtol=1e-4, atol=1e-5)
