"""Figures of how good a model is, summed up on the device and mergeable across batches, ranks and devices."""

from nn.metrics.classification import Accuracy, BinaryAUROC, ConfusionMatrix, F1Score, Precision, Recall
from nn.metrics.metric import Metric
from nn.metrics.regression import Mean, MeanAbsoluteError, MeanSquaredError

__all__ = [
    "Accuracy", "BinaryAUROC", "ConfusionMatrix", "F1Score", "Mean", "MeanAbsoluteError", "MeanSquaredError", "Metric",
    "Precision", "Recall",
]  # fmt: skip
