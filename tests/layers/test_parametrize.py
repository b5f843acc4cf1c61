"""Parametrised weights beside torch's: names, printed form, values, gradients, and back to ordinary ones."""

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn
from nn.utils import parametrizations, parametrize

# fmt: off
NORMS: list[tuple[str, dict[str, Any], str, tuple[Any, ...], tuple[int, ...]]] = [
    ("weight_norm", {}, "Linear", (3, 4), (2, 3)),
    ("weight_norm", {"dim": None}, "Linear", (3, 4), (2, 3)),
    ("weight_norm", {"dim": 1}, "Conv2d", (3, 4, 2), (2, 3, 5, 5)),
    ("weight_norm", {"name": "bias"}, "Linear", (3, 4), (2, 3)),
    ("spectral_norm", {}, "Linear", (3, 4), (2, 3)),
    ("spectral_norm", {"n_power_iterations": 3}, "Conv2d", (3, 4, 2), (2, 3, 5, 5)),
    ("spectral_norm", {}, "ConvTranspose2d", (3, 4, 2), (2, 3, 5, 5)),
    ("spectral_norm", {"name": "bias"}, "Linear", (3, 4), (2, 3)),
]
# fmt: on


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("norm", "settings", "layer", "args", "shape"), NORMS, ids=str)
def test_norms(
    torch: ModuleType, parity: Callable[..., None], norm: str, settings: Any, layer: str, args: Any, shape: Any,
    training: bool,
) -> None:  # fmt: skip
    ours = getattr(parametrizations, norm)(getattr(nn, layer)(*args), **settings).train(training)
    apply = getattr(torch.nn.utils.parametrizations, norm)
    theirs = apply(getattr(torch.nn, layer)(*args), **settings).train(training)
    assert repr(ours) == repr(theirs)
    parity(ours, theirs, np.random.default_rng(0).normal(size=shape).astype(np.float32))


def test_weight_norm_leaves_the_weight_as_it_was() -> None:
    layer = nn.Linear(3, 4)
    before = layer.weight.detach().numpy().copy()
    parametrizations.weight_norm(layer)
    np.testing.assert_allclose(layer.weight.detach().numpy(), before, rtol=1e-6)
    layer.weight = hal.ones(4, 3)
    np.testing.assert_allclose(layer.weight.detach().numpy(), np.ones((4, 3)), rtol=1e-6)
    assert layer.parametrizations.weight.original0.tolist() == [[np.float32(3**0.5)]] * 4


def test_spectral_norm_makes_the_largest_singular_value_one() -> None:
    hal.manual_seed(0)
    layer = parametrizations.spectral_norm(nn.Linear(6, 4), n_power_iterations=20)
    assert np.linalg.svd(layer.weight.detach().numpy())[1][0] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("by", ["matrix_exp", "householder"])
@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (6, 4), (4, 6)])
@pytest.mark.parametrize("trivialization", [True, False])
def test_orthogonal(
    torch: ModuleType, parity: Callable[..., None], by: str, rows: int, columns: int, trivialization: bool
) -> None:
    kits = (parametrizations, nn), (torch.nn.utils.parametrizations, torch.nn)
    ours, theirs = (
        kit.orthogonal(layers.Linear(columns, rows), "weight", by, use_trivialization=trivialization)
        for kit, layers in kits
    )
    with torch.no_grad():  # away from the matrix that training begins with
        original = theirs.parametrizations.weight.original
        noise = np.random.default_rng(1).normal(size=(rows, columns)) * 0.2
        original.add_(torch.tensor(noise * (1 - np.eye(rows, columns))))  # the diagonal has signs alone
    parity(ours, theirs, np.random.default_rng(0).normal(size=(3, columns)).astype(np.float32))
    weight = ours.weight.detach().numpy()
    product = weight @ weight.T if rows < columns else weight.T @ weight
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 5), (6, 4), (2, 4, 6)], ids=str)
def test_an_orthogonal_weight_can_be_assigned(shape: tuple[int, ...]) -> None:
    layer = nn.Module()
    layer.weight = nn.Parameter(hal.randn(*shape))
    parametrizations.orthogonal(layer)
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(*shape[:-2], max(shape[-2:]), min(shape[-2:]))))
    value = (np.swapaxes(q, -1, -2) if shape[-2] < shape[-1] else q).astype(np.float32)
    layer.weight = hal.tensor(value)
    np.testing.assert_allclose(layer.weight.detach().numpy(), value, atol=1e-5)


def test_what_cannot_be_orthogonal_is_refused() -> None:
    with pytest.raises(hal.errors.SettingError, match="'cayley'"):
        parametrizations.orthogonal(nn.Linear(3, 3), orthogonal_map="cayley")
    with pytest.raises(hal.errors.ShapeError, match="two axes"):
        parametrizations.orthogonal(nn.Linear(3, 3), "bias")
    layer = parametrizations.orthogonal(nn.Linear(3, 3), use_trivialization=False)
    with pytest.raises(NotImplementedError, match="use_trivialization"):
        layer.weight = hal.eye(3)


class Symmetric(nn.Module):
    def forward(self, x: hal.Tensor) -> hal.Tensor:
        return x.triu() + x.triu(1).T


class Doubled(nn.Module):
    def forward(self, x: hal.Tensor) -> hal.Tensor:
        return 2 * x

    def right_inverse(self, x: hal.Tensor) -> hal.Tensor:
        return x / 2


def test_one_after_another_and_back() -> None:
    layer = nn.Linear(3, 3)
    original = layer.weight
    before = original.detach().numpy().copy()
    parametrize.register_parametrization(layer, "weight", Doubled())
    np.testing.assert_allclose(layer.weight.detach().numpy(), before, rtol=1e-6)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    assert layer.parametrizations.weight.original is original
    assert parametrize.is_parametrized(layer)
    assert parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    weight = layer.weight.detach().numpy()
    np.testing.assert_array_equal(weight, weight.T)

    parametrize.remove_parametrizations(layer, "weight")

    assert type(layer) is nn.Linear
    assert list(layer.state_dict()) == ["bias", "weight"]
    np.testing.assert_array_equal(layer.weight.detach().numpy(), weight)
    assert layer.weight is original


def test_the_original_can_be_left() -> None:
    layer = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Doubled())
    original = layer.parametrizations.weight.original.detach().numpy().copy()
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    np.testing.assert_array_equal(layer.weight.detach().numpy(), original)


def test_optimizers_train_the_original() -> None:
    hal.manual_seed(0)
    layer = parametrizations.weight_norm(nn.Linear(3, 1))
    optimizer = nn.optim.SGD(layer.parameters(), lr=0.05)
    x = hal.randn(20, 3)
    target = x.sum(dim=1, keepdim=True)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(layer(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


class Counted(nn.Module):
    calls = 0

    def forward(self, x: hal.Tensor) -> hal.Tensor:
        Counted.calls += 1
        return x * 1.0


def test_cached_computes_once() -> None:
    layer = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Counted())
    Counted.calls = 0
    with parametrize.cached():
        assert layer.weight is layer.weight
        layer(hal.ones(1, 2))
    assert Counted.calls == 1
    assert layer.weight is not layer.weight


def test_copies_files_and_devices() -> None:
    layer = parametrizations.weight_norm(nn.Linear(3, 2))
    copied = copy.deepcopy(layer).double()
    assert copied.weight.dtype is hal.float64
    other = parametrizations.weight_norm(nn.Linear(3, 2))
    other.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(other.weight.detach().numpy(), layer.weight.detach().numpy())
    assert nn.Linear(3, 2).weight is not None  # the class itself has not changed


class Smaller(nn.Module):
    def forward(self, x: hal.Tensor) -> hal.Tensor:
        return x[:1]


def made(part: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(nn.Linear(2, 2), "weight", part)


def normed() -> nn.Module:
    return parametrizations.weight_norm(nn.Linear(2, 2))


# fmt: off
ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: parametrize.register_parametrization(nn.Linear(2, 2), "wieght", Doubled()), TypeError,
     "Linear has no parameter or buffer 'wieght'"),
    (lambda: made(Smaller()), ValueError, r"to keep Spec\(\(2, 2\)"),
    (lambda: parametrize.remove_parametrizations(nn.Linear(2, 2), "weight"), TypeError, "no parametrised tensor 'w"),
    (lambda: parametrize.remove_parametrizations(normed(), "weight", False), TypeError, "made of 2 tensors"),
    (lambda: setattr(made(Symmetric()), "weight", hal.ones(2, 2)), TypeError, "Symmetric has no right_inverse"),
    (lambda: parametrizations.spectral_norm(nn.Linear(2, 2), "w"), TypeError, "Linear has no parameter or buffer 'w'"),
    (lambda: parametrizations.spectral_norm(nn.Linear(2, 2), n_power_iterations=0), TypeError, "of 1 or more, got 0"),
]
# fmt: on


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2][:24] for e in ERRORS])
def test_error(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_refused_parametrisation_changes_nothing() -> None:
    layer = nn.Linear(2, 2)
    before = layer.weight
    with pytest.raises(ValueError, match="keep"):
        parametrize.register_parametrization(layer, "weight", Smaller())
    assert type(layer) is nn.Linear
    assert layer.weight is before
