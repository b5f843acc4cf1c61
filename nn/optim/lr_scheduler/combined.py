"""Schedules made of schedules: one after another, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from nn.optim.lr_scheduler.scheduler import LRScheduler, take_over
from nn.optim.optimizer import Optimizer


class _Combined(LRScheduler):
    """Takes over schedules of one optimizer, which then need no `step` of their own."""

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler]) -> None:
        who = type(self).__name__
        if not schedulers:
            raise ValueError(f"{who} needs one schedule or more, got none")
        if any(not isinstance(s, LRScheduler) or s.optimizer is not optimizer for s in schedulers):
            raise ValueError(f"{who} needs schedules, all of the optimizer that it is given")
        self._schedulers = list(schedulers)
        take_over(self._schedulers, optimizer)
        super().__init__(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """The state, and that of each schedule in it."""
        state = super().state_dict()
        return {**state, "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)


class SequentialLR(_Combined):
    """One schedule until the first milestone, the next until the second, and so on; each counts its epochs from 0.

    Raises:
        ValueError: not one milestone less than schedules, or a schedule of another optimizer.

    Source: torch.optim.lr_scheduler.SequentialLR.
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]) -> None:
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR needs one milestone less than schedules, got {len(milestones)} and {len(schedulers)}"
            )
        self.milestones = list(milestones)
        super().__init__(optimizer, schedulers)

    def rate(self, base: float, epoch: int, group: int) -> float:
        i = bisect_right(self.milestones, epoch)
        return self._schedulers[i].rate(base, epoch - (self.milestones[i - 1] if i else 0), group)


class ChainedScheduler(_Combined):
    """All schedules at once: each is a factor on the rate. Source: torch.optim.lr_scheduler.ChainedScheduler.

    Raises:
        ValueError: no schedule, or schedules of several optimizers.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        if not schedulers:
            raise ValueError("ChainedScheduler needs one schedule or more, got none")
        super().__init__(optimizer or schedulers[0].optimizer, schedulers)

    def rate(self, base: float, epoch: int, group: int) -> float:
        rate = base
        for scheduler in self._schedulers:
            rate *= scheduler.rate(base, epoch, group) / base if base else 1
        return rate
