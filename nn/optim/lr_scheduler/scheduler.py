"""What all schedules have in common: the rate of an epoch in closed form, and the count of the epochs."""

from __future__ import annotations

import weakref
from typing import Any

from nn.optim.optimizer import Optimizer

# Which schedules move the rates of an optimizer; those inside another one are not here.
_SCHEDULES: weakref.WeakKeyDictionary[Optimizer, weakref.WeakSet[LRScheduler]] = weakref.WeakKeyDictionary()


class LRScheduler:
    """Sets the learning rate of each group to a function of the epoch and the rate that it began with.

    A subclass gives `rate(base, epoch, group)`. Where several schedules move the rates of one optimizer, each is a
    factor on what the rate began with, as in torch's chainable forms.

    Attributes:
        last_epoch: the number of the present epoch, from 0.
        base_lrs: the rate that each group began with.

    Source: torch.optim.lr_scheduler.LRScheduler, in closed form.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__} needs an optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        _SCHEDULES.setdefault(optimizer, weakref.WeakSet()).add(self)
        self.last_epoch = -1
        self.step()

    def rate(self, base: float, epoch: int, group: int) -> float:
        """The learning rate of group number `group` in `epoch`, which began with `base`."""
        raise NotImplementedError(
            f"{type(self).__name__} has no rate: write one that gives the learning rate of an epoch"
        )

    def step(self) -> None:
        """Go on to the next epoch."""
        self.last_epoch += 1
        others = [s for s in _SCHEDULES[self.optimizer] if s is not self]
        for i, (group, base) in enumerate(zip(self.optimizer.param_groups, self.base_lrs, strict=True)):
            rate = self.rate(base, self.last_epoch, i)
            for other in others:
                rate *= other.rate(base, other.last_epoch, i) / base if base else 1
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group as last set."""
        return self._last_lr

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and functions."""
        return {k: v for k, v in self.__dict__.items() if k != "optimizer" and not _has_functions(v)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave. The optimizer's own state has the rates."""
        self.__dict__.update(state_dict)


def take_over(schedulers: list[LRScheduler], optimizer: Optimizer) -> None:
    """Let the schedules of a combined one no longer move the rates by themselves, and set these to where they began."""
    for scheduler in schedulers:
        _SCHEDULES[optimizer].discard(scheduler)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"]


def _has_functions(value: Any) -> bool:
    return callable(value) or (isinstance(value, list) and any(map(callable, value)))
