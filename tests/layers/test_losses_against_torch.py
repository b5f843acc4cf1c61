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

SIGNS = np.sign(RNG.normal(size=(4, 5))).astype(np.float32)
LABELS = np.array([[3, 0, -1, 1, 2], [-1, 1, 2, 3, 0], [0, 1, 2, 3, 4], [4, -1, -1, 0, 0]])
COUNTS = np.abs(Y * 3).round()

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
    ("MarginRankingLoss", {}, (X, Y, SIGNS)),
    ("MarginRankingLoss", {"margin": 0.4}, (X, Y, SIGNS)),
    ("HingeEmbeddingLoss", {}, (X, SIGNS)),
    ("HingeEmbeddingLoss", {"margin": 0.4}, (X, SIGNS)),
    ("CosineEmbeddingLoss", {}, (X, Y, SIGNS[:, 0])),
    ("CosineEmbeddingLoss", {"margin": -0.2}, (X, Y, SIGNS[:, 1])),
    ("CosineEmbeddingLoss", {}, (X[0], Y[0], SIGNS[0, 0])),
    ("TripletMarginLoss", {}, (X, Y, SOFT)),
    ("TripletMarginLoss", {"margin": 2.0, "p": 1.0, "swap": True}, (X, Y, SOFT)),
    ("TripletMarginWithDistanceLoss", {"margin": 2.0, "swap": True}, (X, Y, SOFT)),
    ("SoftMarginLoss", {}, (X, SIGNS.astype(np.int64))),
    ("MultiMarginLoss", {}, (X, CLASSES)),
    ("MultiMarginLoss", {"p": 2, "margin": 0.7, "weight": WEIGHT}, (X, CLASSES)),
    ("MultiMarginLoss", {}, (X[0], CLASSES[0])),
    ("MultiLabelMarginLoss", {}, (X, LABELS)),
    ("MultiLabelMarginLoss", {}, (X[0], LABELS[0])),
    ("MultiLabelSoftMarginLoss", {}, (X, SOFT)),
    ("MultiLabelSoftMarginLoss", {"weight": WEIGHT}, (X, SOFT)),
    ("PoissonNLLLoss", {}, (X, COUNTS)),
    ("PoissonNLLLoss", {"log_input": False}, (PROBABILITIES, COUNTS)),
    ("PoissonNLLLoss", {"full": True}, (X, COUNTS.astype(np.int64))),
    ("GaussianNLLLoss", {}, (X, Y, PROBABILITIES)),
    ("GaussianNLLLoss", {"full": True, "eps": 0.5}, (X, Y, PROBABILITIES)),
    ("GaussianNLLLoss", {}, (X, Y, PROBABILITIES[:, 0])),
    ("GaussianNLLLoss", {}, (X, Y, PROBABILITIES[:, :1])),
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


STEPS = RNG.normal(size=(8, 3, 5)).astype(np.float32)
LABELLED = np.array([[1, 2, 2], [3, 3, 1], [4, 0, 0]])

# fmt: off
CTC: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
    ("padded", {}, (STEPS, LABELLED, [8, 5, 6], [3, 2, 1])),
    ("too few steps", {"zero_infinity": True}, (STEPS, LABELLED, [8, 2, 3], [3, 3, 1])),
    ("infinite", {}, (STEPS[:4], LABELLED, [4, 2, 3], [3, 3, 1])),
    ("no label", {"blank": 0}, (STEPS, LABELLED, [8, 8, 8], [3, 2, 0])),
    ("behind each other", {"blank": 4}, (STEPS, np.array([1, 2, 2, 3, 3, 1]), [8, 8, 8], [3, 2, 1])),
    ("another blank", {"blank": 4}, (STEPS, LABELLED % 4, [8, 7, 8], [3, 3, 2])),
]
# fmt: on


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("settings", "given"), [row[1:] for row in CTC], ids=[row[0] for row in CTC])
def test_ctc(torch: ModuleType, reduction: str, settings: dict[str, Any], given: Any) -> None:
    scores, targets, steps, lengths = given
    results = []
    for library, kit in ((hal, nn), (torch, torch.nn)):
        x = library.tensor(scores, requires_grad=True)
        loss = kit.CTCLoss(reduction=reduction, **settings)
        log_probs = kit.functional.log_softmax(x, dim=2)
        many = [library.tensor(np.array(n)) for n in (targets, steps, lengths)]
        out = loss(log_probs, *many)
        finite = library.where(library.isinf(out), library.zeros_like(out), out)
        (finite * finite).sum().backward()
        results.append((out.detach().numpy(), x.grad.numpy()))
    (a, ga), (b, gb) = results
    np.testing.assert_allclose(a, b, rtol=1e-4)
    known = np.isfinite(gb)
    assert np.isfinite(ga).all()
    np.testing.assert_allclose(ga[known], gb[known], rtol=1e-3, atol=1e-4)


def test_ctc_of_one_sequence_and_of_lengths_as_numbers(torch: ModuleType) -> None:
    log_probs = torch.tensor(STEPS[:, 0]).log_softmax(1)
    want = torch.nn.functional.ctc_loss(log_probs, torch.tensor(LABELLED[0]), (8,), (3,), reduction="none")
    got = F.ctc_loss(hal.tensor(log_probs.numpy()), hal.tensor(LABELLED[0]), (8,), (3,), reduction="none")
    assert got.shape == ()
    assert got.item() == pytest.approx(want.item(), rel=1e-5)


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
    ("margin_ranking_loss", (X, Y, SIGNS)),
    ("hinge_embedding_loss", (X, SIGNS)),
    ("cosine_embedding_loss", (X, Y, SIGNS[:, 0])),
    ("triplet_margin_loss", (X, Y, SOFT)),
    ("triplet_margin_with_distance_loss", (X, Y, SOFT)),
    ("soft_margin_loss", (X, SIGNS)),
    ("multi_margin_loss", (X, CLASSES)),
    ("multilabel_margin_loss", (X, LABELS)),
    ("multilabel_soft_margin_loss", (X, SOFT)),
    ("poisson_nll_loss", (X, COUNTS)),
    ("gaussian_nll_loss", (X, Y, PROBABILITIES)),
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
    ("triplet axes", lambda: F.triplet_margin_loss(hal.zeros(3, 2), hal.zeros(3, 2), hal.zeros(2)), ValueError,
     r"of as many axes, got shapes \(3, 2\), \(3, 2\) and \(2,\)"),
    ("multi margin", lambda: nn.MultiMarginLoss(p=3)(hal.zeros(1, 2), hal.tensor([0])), TypeError, "p= 1 or 2, got 3"),
    ("variance", lambda: F.gaussian_nll_loss(hal.zeros(3, 2), hal.zeros(3, 2), hal.ones(2)), ValueError,
     r"a variance of the input's shape \(3, 2\), got \(2,\)"),
    ("ctc targets", lambda: F.ctc_loss(hal.zeros(4, 2, 3), hal.tensor([[1]]), (4, 4), (1, 1)), ValueError,
     r"targets \(2, S\) for its 2 sequences, got \(1, 1\)"),
    ("ctc lengths", lambda: F.ctc_loss(hal.zeros(4, 2, 3), hal.tensor([[1], [1]]), (4,), (1, 1)), ValueError,
     "input_lengths for its 2 sequences, got 1"),
    ("by position", lambda: F.cross_entropy(hal.zeros(3, 2), hal.tensor([0, 1, 1]), None, 5), TypeError, "positional"),
]
# fmt: on


@pytest.mark.parametrize(("call", "error", "text"), [r[1:] for r in ERRORS], ids=[r[0] for r in ERRORS])
def test_error(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss"])
def test_a_weight_for_each_element(torch: ModuleType, name: str, reduction: str) -> None:
    weight = SOFT * 3
    want = getattr(torch.nn.functional, name)(
        torch.tensor(X), torch.tensor(Y), weight=torch.tensor(weight), reduction=reduction
    )
    got = getattr(F, name)(hal.tensor(X), hal.tensor(Y), weight=hal.tensor(weight), reduction=reduction)
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match=rf"{name} needs a weight for each element \(4, 5\), got \(5,\)"):
        getattr(F, name)(hal.tensor(X), hal.tensor(Y), weight=hal.tensor(WEIGHT))


def test_adaptive_softmax(torch: ModuleType) -> None:
    scores, classes = RNG.normal(size=(6, 8)).astype(np.float32), np.array([0, 11, 3, 5, 19, 2])
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 12], div_value=2.0, head_bias=True)
    ours = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 12], div_value=2.0, head_bias=True)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    x, y = hal.tensor(scores, requires_grad=True), torch.tensor(scores, requires_grad=True)
    got, want = ours(x, hal.tensor(classes)), theirs(y, torch.tensor(classes))
    np.testing.assert_allclose(got.output.detach().numpy(), want.output.detach().numpy(), rtol=1e-5)
    got.loss.backward()
    want.loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-4, atol=1e-6)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours.log_prob(x).detach().numpy(), theirs.log_prob(y).detach().numpy(), rtol=1e-4)
    assert ours.predict(x).tolist() == theirs.predict(y).tolist()
    assert ours(x[0], hal.tensor(11)).output.shape == ()
    with pytest.raises(ValueError, match="targets from 0 to 19, got 0 to 20"):
        ours(x, hal.tensor([0, 1, 2, 3, 4, 20]))
    with pytest.raises(TypeError, match=r"that rise from 1 to at most 19, got \[12, 4\]"):
        nn.AdaptiveLogSoftmaxWithLoss(8, 20, [12, 4])


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_comparing_all_with_all_is_warned_of(name: str) -> None:
    with pytest.warns(UserWarning, match=rf"{name} got an input \(3, 1\) and a target \(3,\)"):
        getattr(nn.functional, name)(hal.zeros(3, 1), hal.zeros(3))
