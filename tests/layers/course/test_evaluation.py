"""A course's programs on evaluation: accuracy under no_grad, the best k classes, and layers that behave differently."""

import pytest

import hal
import nn
from nn import functional as F

pytestmark = pytest.mark.usefixtures("each_device")


def accuracy(y_hat: hal.Tensor, y: hal.Tensor) -> float:
    """How many predictions are right."""
    if len(y_hat.shape) > 1 and y_hat.shape[1] > 1:
        y_hat = y_hat.argmax(axis=1)
    cmp = y_hat.type(y.dtype) == y
    return float(cmp.type(y.dtype).sum())


def topk_accuracy(output: hal.Tensor, target: hal.Tensor, ks: tuple[int, ...] = (1,)) -> list[float]:
    """For each k, how often the right class is among the k with the highest scores."""
    with hal.no_grad():
        _, pred = output.topk(max(ks), 1, True, True)
        correct = pred.t().eq(target.view(1, -1).expand_as(pred.t()))
        return [correct[:k].reshape(-1).float().sum(0, keepdim=True).item() / target.size(0) for k in ks]


SCORES = [[0.1, 0.3, 0.6], [0.3, 0.2, 0.5], [0.5, 0.4, 0.1]]


def test_accuracy() -> None:
    y_hat, y = hal.tensor(SCORES), hal.tensor([2, 1, 1])
    assert y_hat[[0, 1], [2, 1]].tolist() == pytest.approx([0.6, 0.2])
    assert accuracy(y_hat, y) / len(y) == pytest.approx(1 / 3)


def test_the_best_k() -> None:
    y_hat, y = hal.tensor(SCORES), hal.tensor([2, 0, 1])
    values, indices = y_hat.topk(2, dim=1)
    assert indices.tolist() == [[2, 1], [2, 0], [0, 1]]
    assert values[0].tolist() == pytest.approx([0.6, 0.3])
    assert topk_accuracy(y_hat, y, (1, 2, 3)) == pytest.approx([1 / 3, 1, 1])


def test_evaluation_records_nothing() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    X, y = hal.randn(6, 4), hal.tensor([0, 1, 2, 0, 1, 2])
    net.eval()
    with hal.no_grad():
        out = net(X)
        loss = F.cross_entropy(out, y)
    assert not out.requires_grad
    assert out.grad_fn is None
    assert net(X).tolist() == out.tolist()
    with pytest.raises(RuntimeError, match="no_grad"):
        loss.backward()
    with hal.set_grad_enabled(True):
        assert net(X).requires_grad
    net.train()
    assert net(X).tolist() != out.tolist()

    @hal.no_grad()
    def evaluate() -> float:
        net.eval()
        return accuracy(net(X), y) / len(y)

    assert 0 <= evaluate() <= 1
    assert hal.is_grad_enabled()


def test_probabilities_and_predicted_labels() -> None:
    hal.manual_seed(0)
    logits = nn.Linear(4, 3)(hal.randn(5, 4))
    probabilities = F.softmax(logits, dim=1)
    assert hal.allclose(probabilities.sum(dim=1), hal.ones(5), atol=1e-6)
    best, labels = probabilities.max(dim=1)
    assert labels.tolist() == logits.argmax(dim=1).tolist()
    assert (best >= 1 / 3).all()
