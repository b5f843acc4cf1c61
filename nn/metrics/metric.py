"""What all metrics have in common: sums that stay on the device, can be merged and saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import hal
from hal.errors import ShapeError, StateError
from hal.tensor import Tensor

Self = TypeVar("Self", bound="Metric")


class Metric:
    """A figure over all batches that `update` has been given since the beginning, or the last `reset`.

    A subclass gives `_count` (the sums of one batch, as tensors by name, all of which add up) and `_figure` (what the
    sums make). Nothing here waits for the device: that happens when the result of `compute` is looked at.

    Attributes:
        sums: what has been summed up so far; empty before the first batch.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def _count(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError(f"{type(self).__name__} has no _count: write what the sums of one batch are")

    def _figure(self, sums: dict[str, Tensor]) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no _figure: write what the sums make")

    def update(self: Self, input: Tensor, target: Tensor) -> Self:
        """Count a batch in.

        Raises:
            ShapeError, DTypeError: it is not what the metric takes; nothing has been counted then.
        """
        with hal.no_grad():
            batch = self._count(input.detach(), target.detach())
            self.sums = self._added(self.sums, batch)
        return self

    def compute(self) -> Tensor:
        """The figure over all that was counted, on the device; NaN where nothing was.

        Raises:
            ValueError: no batch was counted yet.
        """
        if not self.sums:
            raise ValueError(f"{type(self).__name__}.compute needs a batch first: call update(input, target)")
        with hal.no_grad():
            return self._figure(self.sums)

    def reset(self: Self) -> Self:
        """Begin anew."""
        self.sums = {}
        return self

    def merge(self: Self, others: Iterable[Self]) -> Self:
        """Count in what other metrics of this kind have counted, on whatever device.

        Raises:
            TypeError: a metric of another kind.
        """
        found = list(others)
        for other in found:
            if type(other) is not type(self):
                raise TypeError(f"{type(self).__name__} can merge its own kind, got {type(other).__name__}")
        with hal.no_grad():
            for other in found:
                if other.sums:
                    device = next(iter(self.sums.values())).device if self.sums else None
                    moved = {name: v if device is None else v.to(device) for name, v in other.sums.items()}
                    self.sums = self._added(self.sums, moved)
        return self

    def _added(self, sums: dict[str, Tensor], more: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: sums[name] + value if name in sums else value for name, value in more.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """What was summed up, for a checkpoint."""
        return dict(self.sums)

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            StateError: something in it is no tensor.
        """
        wrong = [name for name, value in state_dict.items() if not isinstance(value, Tensor)]
        if wrong:
            raise StateError(f"{type(self).__name__}.load_state_dict needs tensors, got something else for {wrong}")
        self.sums = dict(state_dict)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({float(self.compute()):.4g})" if self._is_number else f"{type(self).__name__}()"

    @property
    def _is_number(self) -> bool:
        return bool(self.sums) and self.compute().numel() == 1


def check_same_shape(who: str, input: Tensor, target: Tensor) -> None:
    """Raise ShapeError unless both have one shape."""
    if input.shape != target.shape:
        raise ShapeError(f"{who} needs input and target of one shape, got {input.shape} and {target.shape}")


def number(value: Any, like: Tensor) -> Tensor:
    """An int64 scalar beside `like`, without waiting for it."""
    return hal.tensor(value, dtype=hal.int64, device=like.device)
