"""Adadelta."""

from __future__ import annotations

from functools import partial
from typing import Any

import hal
from hal.tensor import Tensor
from nn.optim.optimizer import Group, Optimizer, Params, check


class Adadelta(Optimizer):
    """Steps by the gradient, times the root of the mean square of the last steps over that of the last gradients.

    Args:
        lr: a factor on the step.
        rho: how slowly the two running means move.
        eps: added under both roots.
        weight_decay: pulls parameters towards zero.
        maximize: ascend instead.

    Raises:
        ValueError: a setting out of its range.

    Source: torch.optim.Adadelta; Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012.
    """

    def __init__(
        self, params: Params, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0, *,
        maximize: bool = False,
    ) -> None:  # fmt: skip
        check(
            "Adadelta",
            lr=(lr >= 0, lr, "of 0 or more"),
            rho=(0 <= rho <= 1, rho, "from 0 to 1"),
            eps=(eps >= 0, eps, "of 0 or more"),
            weight_decay=(weight_decay >= 0, weight_decay, "of 0 or more"),
        )
        super().__init__(params, {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
        })  # fmt: skip

    def _update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: Group) -> None:
        zeros = partial(hal.zeros_like, param)
        self._start(state, step=float, square_avg=zeros, acc_delta=zeros)
        self._count(state)
        rho, eps = group["rho"], group["eps"]
        grad = -grad if group["maximize"] else grad
        if group["weight_decay"]:
            grad = grad + param.detach() * group["weight_decay"]
        square, steps = state["square_avg"], state["acc_delta"]
        square.mul_(rho).add_(grad * grad * (1 - rho))
        delta = (steps + eps).sqrt() / (square + eps).sqrt() * grad
        steps.mul_(rho).add_(delta * delta * (1 - rho))
        param.sub_(delta * self._number("lr", param, group, dtype=param.dtype))
