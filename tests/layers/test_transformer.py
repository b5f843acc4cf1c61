"""Transformers beside torch's: keys, results and gradients, with norms before and after, masks and stacks."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")

RNG = np.random.default_rng(0)
SOURCE, TARGET = (RNG.normal(size=(n, 2, 8)).astype(np.float32) for n in (5, 3))
SETTINGS: list[dict[str, Any]] = [
    {},
    {"norm_first": True},
    {"activation": "gelu", "bias": False},
    {"batch_first": True, "layer_norm_eps": 1e-3},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "+".join(s) or "plain")
def test_encoder_layer(torch: ModuleType, parity: Callable[..., None], settings: dict[str, Any]) -> None:
    ours = nn.TransformerEncoderLayer(8, 2, 16, 0.0, **settings)
    theirs = torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0, **settings)
    assert repr(ours) == repr(theirs)
    parity(ours, theirs, SOURCE, tolerance=1e-4)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "+".join(s) or "plain")
def test_decoder_layer(torch: ModuleType, parity: Callable[..., None], settings: dict[str, Any]) -> None:
    ours = nn.TransformerDecoderLayer(8, 2, 16, 0.0, **settings)
    theirs = torch.nn.TransformerDecoderLayer(8, 2, 16, 0.0, **settings)
    assert repr(ours) == repr(theirs)
    memory = SOURCE.transpose(1, 0, 2) if settings.get("batch_first") else SOURCE
    target = TARGET.transpose(1, 0, 2) if settings.get("batch_first") else TARGET
    parity(ours, theirs, target.copy(), memory.copy(), tolerance=1e-4)


def test_whole_transformer_with_masks(torch: ModuleType) -> None:
    def build(nn: Any) -> Any:
        return nn.Transformer(8, 2, 2, 2, 16, 0.0)

    ours, theirs = build(nn), build(torch.nn)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    ours.load_state_dict(theirs.state_dict())
    padding = np.array([[False] * 5, [False, False, False, True, True]])

    def call(net: Any, make: Callable[..., Any]) -> Any:
        mask = net.generate_square_subsequent_mask(3)
        given = {"src_key_padding_mask": make(padding), "memory_key_padding_mask": make(padding)}
        return net(make(SOURCE), make(TARGET), tgt_mask=mask, tgt_is_causal=True, **given), mask

    (got, mask), (want, want_mask) = call(ours, hal.tensor), call(theirs, torch.tensor)

    np.testing.assert_array_equal(mask.numpy(), want_mask.numpy())
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-4, atol=1e-5)
    got.sum().backward()
    assert all(p.grad is not None for p in ours.parameters())


@pytest.mark.parametrize("norm", [False, True])
def test_stacks(torch: ModuleType, parity: Callable[..., None], norm: bool) -> None:
    def build(kit: Any) -> tuple[Any, Any]:
        last = (kit.LayerNorm(8),) if norm else ()
        encoder = kit.TransformerEncoder(kit.TransformerEncoderLayer(8, 2, 16, 0.0), 2, *last)
        return encoder, kit.TransformerDecoder(kit.TransformerDecoderLayer(8, 2, 16, 0.0), 2, *last)

    (encoder, decoder), (encoder_there, decoder_there) = build(nn), build(torch.nn)
    parity(encoder, encoder_there, SOURCE, tolerance=1e-4)
    parity(decoder, decoder_there, TARGET, SOURCE, tolerance=1e-4)


def test_layers_of_a_stack_are_copies() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    stack = nn.TransformerEncoder(layer, 3, nn.LayerNorm(8))
    assert len({id(p) for p in stack.parameters()}) == 3 * 12 + 2
    assert stack.layers[0].linear1.weight.tolist() == stack.layers[2].linear1.weight.tolist()
    assert stack.layers[0].linear1.weight is not layer.linear1.weight


def test_a_causal_mask_hides_the_future() -> None:
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2).eval()
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    changed = SOURCE.copy()
    changed[3:] += 1
    before, after = (net(hal.tensor(x), mask=mask).detach().numpy() for x in (SOURCE, changed))
    np.testing.assert_allclose(before[:3], after[:3], atol=1e-5)
    assert abs(before[3:] - after[3:]).max() > 1e-3


def test_errors() -> None:
    with pytest.raises(TypeError, match="'relu', 'gelu' or a function, got 'swish'"):
        nn.TransformerEncoderLayer(8, 2, activation="swish")
    with pytest.raises(ValueError, match="inputs of 8 features"):
        nn.Transformer(8, 2, 1, 1, 16)(hal.zeros(3, 2, 8), hal.zeros(3, 2, 4))
