"""How far numbers are off: mean squared and mean absolute error, and the plain mean of a figure."""

from __future__ import annotations

import hal
from hal.tensor import Tensor
from nn.metrics.metric import Metric, check_same_shape, number


class _MeanOf(Metric):
    """The mean over all elements of something that `_each` makes of input and target."""

    def _each(self, difference: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no _each: write what the mean is of")

    def _count(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        check_same_shape(type(self).__name__, input, target)
        return {"total": self._each(input - target).sum(), "count": number(input.numel(), input)}

    def _figure(self, sums: dict[str, Tensor]) -> Tensor:
        return sums["total"] / sums["count"]


class MeanSquaredError(_MeanOf):
    """The mean of (input - target)**2 over all elements; both of any one shape.

    Source: sklearn.metrics.mean_squared_error.
    """

    def _each(self, difference: Tensor) -> Tensor:
        return difference * difference


class MeanAbsoluteError(_MeanOf):
    """The mean of |input - target| over all elements; both of any one shape.

    Source: sklearn.metrics.mean_absolute_error.
    """

    def _each(self, difference: Tensor) -> Tensor:
        return difference.abs()


class Mean(Metric):
    """The mean of a figure over all items, such as the loss.

    `update(loss, batch)` weights it with the length of `batch`.
    """

    def _count(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        items = target.shape[0] if target.ndim else 1
        return {"total": input.mean() * items, "count": number(items, input)}

    def _figure(self, sums: dict[str, Tensor]) -> Tensor:
        total: Tensor = sums["total"]
        return total / sums["count"].to(total.dtype if total.dtype.is_floating else hal.float32)
