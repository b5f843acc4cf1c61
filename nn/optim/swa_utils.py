"""Averages of a model's weights over the steps of training: exponential, or equal (stochastic weight averaging)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import hal
from hal.tensor import Tensor
from nn.module import Module

__all__ = ["AveragedModel", "get_ema_avg_fn", "get_swa_avg_fn", "update_bn"]

Average = Callable[[Tensor, Tensor, Tensor], Tensor]


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """The exponential moving average: average' = decay * average + (1 - decay) * weights.

    Raises:
        ValueError: a decay that is not between 0 and 1.

    Source: torch.optim.swa_utils.get_ema_avg_fn.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"get_ema_avg_fn needs decay= from 0 to 1, got {decay}")
    return lambda average, weights, count: average * decay + weights * (1 - decay)


def get_swa_avg_fn() -> Average:
    """The mean of all weights so far. Source: torch.optim.swa_utils.get_swa_avg_fn."""
    return lambda average, weights, count: average + (weights - average) / (count + 1)


class AveragedModel(Module):
    """A copy of a model whose weights are averages: call `update_parameters(model)` after each optimizer step.

    Args:
        avg_fn: (average, weights, number of weights so far) -> the new average; by default the mean of all.
        use_buffers: average floating-point buffers too, instead of copying them.

    Attributes:
        module: the copy; calling this model calls it.
        n_averaged: how many times weights were taken in.

    Source: torch.optim.swa_utils.AveragedModel; Izmailov and others, "Averaging Weights Leads to Wider Optima", 2018.
    """

    def __init__(
        self, model: Module, device: Any = None, avg_fn: Average | None = None, use_buffers: bool = False
    ) -> None:
        super().__init__()
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module.to(device)
        self.n_averaged: Tensor
        self.register_buffer("n_averaged", hal.tensor(0, device=device))
        self.avg_fn = avg_fn or get_swa_avg_fn()
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take in the weights of `model`; the first ones are taken as they are."""
        averaged = [*self.module.parameters(), *(self.module.buffers() if self.use_buffers else ())]
        current = [*model.parameters(), *(model.buffers() if self.use_buffers else ())]
        first = self.n_averaged.item() == 0
        with hal.no_grad():
            for average, weights in zip(averaged, current, strict=True):
                weights = weights.detach().to(average.device)
                if first or not average.dtype.is_floating:
                    average.copy_(weights)
                else:
                    average.copy_(self.avg_fn(average.detach(), weights, self.n_averaged.to(average.device)))
            if not self.use_buffers:
                for kept, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
                    kept.copy_(buffer.to(kept.device))
            self.n_averaged.add_(1)


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of the batch norms of `model` anew, as means over all batches of `loader`.

    Source: torch.optim.swa_utils.update_bn.
    """
    norms = [m for m in model.modules() if getattr(m, "running_mean", None) is not None and hasattr(m, "momentum")]
    if not norms:
        return
    before = [norm.momentum for norm in norms]
    training = model.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    try:
        with hal.no_grad():
            for batch in loader:
                x = batch[0] if isinstance(batch, (list, tuple)) else batch
                model(x if device is None else x.to(device))
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
        model.train(training)
