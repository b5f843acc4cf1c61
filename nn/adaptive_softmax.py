"""A softmax over very many classes, of which the frequent ones come first and the rare ones share small maps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

import hal
from hal import ops
from hal.creation import DeviceLike
from hal.errors import SettingError, ShapeError
from hal.tensor import Tensor
from nn.containers import ModuleList, Sequential
from nn.linear import Linear
from nn.module import Module


class ASMoutput(NamedTuple):
    """The log-probability of each target (N), and the mean of what they cost."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """log_softmax of (N, in_features) over `n_classes` in clusters, and its loss for targets (N).

    Classes are sorted by how frequent they are. The head knows those below the first cutoff and one for each cluster
    behind it; a cluster's map has `div_value` times fewer features than that of the one before. Which rows a
    cluster works on is found out on the host.

    Args:
        cutoffs: where each cluster begins, rising.

    Raises:
        SettingError: cutoffs that are not rising, or not within the classes.

    Source: torch.nn.AdaptiveLogSoftmaxWithLoss; Grave et al., "Efficient softmax approximation for GPUs", 2017.
    """

    def __init__(
        self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
        head_bias: bool = False, device: DeviceLike = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        given = list(cutoffs)
        if not given or given != sorted(set(given)) or given[0] < 1 or given[-1] > n_classes - 1:
            raise SettingError(
                f"AdaptiveLogSoftmaxWithLoss needs cutoffs= that rise from 1 to at most {n_classes - 1}, got {given}"
            )
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*given, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = given[0]
        self.n_clusters = len(given)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, head_bias, device, dtype)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(pairwise(self.cutoffs)):
            narrow = int(in_features // div_value ** (i + 1))
            first = Linear(in_features, narrow, False, device, dtype)
            self.tail.append(Sequential(first, Linear(narrow, high - low, False, device, dtype)))

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        for part in (self.head, *(layer for cluster in self.tail for layer in cluster)):
            part.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> ASMoutput:
        if target_.ndim > 1 or input_.ndim != target_.ndim + 1 or input_.shape[:-1] != target_.shape:
            raise ShapeError(
                f"AdaptiveLogSoftmaxWithLoss needs an input (N, {self.in_features}) and targets (N), or without N, "
                f"got {input_.shape} and {target_.shape}"
            )
        single = target_.ndim == 0
        x = input_.unsqueeze(0) if single else input_
        target = np.asarray(target_.cpu().numpy(), np.int64).reshape(-1)
        if target.size and not (target.min() >= 0 and target.max() < self.n_classes):
            raise ShapeError(
                f"AdaptiveLogSoftmaxWithLoss needs targets from 0 to {self.n_classes - 1}, got {target.min()} to "
                f"{target.max()}"
            )
        cluster = np.searchsorted(self.cutoffs, target, side="right")
        in_head = np.where(cluster == 0, target, self.shortlist_size + cluster - 1)
        head = ops.log_softmax(self.head(x), axis=1)
        output = ops.gather(head, hal.tensor(in_head[:, None], device=x.device), axis=1).squeeze(1)
        for i in sorted(set(cluster.tolist()) - {0}):
            rows = np.flatnonzero(cluster == i)
            where = hal.tensor(rows, device=x.device)
            inner = ops.log_softmax(self.tail[i - 1](ops.take(x, where, axis=0)), axis=1)
            label = hal.tensor((target[rows] - self.cutoffs[i - 1])[:, None], device=x.device)
            output = ops.index_add(output, where, ops.gather(inner, label, axis=1).squeeze(1), axis=0)
        return ASMoutput(output.squeeze(0) if single else output, -ops.mean(output))

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probabilities of all classes: (N, n_classes)."""
        head = ops.log_softmax(self.head(input), axis=1)
        parts = [head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            place = self.shortlist_size + i
            parts.append(ops.log_softmax(cluster(input), axis=1) + head[:, place : place + 1])
        return ops.concat(*parts, axis=1)

    def predict(self, input: Tensor) -> Tensor:
        """The likeliest class of each row: int64 (N)."""
        return ops.argmax(self.log_prob(input), axis=1)
