"""Losses beside torch's, as layers and as functions, with every reduction."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hal
import nn
from nn import functional as F

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5)).astype(np.float32)
Y = RNG.normal(size=(4, 5)).astype(np.float32)
PROBABILITIES = RNG.uniform(0.05, 0.95, (4, 5)).astype(np.float32)
CLASSES = np.array([1, 0, 4, 2])
MAPS, MAP_CLASSES = RNG.normal(size=(2, 5, 3, 4)).astype(np.float32), RNG.integers(0, 5, (2, 3, 4))
WEIGHT = RNG.uniform(0.5, 2, 5).astype(np.float32)
SOFT = (PROBABILITIES / PROBABILITIES.sum(1, keepdims=True)).astype(np.float32)

# fmt: off
LOSSES: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
    ("MSELoss", {}, (X, Y)),
    ("L1Loss", {}, (X, Y)),
    ("SmoothL1Loss", {}, (X, Y)),
    ("SmoothL1Loss", {"beta": 0.3}, (X, Y)),
    ("HuberLoss", {"delta": 0.7}, (X, Y)),
    ("BCELoss", {}, (PROBABILITIES, SOFT)),
    ("BCELoss", {"weight": WEIGHT}, (PROBABILITIES, SOFT)),
    ("BCEWithLogitsLoss", {}, (X, SOFT)),
    ("BCEWithLogitsLoss", {"weight": WEIGHT}, (X, SOFT)),
    ("BCEWithLogitsLoss", {"pos_weight": WEIGHT}, (X, SOFT)),
    ("BCEWithLogitsLoss", {"weight": WEIGHT, "pos_weight": WEIGHT}, (X, SOFT)),
    ("KLDivLoss", {}, (X, SOFT)),
    ("KLDivLoss", {"log_target": True}, (X, Y)),
    ("NLLLoss", {}, (X, CLASSES)),
    ("NLLLoss", {"weight": WEIGHT, "ignore_index": 4}, (X, CLASSES)),
    ("NLLLoss", {}, (MAPS, MAP_CLASSES)),
    ("CrossEntropyLoss", {}, (X, CLASSES)),
    ("CrossEntropyLoss", {}, (X[0], CLASSES[0])),
    ("CrossEntropyLoss", {"weight": WEIGHT}, (X, CLASSES)),
    ("CrossEntropyLoss", {"ignore_index": 1}, (X, CLASSES)),
    ("CrossEntropyLoss", {"label_smoothing": 0.1}, (X, CLASSES)),
    ("CrossEntropyLoss", {"label_smoothing": 0.1, "weight": WEIGHT, "ignore_index": 2}, (X, CLASSES)),
    ("CrossEntropyLoss", {}, (X, SOFT)),
    ("CrossEntropyLoss", {"label_smoothing": 0.2, "weight": WEIGHT}, (X, SOFT)),
    ("CrossEntropyLoss", {}, (MAPS, MAP_CLASSES)),
]
# fmt: on


CASES = [(reduction, *row) for row in LOSSES for reduction in ("mean", "sum", "none")]
CASES += [("batchmean", *row) for row in LOSSES if row[0] == "KLDivLoss"]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize(
    ("reduction", "name", "settings", "inputs"), CASES, ids=lambda row: row if isinstance(row, str) else None
)
def test_loss(
    torch: ModuleType, parity: Callable[..., None], reduction: str, name: str, settings: dict[str, Any], inputs: Any
) -> None:
    ours = getattr(nn, name)(**tensors(settings, hal.tensor), reduction=reduction)
    theirs = getattr(torch.nn, name)(**tensors(settings, torch.tensor), reduction=reduction)

    assert repr(ours) == repr(theirs)
    parity(ours, theirs, *(np.asarray(x) for x in inputs))


def tensors(settings: dict[str, Any], make: Callable[..., Any]) -> dict[str, Any]:
    return {name: make(value) if isinstance(value, np.ndarray) else value for name, value in settings.items()}


FUNCTIONS = [
    ("mse_loss", (X, Y)),
    ("l1_loss", (X, Y)),
    ("smooth_l1_loss", (X, Y)),
    ("huber_loss", (X, Y)),
    ("binary_cross_entropy", (PROBABILITIES, SOFT)),
    ("binary_cross_entropy_with_logits", (X, SOFT)),
    ("nll_loss", (X, CLASSES)),
    ("cross_entropy", (X, CLASSES)),
    ("kl_div", (X, SOFT)),
]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize(("name", "inputs"), FUNCTIONS, ids=lambda row: row if isinstance(row, str) else None)
def test_loss_function(torch: ModuleType, name: str, inputs: tuple[Any, ...]) -> None:
    got = getattr(F, name)(*map(hal.tensor, inputs)).item()
    want = getattr(torch.nn.functional, name)(*map(torch.tensor, inputs)).item()
    assert got == pytest.approx(want, rel=1e-5)


def test_a_loss_in_a_training_step_ignores_what_it_is_told_to() -> None:
    logits = hal.zeros(3, 4, requires_grad=True)
    F.cross_entropy(logits, hal.tensor([1, -100, 2])).backward()
    assert logits.grad[1].tolist() == [0, 0, 0, 0]
    assert logits.grad[0].tolist() == [0.125, -0.375, 0.125, 0.125]


# fmt: off
ERRORS: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    ("target shape", lambda: F.binary_cross_entropy(hal.zeros(3, 1), hal.zeros(3)), ValueError,
     r"binary_cross_entropy needs a target of the input's shape \(3, 1\), got \(3,\)"),
    ("float classes", lambda: F.nll_loss(hal.zeros(3, 2), hal.zeros(3)), TypeError, "int64 class indices, got float32"),
    ("reduction", lambda: F.mse_loss(hal.zeros(3), hal.zeros(3), reduction="avg"), TypeError, "mean, sum, none.*'avg'"),
    ("class weights", lambda: F.cross_entropy(hal.zeros(3, 2), hal.tensor([0, 1, 1]), hal.ones(3)), ValueError,
     r"one weight for each of 2 classes, got a weight of \(3,\)"),
    ("by position", lambda: F.cross_entropy(hal.zeros(3, 2), hal.tensor([0, 1, 1]), None, 5), TypeError, "positional"),
]
# fmt: on


@pytest.mark.parametrize(("call", "error", "text"), [r[1:] for r in ERRORS], ids=[r[0] for r in ERRORS])
def test_error(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
