"""Adamax."""

from __future__ import annotations

from functools import partial
from typing import Any

import hal
from hal import ops
from hal.tensor import Tensor
from nn.optim.optimizer import Group, Optimizer, Params, check


class Adamax(Optimizer):
    """Adam that divides by the largest gradient of late instead of by the root of the mean of the squares.

    Args:
        lr: the learning rate.
        betas: how slowly the running mean moves, and how slowly the largest gradient is forgotten.
        eps: added to the size of each gradient.
        weight_decay: pulls parameters towards zero, as a part of the gradient.
        maximize: ascend instead.

    Raises:
        ValueError: a setting out of its range.

    Source: torch.optim.Adamax; Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015, section 7.1.
    """

    def __init__(
        self, params: Params, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        check(
            "Adamax",
            lr=(lr >= 0, lr, "of 0 or more"),
            eps=(eps >= 0, eps, "of 0 or more"),
            betas=(0 <= betas[0] < 1 and 0 <= betas[1] < 1, betas, "two numbers from 0 to below 1"),
            weight_decay=(weight_decay >= 0, weight_decay, "of 0 or more"),
        )
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, settings)

    def _update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: Group) -> None:
        zeros = partial(hal.zeros_like, param)
        self._start(state, step=float, exp_avg=zeros, exp_inf=zeros)
        self._count(state)
        (beta1, beta2), mean, largest = group["betas"], state["exp_avg"], state["exp_inf"]
        grad = -grad if group["maximize"] else grad
        if group["weight_decay"]:
            grad = grad + param.detach() * group["weight_decay"]
        mean.mul_(beta1).add_(grad * (1 - beta1))
        largest.copy_(ops.maximum(largest * beta2, ops.abs(grad) + group["eps"]))
        rate = self._number("rate", param, group, lambda lr, step: lr / (1 - beta1**step), state, param.dtype)
        param.sub_(mean / largest * rate)
