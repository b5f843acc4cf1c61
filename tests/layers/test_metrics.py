"""Metrics against their definitions counted one by one, on every device; merged, saved, and never waiting."""

from typing import Any

import numpy as np
import pytest

import hal
from hal.errors import DTypeError, ShapeError, StateError
from nn import metrics

CLASSES = 4
RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(3, 20, CLASSES)).astype(np.float32)
TARGETS = RNG.integers(0, 3, size=(3, 20))  # the last class is never wanted
COUNTS = np.zeros((CLASSES, CLASSES), np.int64)
for is_, named_ in zip(TARGETS.ravel(), SCORES.argmax(-1).ravel(), strict=True):
    COUNTS[is_, named_] += 1


def measured(metric: Any, device: hal.Device | None = None, inputs: Any = SCORES, targets: Any = TARGETS) -> Any:
    for x, y in zip(inputs, targets, strict=True):
        metric.update(hal.tensor(x, device=device), hal.tensor(y, device=device))
    return metric.compute().cpu().numpy()


def per_class(kind: str) -> list[float]:
    values = []
    for c in range(CLASSES):
        right, named, wanted = COUNTS[c, c], COUNTS[:, c].sum(), COUNTS[c].sum()
        precision = right / named if named else 0.0
        recall = right / wanted if wanted else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        values.append({"Precision": precision, "Recall": recall, "F1Score": f1}[kind])
    return values


@pytest.mark.parametrize("kind", ["Precision", "Recall", "F1Score"])
def test_precision_recall_and_f1(kind: str, each_device: hal.Device) -> None:
    make, each, wanted = getattr(metrics, kind), per_class(kind), COUNTS.sum(1)
    np.testing.assert_allclose(measured(make(CLASSES, average=None), each_device), each, rtol=1e-6)
    assert measured(make(CLASSES), each_device) == pytest.approx(np.mean(each))  # class 3 was named, so it counts
    assert measured(make(CLASSES, average="weighted"), each_device) == pytest.approx(np.average(each, weights=wanted))
    assert measured(make(CLASSES, average="micro"), each_device) == pytest.approx(np.trace(COUNTS) / COUNTS.sum())


def test_a_class_that_is_nowhere_has_no_say_in_the_mean() -> None:
    metric = metrics.Recall(5).update(hal.tensor([0, 1, 1]), hal.tensor([0, 1, 0]))
    assert metric.compute().item() == pytest.approx((0.5 + 1) / 2)


def test_accuracy_of_scores_classes_and_probabilities(each_device: hal.Device) -> None:
    right = np.trace(COUNTS) / COUNTS.sum()
    assert measured(metrics.Accuracy(), each_device) == pytest.approx(right)
    assert measured(metrics.Accuracy(), each_device, SCORES.argmax(-1)) == pytest.approx(right)
    probabilities, wanted = RNG.random((3, 20), np.float32), RNG.integers(0, 2, (3, 20))
    assert measured(metrics.Accuracy(), each_device, probabilities, wanted) == pytest.approx(
        np.mean((probabilities >= 0.5) == wanted)
    )
    in_two = [np.sort(s)[-2] <= s[t] for s, t in zip(SCORES.reshape(-1, CLASSES), TARGETS.ravel(), strict=True)]
    assert measured(metrics.Accuracy(top_k=2), each_device) == pytest.approx(np.mean(in_two))


def test_accuracy_over_pixels_and_without_a_class() -> None:
    scores = RNG.normal(size=(2, 3, CLASSES, 5)).astype(np.float32)
    wanted = RNG.integers(0, CLASSES, (2, 3, 5))
    named, counted = scores.argmax(2), wanted != 1
    assert measured(metrics.Accuracy(), None, scores, wanted) == pytest.approx(np.mean(named == wanted))
    assert measured(metrics.Accuracy(ignore_index=1), None, scores, wanted) == pytest.approx(
        np.mean((named == wanted)[counted])
    )


def test_the_confusion_matrix(each_device: hal.Device, tmp_path: Any) -> None:
    metric = metrics.ConfusionMatrix(CLASSES)
    np.testing.assert_array_equal(measured(metric, each_device), COUNTS)
    for how, sums in (("true", COUNTS.sum(1, keepdims=True)), ("pred", COUNTS.sum(0)), ("all", COUNTS.sum())):
        part = measured(metrics.ConfusionMatrix(CLASSES, normalize=how), each_device)
        np.testing.assert_allclose(part, COUNTS / np.maximum(sums, 1), rtol=1e-6)
    metric.update(hal.tensor([0, 9], device=each_device), hal.tensor([-100, 0], device=each_device))  # outside
    np.testing.assert_array_equal(metric.compute().cpu().numpy(), COUNTS)
    metric.save(tmp_path / "matrix.svg", ["cat", "dog", "a&b", "a very long name"])
    picture = (tmp_path / "matrix.svg").read_text(encoding="utf-8")
    assert f"a&amp;b named as cat: {COUNTS[2, 0]} of {COUNTS[2].sum()}" in picture
    assert f"{np.trace(COUNTS)} of {COUNTS.sum()} right" in picture


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_under_the_roc_curve(ties: bool, each_device: hal.Device) -> None:
    scores, wanted = RNG.normal(size=(3, 30)).astype(np.float32), RNG.integers(0, 2, (3, 30))
    scores = np.round(scores) if ties else scores
    ones, zeros = scores[wanted == 1], scores[wanted == 0]
    order = np.mean([(p > q) + 0.5 * (p == q) for p in ones for q in zeros])
    assert measured(metrics.BinaryAUROC(), each_device, scores, wanted) == pytest.approx(order, rel=1e-6)
    only_ones = metrics.BinaryAUROC().update(hal.tensor([0.5, 0.1]), hal.tensor([1, 1]))
    assert np.isnan(only_ones.compute().item())


def test_errors_of_numbers(each_device: hal.Device) -> None:
    x, y = RNG.normal(size=(2, 3, 4)).astype(np.float32), RNG.normal(size=(2, 3, 4)).astype(np.float32)
    squared, absolute = metrics.MeanSquaredError(), metrics.MeanAbsoluteError()
    assert measured(squared, each_device, x, y) == pytest.approx(np.mean((x - y) ** 2), rel=1e-5)
    assert measured(absolute, each_device, x, y) == pytest.approx(np.mean(np.abs(x - y)), rel=1e-5)
    mean = metrics.Mean().update(hal.tensor(2.0), hal.zeros(3)).update(hal.tensor(4.0), hal.zeros(1))
    assert mean.compute().item() == 2.5


MADE: list[Any] = [
    metrics.Accuracy, lambda: metrics.ConfusionMatrix(CLASSES), lambda: metrics.F1Score(CLASSES), metrics.Mean,
]  # fmt: skip


@pytest.mark.parametrize("make", MADE)
def test_merged_and_saved_it_is_the_same(make: Any) -> None:
    whole, parts = make(), [make() for _ in SCORES]
    for part, x, y in zip(parts, SCORES, TARGETS, strict=True):
        for metric in (whole, part):
            metric.update(hal.tensor(x), hal.tensor(y))
    merged = make().merge([parts[0]]).merge(parts[1:])
    again = make()
    again.load_state_dict(whole.state_dict())
    for metric in (merged, again):
        np.testing.assert_allclose(metric.compute().numpy(), whole.compute().numpy(), rtol=1e-6)
    assert whole.reset().sums == {}


def test_metrics_of_two_devices_are_merged() -> None:
    near, far = metrics.Accuracy(), metrics.Accuracy()
    near.update(hal.tensor([1, 1]), hal.tensor([1, 0]))
    far.update(hal.tensor([1, 1], device="fake"), hal.tensor([1, 1], device="fake"))
    assert near.merge([far]).compute().item() == 0.75
    assert str(near.compute().device) == "cpu"


def test_nothing_waits_for_the_device_before_the_figure_is_looked_at(each_device: hal.Device) -> None:
    x, y = hal.tensor(SCORES[0], device=each_device), hal.tensor(TARGETS[0], device=each_device)
    binary = hal.tensor(TARGETS[0] > 0, device=each_device)
    made = [make() for make in MADE]
    with hal.placement_report() as report:
        for metric in made:
            metric.update(x, y).compute()
        metrics.BinaryAUROC().update(x[:, 0], binary).compute()
        metrics.MeanSquaredError().update(x, x).compute()
    assert not report.syncs
    assert not report.fallbacks or each_device.type == "template"


T = hal.tensor
ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: metrics.Accuracy().compute(), ValueError, r"Accuracy.compute needs a batch first"),
    (lambda: metrics.Accuracy(top_k=0), ValueError, "top_k= of 1 or more, got 0"),
    (lambda: metrics.Accuracy().update(T([1]), T([1.0])), DTypeError, "class numbers as targets, got float32"),
    (lambda: metrics.Accuracy().update(T([1, 2]), T([1])), ShapeError, r"shape of the targets \(1,\)"),
    (lambda: metrics.Accuracy(3).update(hal.zeros(2, 2), T([1, 1])), ShapeError, r"Accuracy\(top_k=3\) needs scores"),
    (lambda: metrics.ConfusionMatrix(3).update(hal.zeros(2, 2), T([1, 1])), ShapeError, "that many scores"),
    (lambda: metrics.ConfusionMatrix(0), ValueError, "num_classes= of 1 or more"),
    (lambda: metrics.ConfusionMatrix(2, "rows"), ValueError, "normalize= None"),
    (lambda: metrics.ConfusionMatrix(2).save("x.svg", ["a"]), ValueError, "needs 2 names, got 1"),
    (lambda: metrics.Recall(2, average="mean"), ValueError, "average= one of"),
    (lambda: metrics.MeanSquaredError().update(hal.zeros(2), hal.zeros(3)), ShapeError, "of one shape"),
    (lambda: metrics.BinaryAUROC().update(hal.zeros(2, 2), hal.zeros(2, 2)), ShapeError, "in a vector"),
    (lambda: metrics.Accuracy().merge([metrics.Mean()]), TypeError, "can merge its own kind, got Mean"),
    (lambda: metrics.Accuracy().load_state_dict({"right": 3}), StateError, r"for \['right'\]"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), ERRORS, ids=[e[2][:24] for e in ERRORS])
def test_error(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_batch_that_does_not_fit_is_not_counted() -> None:
    metric = metrics.Accuracy().update(T([1, 1]), T([1, 0]))
    with pytest.raises(ShapeError):
        metric.update(T([1, 1]), T([1]))
    assert metric.compute().item() == 0.5
    assert repr(metric) == "Accuracy(0.5)"


def test_the_same_as_scikit_learn() -> None:
    theirs = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn: pip install scikit-learn")
    named, wanted = SCORES.argmax(-1).ravel(), TARGETS.ravel()
    for kind, function in (("Precision", "precision_score"), ("Recall", "recall_score"), ("F1Score", "f1_score")):
        for average in metrics.classification.AVERAGES:
            value = getattr(theirs, function)(wanted, named, average=average, zero_division=0)
            np.testing.assert_allclose(measured(getattr(metrics, kind)(CLASSES, average)), value, rtol=1e-6)
    scores, classes = RNG.normal(size=200), RNG.integers(0, 2, 200)
    ours = metrics.BinaryAUROC().update(T(scores), T(classes)).compute().item()
    assert ours == pytest.approx(theirs.roc_auc_score(classes, scores))
