"""Sequences of different lengths beside torch's: packed, padded, and through recurrent layers in both directions."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn
from nn.utils import rnn

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")

SORTED, MIXED = [5, 3, 3, 1], [3, 1, 5, 3]
X = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)


def both(torch: ModuleType) -> list[tuple[Any, Any, Any]]:
    return [(hal, nn, rnn), (torch, torch.nn, torch.nn.utils.rnn)]


def numbers(values: Any) -> Any:
    """Tensors, and tuples of them, as arrays."""
    if isinstance(values, (tuple, list)):
        return [numbers(v) for v in values]
    return None if values is None else np.asarray(values.detach().numpy())


def same(ours: Any, theirs: Any) -> None:
    a, b = numbers(ours), numbers(theirs)
    if isinstance(b, list):
        assert len(a) == len(b)
        for x, y in zip(ours, theirs, strict=True):
            same(x, y)
        return
    assert (a is None) == (b is None)
    if b is not None:
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [SORTED, MIXED], ids=["sorted", "mixed"])
def test_packing_and_padding(torch: ModuleType, lengths: list[int], batch_first: bool) -> None:
    x = X.swapaxes(0, 1).copy() if batch_first else X
    packs, padded = [], []
    for library, _, tools in both(torch):
        pack = tools.pack_padded_sequence(
            library.tensor(x), library.tensor(lengths), batch_first, enforce_sorted=lengths == SORTED
        )
        packs.append(pack)
        padded.append(tools.pad_packed_sequence(pack, batch_first, padding_value=7.0, total_length=6))
    same(packs[0], packs[1])
    same(padded[0], padded[1])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_lists_of_sequences(torch: ModuleType, batch_first: bool, side: str) -> None:
    results = []
    for library, _, tools in both(torch):
        given = [library.tensor(X[:n, i]) for i, n in enumerate(MIXED)]
        padded = tools.pad_sequence(given, batch_first, 2.0, side)
        packed = tools.pack_sequence(given, enforce_sorted=False)
        results.append((padded, packed, tools.unpack_sequence(packed)))
        if side == "right":
            results[-1] += (
                tools.unpad_sequence(padded * 1, library.tensor(MIXED), batch_first),
            )  # torch transposes it
    same(results[0], results[1])


LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {"nonlinearity": "relu"}),
    ("GRU", {"bidirectional": True}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": 2}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
]


@pytest.mark.parametrize("begin", [False, True])
@pytest.mark.parametrize("lengths", [SORTED, MIXED], ids=["sorted", "mixed"])
@pytest.mark.parametrize(("name", "settings"), LAYERS, ids=str)
def test_recurrent_layers(
    torch: ModuleType, name: str, settings: dict[str, Any], lengths: list[int], begin: bool
) -> None:
    theirs = getattr(torch.nn, name)(3, 4, **settings)
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    runs = settings.get("num_layers", 1) * (2 if settings.get("bidirectional") else 1)
    sizes = settings.get("proj_size", 4), 4
    first = [np.random.default_rng(n).normal(size=(runs, 4, n)).astype(np.float32) for n in sizes]
    results = []
    for library, kit, tools in both(torch):
        layer = theirs
        if kit is nn:
            layer = getattr(nn, name)(3, 4, **settings)
            layer.load_state_dict(state)
        x = library.tensor(X, requires_grad=True)
        pack = tools.pack_padded_sequence(x, lengths, enforce_sorted=lengths == SORTED)
        given: tuple[Any, ...] = ()
        if begin:
            h, c = library.tensor(first[0]), library.tensor(first[1])
            given = ((h, c),) if name == "LSTM" else (h,)
        out, last = layer(pack, *given)
        ends = last if isinstance(last, tuple) else (last,)
        (sum((e * e).sum() for e in ends) + (out.data * out.data).sum()).backward()
        results.append((out, last, x.grad, [p.grad for p in layer.parameters()]))
    (o, l1, gx, gp), (p, l2, hx, hp) = results
    same(o, p)
    same(l1, l2)
    np.testing.assert_allclose(gx.numpy(), hx.numpy(), rtol=1e-4, atol=1e-5)
    for a, b in zip(gp, hp, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


def test_a_packed_sequence_moves() -> None:
    pack = rnn.pack_padded_sequence(hal.tensor(X), MIXED, enforce_sorted=False).to(hal.float64)
    assert pack.data.dtype is hal.float64
    assert pack.batch_sizes.tolist() == [4, 3, 3, 1, 1]
    assert rnn.invert_permutation(pack.sorted_indices).tolist() == pack.unsorted_indices.tolist()


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: rnn.pack_padded_sequence(hal.tensor(X), MIXED), ValueError, r"do not rise, got \[3, 1, 5, 3\]: sort"),
    (lambda: rnn.pack_padded_sequence(hal.tensor(X), [5, 1]), ValueError, r"needs 4 lengths from 1 to 5, got \[5, 1\]"),
    (lambda: rnn.pack_padded_sequence(hal.tensor(X), [6, 1, 1, 1]), ValueError, "from 1 to 5"),
    (lambda: rnn.pad_sequence([hal.zeros(2, 3), hal.zeros(2, 4)]), ValueError, r"axis 0 only, got \(2, 3\), \(2, 4\)"),
    (lambda: rnn.pad_sequence([]), ValueError, "got none"),
    (lambda: rnn.pad_sequence([hal.zeros(2)], padding_side="top"), TypeError, "'right' or 'left', got 'top'"),
    (
        lambda: rnn.pad_packed_sequence(rnn.pack_sequence([hal.zeros(3)]), total_length=2),
        ValueError,
        "total_length= of 3 or more, got 2",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2][:24] for e in ERRORS])
def test_error(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_permutation_is_inverted(torch: ModuleType) -> None:
    order = [2, 0, 3, 1]
    assert rnn.invert_permutation(None) is None
    want = torch.nn.utils.rnn.invert_permutation(torch.tensor(order))
    assert rnn.invert_permutation(hal.tensor(order)).tolist() == want.tolist()
