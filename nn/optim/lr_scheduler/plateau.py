"""A rate that falls when a metric no longer improves."""

from __future__ import annotations

from math import inf
from typing import Any

from nn.optim.optimizer import Optimizer


class ReduceLROnPlateau:
    """The rate is multiplied with `factor` when a metric has not improved for more than `patience` epochs.

    Args:
        mode: whether smaller (`min`) or larger (`max`) is better.
        threshold: what counts as better: by this part of the best (`rel`), or by this much (`abs`).
        cooldown: epochs after a reduction that are not counted.
        min_lr: where it ends.

    Source: torch.optim.lr_scheduler.ReduceLROnPlateau.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10, threshold: float = 1e-4,
        threshold_mode: str = "rel", cooldown: int = 0, min_lr: float = 0.0, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs") or not factor < 1:
            raise ValueError(
                "ReduceLROnPlateau needs mode= 'min' or 'max', threshold_mode= 'rel' or 'abs' and factor= below 1, "
                f"got {mode!r}, {threshold_mode!r}, {factor}"
            )
        self.optimizer = optimizer
        self.mode, self.factor, self.patience, self.threshold = mode, factor, patience, threshold
        self.threshold_mode, self.cooldown, self.min_lr, self.eps = threshold_mode, cooldown, min_lr, eps
        self.best = inf if mode == "min" else -inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

    def _is_better(self, value: float) -> bool:
        if self.best in (inf, -inf):
            return value != self.best
        least = self.threshold if self.threshold_mode == "abs" else self.best * self.threshold
        return value > self.best + least if self.mode == "max" else value < self.best - least

    def step(self, metrics: float) -> None:
        """Look at the metric of the epoch that has ended."""
        value = float(metrics)
        self.last_epoch += 1
        if self._is_better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group in self.optimizer.param_groups:
                reduced = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - reduced > self.eps:
                    group["lr"] = reduced
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.__dict__.update(state_dict)
