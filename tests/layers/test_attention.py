"""Attention with several heads beside torch's, with its masks, extra keys and weights."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn

RNG = np.random.default_rng(0)
N, TARGETS, SOURCES, E = 2, 3, 5, 8


def draw(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


SELF, Q, K = draw(TARGETS, N, E), draw(TARGETS, N, E), draw(SOURCES, N, E)
PADDING = np.array([[False] * 5, [False, False, True, True, False]])
MASK = np.triu(np.ones((TARGETS, SOURCES), bool), 2)
SETTINGS: list[dict[str, Any]] = [{}, {"bias": False}, {"add_bias_kv": True}, {"add_zero_attn": True}]
CALLS: list[dict[str, Any]] = [
    {},
    {"need_weights": False},
    {"average_attn_weights": False},
    {"key_padding_mask": PADDING},
    {"attn_mask": MASK},
    {"attn_mask": draw(TARGETS, SOURCES)},
    {"attn_mask": draw(N * 2, TARGETS, SOURCES), "key_padding_mask": PADDING, "need_weights": False},
]


@pytest.mark.filterwarnings("ignore:Support for mismatched:UserWarning")
@pytest.mark.parametrize("given", CALLS, ids=lambda c: "+".join(c) or "plain")
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "+".join(s) or "plain")
def test_attention(torch: ModuleType, settings: dict[str, Any], given: dict[str, Any]) -> None:
    ours, theirs = nn.MultiheadAttention(E, 2, **settings), torch.nn.MultiheadAttention(E, 2, **settings)
    assert repr(ours) == repr(theirs)
    ours.load_state_dict(theirs.state_dict())

    def call(layer: Any, make: Callable[..., Any]) -> tuple[Any, Any, list[Any]]:
        x, y = make(Q), make(K)
        x.requires_grad = y.requires_grad = True
        out, weights = layer(x, y, y, **{k: make(v) if isinstance(v, np.ndarray) else v for k, v in given.items()})
        (out * out).sum().backward()
        return out, weights, [x.grad, y.grad, *(p.grad for p in layer.parameters())]

    got, got_weights, got_grads = call(ours, hal.tensor)
    want, want_weights, want_grads = call(theirs, torch.tensor)

    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert (got_weights is None) == (want_weights is None)
    if got_weights is not None:
        np.testing.assert_allclose(got_weights.detach().numpy(), want_weights.detach().numpy(), rtol=1e-4, atol=1e-6)
    for a, b in zip(got_grads, want_grads, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"batch_first": True}, {"kdim": 6, "vdim": 4}], ids=str)
def test_layouts_and_sizes(torch: ModuleType, settings: dict[str, Any]) -> None:
    ours, theirs = nn.MultiheadAttention(E, 4, **settings), torch.nn.MultiheadAttention(E, 4, **settings)
    ours.load_state_dict(theirs.state_dict())
    axes = (1, 0, 2) if settings.get("batch_first") else (0, 1, 2)
    inputs = [Q, draw(SOURCES, N, settings.get("kdim", E)), draw(SOURCES, N, settings.get("vdim", E))]
    inputs = [np.ascontiguousarray(x.transpose(axes)) for x in inputs]
    for xs in (inputs, [x[:, 0] for x in inputs]):  # and without a batch
        got, weights = ours(*map(hal.tensor, xs))
        want, want_weights = theirs(*map(torch.tensor, xs))
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(weights.detach().numpy(), want_weights.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_dropout_only_in_training() -> None:
    layer = nn.MultiheadAttention(E, 2, dropout=0.5)
    x = hal.tensor(SELF)
    assert layer(x, x, x)[0].tolist() != layer(x, x, x)[0].tolist()
    layer.eval()
    assert layer(x, x, x)[0].tolist() == layer(x, x, x)[0].tolist()


def test_errors() -> None:
    layer, x = nn.MultiheadAttention(E, 2), hal.tensor(SELF)
    with pytest.raises(ValueError, match="three inputs of 2 or 3 axes"):
        layer(x, x[0], x)
    with pytest.raises(TypeError, match="needs the mask as well"):
        layer(x, x, x, is_causal=True)
