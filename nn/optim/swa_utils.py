"""Averages of a model's weights over the steps of training: exponential, or equal (stochastic weight averaging)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from math import cos, pi
from typing import Any

import hal
from hal.tensor import Tensor
from nn.module import Module
from nn.optim.lr_scheduler.scheduler import LRScheduler
from nn.optim.optimizer import Optimizer

__all__ = ["SWALR", "AveragedModel", "get_ema_avg_fn", "get_swa_avg_fn", "update_bn"]

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


class SWALR(LRScheduler):
    """The rate goes from what it is to `swa_lr` in `anneal_epochs` epochs, and stays there while weights are averaged.

    Args:
        swa_lr: where it goes: one number, or one for each group.
        anneal_strategy: along half a cosine (`cos`) or straight (`linear`).

    Raises:
        ValueError: another strategy, or not one rate for each group.

    Source: torch.optim.swa_utils.SWALR.
    """

    def __init__(
        self, optimizer: Optimizer, swa_lr: float | list[float], anneal_epochs: int = 10, anneal_strategy: str = "cos"
    ) -> None:
        groups = optimizer.param_groups
        self.swa_lrs = list(swa_lr) if isinstance(swa_lr, (list, tuple)) else [swa_lr] * len(groups)
        if anneal_strategy not in ("cos", "linear") or anneal_epochs < 0 or len(self.swa_lrs) != len(groups):
            raise ValueError(
                f"SWALR needs anneal_strategy= 'cos' or 'linear', anneal_epochs= of 0 or more, and one swa_lr= or one "
                f"for each of {len(groups)} groups, got {anneal_strategy!r}, {anneal_epochs} and {swa_lr}"
            )
        self.anneal_epochs, self.anneal_strategy = anneal_epochs, anneal_strategy
        for group in groups:
            group["initial_lr"] = group["lr"]
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        done = min(1.0, epoch / self.anneal_epochs) if self.anneal_epochs else 1.0
        part = done if self.anneal_strategy == "linear" else (1 - cos(pi * done)) / 2
        return base + (self.swa_lrs[group] - base) * part
