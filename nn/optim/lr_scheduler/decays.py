"""Rates that grow or fall by factors: steps, powers, straight lines, and functions of the user's own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from math import prod

from nn.optim.lr_scheduler.scheduler import LRScheduler
from nn.optim.optimizer import Optimizer


class LambdaLR(LRScheduler):
    """The first rate times a function of the epoch, or one function for each group.

    Source: torch.optim.lr_scheduler.LambdaLR.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | list[Callable[[int], float]]) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas = list(lr_lambda) if isinstance(lr_lambda, (list, tuple)) else [lr_lambda] * groups
        if len(self.lr_lambdas) != groups:
            raise ValueError(
                f"LambdaLR needs one function, or one for each of {groups} groups, got {len(self.lr_lambdas)}"
            )
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        return base * self.lr_lambdas[group](epoch)


class MultiplicativeLR(LambdaLR):
    """Every epoch the rate is multiplied with what a function gives for it.

    Source: torch.optim.lr_scheduler.MultiplicativeLR.
    """

    def rate(self, base: float, epoch: int, group: int) -> float:
        return base * prod(self.lr_lambdas[group](e) for e in range(1, epoch + 1))


class StepLR(LRScheduler):
    """Every `step_size` epochs the rate is multiplied with `gamma`. Source: torch.optim.lr_scheduler.StepLR."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        return base * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """At each of the `milestones` the rate is multiplied with `gamma`. Source: torch.optim.lr_scheduler.MultiStepLR."""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        return base * self.gamma ** bisect_right(self.milestones, epoch)


class ExponentialLR(LRScheduler):
    """Every epoch the rate is multiplied with `gamma`. Source: torch.optim.lr_scheduler.ExponentialLR."""

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        return base * self.gamma**epoch


class ConstantLR(LRScheduler):
    """For `total_iters` epochs the rate is multiplied with `factor`. Source: torch.optim.lr_scheduler.ConstantLR."""

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5) -> None:
        if not 0 <= factor <= 1:
            raise ValueError(f"ConstantLR needs factor= from 0 to 1, got {factor}")
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        return base * self.factor if epoch < self.total_iters else base


class PolynomialLR(LRScheduler):
    """The rate falls to zero in `total_iters` epochs, as the remaining part to the `power`.

    Source: torch.optim.lr_scheduler.PolynomialLR.
    """

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0) -> None:
        self.total_iters = total_iters
        self.power = power
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        return base * (1 - min(epoch, self.total_iters) / self.total_iters) ** self.power


class LinearLR(LRScheduler):
    """The factor of the rate goes straight from `start_factor` to `end_factor` in `total_iters` epochs: a warm-up.

    Source: torch.optim.lr_scheduler.LinearLR.
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
    ) -> None:
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        done = min(epoch, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * done)
