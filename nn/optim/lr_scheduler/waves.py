"""Rates that follow waves: half a cosine, cosines with restarts, one cycle up and down, and many of them."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi
from typing import Any

from nn.optim.lr_scheduler.scheduler import LRScheduler
from nn.optim.optimizer import Optimizer


class CosineAnnealingLR(LRScheduler):
    """The rate falls to `eta_min` in `T_max` epochs, along half a wave of the cosine.

    Source: torch.optim.lr_scheduler.CosineAnnealingLR; Loshchilov, Hutter, "SGDR", 2017.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + cos(pi * epoch / self.T_max)) / 2


class CosineAnnealingWarmRestarts(LRScheduler):
    """The rate falls along half a cosine, and begins again after T_0 epochs, then T_0 * T_mult, and so on.

    Args:
        T_0: the length of the first wave, in epochs.
        T_mult: how many times longer each wave is than the one before.
        eta_min: where each wave ends.

    Raises:
        ValueError: `T_0` or `T_mult` is no positive integer.

    Source: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts; Loshchilov, Hutter, "SGDR", 2017.
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0) -> None:
        if not (isinstance(T_0, int) and isinstance(T_mult, int) and T_0 > 0 and T_mult > 0):
            raise ValueError(
                f"CosineAnnealingWarmRestarts needs T_0= and T_mult= as integers of 1 or more, got {T_0} and {T_mult}"
            )
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer)

    def rate(self, base: float, epoch: int, group: int) -> float:
        length = self.T_0
        if self.T_mult == 1:
            epoch %= length
        while epoch >= length:
            epoch -= length
            length *= self.T_mult
        return self.eta_min + (base - self.eta_min) * (1 + cos(pi * epoch / length)) / 2


class OneCycleLR(LRScheduler):
    """The rate rises from max_lr / div_factor to `max_lr`, and falls far below where it began; call `step` per batch.

    Args:
        max_lr: the highest rate, or one for each group.
        total_steps: steps in all; or `epochs` and `steps_per_epoch`.
        pct_start: the part of the steps in which the rate rises.
        anneal_strategy: along half a cosine (`cos`) or straight (`linear`).
        cycle_momentum: move the momentum (of Adam, the first beta) the other way, between `max_momentum` and
            `base_momentum`.
        div_factor, final_div_factor: the first rate is max_lr / div_factor, the last that / final_div_factor.
        three_phase: fall as long as the rate rose, and then to the last rate.

    Raises:
        ValueError: a setting out of its range, or more steps than there are in all.

    Source: torch.optim.lr_scheduler.OneCycleLR; Smith, Topin, "Super-Convergence", 2018.
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: float | list[float], total_steps: int | None = None,
        epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
        anneal_strategy: str = "cos", cycle_momentum: bool = True, base_momentum: float = 0.85,
        max_momentum: float = 0.95, div_factor: float = 25.0, final_div_factor: float = 1e4, three_phase: bool = False,
    ) -> None:  # fmt: skip
        if total_steps is None and epochs is not None and steps_per_epoch is not None:
            total_steps = epochs * steps_per_epoch
        if total_steps is None or total_steps < 1:
            raise ValueError("OneCycleLR needs total_steps= of 1 or more, or epochs= and steps_per_epoch=")
        if not 0 <= pct_start <= 1 or anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                "OneCycleLR needs pct_start= from 0 to 1 and anneal_strategy= 'cos' or 'linear', "
                f"got {pct_start} and {anneal_strategy!r}"
            )
        groups = optimizer.param_groups
        highest = list(max_lr) if isinstance(max_lr, (list, tuple)) else [max_lr] * len(groups)
        if len(highest) != len(groups):
            raise ValueError(
                f"OneCycleLR needs one max_lr=, or one for each of {len(groups)} groups, got {len(highest)}"
            )
        if cycle_momentum and not all("betas" in group or "momentum" in group for group in groups):
            raise ValueError("OneCycleLR: this optimizer has no momentum to cycle: pass cycle_momentum=False")
        self.total_steps, self.max_lrs = total_steps, highest
        self.anneal_strategy, self.cycle_momentum = anneal_strategy, cycle_momentum
        self.base_momentum, self.max_momentum = base_momentum, max_momentum
        self.div_factor, self.final_div_factor = div_factor, final_div_factor
        top, last = pct_start * total_steps - 1, total_steps - 1
        self._ends = [top, 2 * top, last] if three_phase else [top, last]
        for group, most in zip(groups, highest, strict=True):
            group["initial_lr"] = most / div_factor
        super().__init__(optimizer)

    def _at(self, epoch: int, points: list[float]) -> float:
        """Where a value is that goes through `points`, one more than there are phases."""
        start = 0.0
        for end, before, after in zip(self._ends, points, points[1:], strict=False):
            if epoch <= end or end == self._ends[-1]:
                done = (epoch - start) / (end - start) if end != start else 1.0
                if self.anneal_strategy == "linear":
                    return before + (after - before) * done
                return after + (before - after) / 2 * (1 + cos(pi * done))
            start = end
        raise AssertionError("the last phase ends the loop")

    def rate(self, base: float, epoch: int, group: int) -> float:
        first = self.max_lrs[group] / self.div_factor
        last = first / self.final_div_factor
        middle = [self.max_lrs[group], first] if len(self._ends) == 3 else [self.max_lrs[group]]
        return self._at(epoch, [first, *middle, last])

    def step(self) -> None:
        """Go on to the next batch."""
        if self.last_epoch >= self.total_steps:
            raise ValueError(f"OneCycleLR has total_steps={self.total_steps}, and all are done: make it with more")
        super().step()
        if self.cycle_momentum:
            most, least = self.max_momentum, self.base_momentum
            middle = [least, most] if len(self._ends) == 3 else [least]
            momentum = self._at(self.last_epoch, [most, *middle, most])
            for group in self.optimizer.param_groups:
                change: dict[str, Any] = {"momentum": momentum}
                if "betas" in group:
                    change = {"betas": (momentum, *group["betas"][1:])}
                group.update(change)


class CyclicLR(LRScheduler):
    """The rate rises from `base_lr` to `max_lr` and falls back, again and again; call `step` per batch.

    Args:
        base_lr, max_lr: the ends of a cycle, each one number or one for each group.
        step_size_up, step_size_down: how many batches the rate rises and falls; as many, if only the first is given.
        mode: "triangular" for cycles of one height, "triangular2" for ever half as high ones, "exp_range" for heights
            of gamma ** batch.
        scale_fn: the height, as a function of the number of the cycle, or of the batch if `scale_mode` is "iterations";
            instead of `mode`.
        cycle_momentum: move the momentum (of Adam, the first beta) the other way, between `max_momentum` and
            `base_momentum`.

    Raises:
        ValueError: another mode, not one rate for each group, or an optimizer without momentum to cycle.

    Source: torch.optim.lr_scheduler.CyclicLR; Smith, "Cyclical Learning Rates for Training Neural Networks", 2017.
    """

    def __init__(
        self, optimizer: Optimizer, base_lr: float | list[float], max_lr: float | list[float],
        step_size_up: int = 2000, step_size_down: int | None = None, mode: str = "triangular", gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle", cycle_momentum: bool = True,
        base_momentum: float = 0.8, max_momentum: float = 0.9,
    ) -> None:  # fmt: skip
        heights: dict[str, Callable[[float], float]] = {
            "triangular": lambda x: 1.0, "triangular2": lambda x: 0.5 ** (x - 1), "exp_range": lambda x: gamma**x,
        }  # fmt: skip
        if scale_fn is None and mode not in heights:
            raise ValueError(f"CyclicLR needs mode= one of {', '.join(heights)}, or scale_fn=, got {mode!r}")
        groups = optimizer.param_groups
        if cycle_momentum and not all("betas" in group or "momentum" in group for group in groups):
            raise ValueError("CyclicLR: this optimizer has no momentum to cycle: pass cycle_momentum=False")
        self.up, self.down = step_size_up, step_size_down or step_size_up
        self.by_cycle = scale_mode == "cycle" if scale_fn is not None else mode != "exp_range"
        self.height = scale_fn or heights[mode]
        self.cycle_momentum, self.base_momentum, self.max_momentum = cycle_momentum, base_momentum, max_momentum
        lowest, self.max_lrs = (
            list(r) if isinstance(r, (list, tuple)) else [r] * len(groups) for r in (base_lr, max_lr)
        )
        if not len(lowest) == len(self.max_lrs) == len(groups):
            raise ValueError(f"CyclicLR needs one base_lr= and max_lr=, or one for each of {len(groups)} groups")
        for group, low in zip(groups, lowest, strict=True):
            group["initial_lr"] = low
        super().__init__(optimizer)
        self._move_momentum()

    def _part(self, epoch: int) -> float:
        """How far up the cycle is at this batch, times its height."""
        whole = self.up + self.down
        cycle, place = epoch // whole + 1, epoch % whole
        risen = place / self.up if place <= self.up else (whole - place) / self.down
        return risen * self.height(cycle if self.by_cycle else epoch)

    def rate(self, base: float, epoch: int, group: int) -> float:
        return base + (self.max_lrs[group] - base) * self._part(epoch)

    def step(self) -> None:
        """Go on to the next batch."""
        super().step()
        self._move_momentum()

    def _move_momentum(self) -> None:
        if self.cycle_momentum:
            momentum = self.max_momentum - (self.max_momentum - self.base_momentum) * self._part(self.last_epoch)
            for group in self.optimizer.param_groups:
                betas = group.get("betas")
                group.update({"momentum": momentum} if betas is None else {"betas": (momentum, *betas[1:])})
