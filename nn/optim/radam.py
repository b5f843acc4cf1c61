"""RAdam."""

from __future__ import annotations

from functools import partial
from math import sqrt
from typing import Any

import hal
from hal.tensor import Tensor
from nn.optim.optimizer import Group, Optimizer, Params, check


class RAdam(Optimizer):
    """Adam that steps by the running mean alone while too few squares have been seen to divide by, then more and more.

    Args:
        lr: the learning rate.
        betas: how slowly the two running means move.
        eps: added to the root.
        weight_decay: pulls parameters towards zero, as a part of the gradient.
        decoupled_weight_decay: let the decay be apart from the gradient.
        maximize: ascend instead.

    Raises:
        ValueError: a setting out of its range.

    Source: torch.optim.RAdam; Liu and others, "On the Variance of the Adaptive Learning Rate and Beyond", 2020.
    """

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, decoupled_weight_decay: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        check(
            "RAdam",
            lr=(lr >= 0, lr, "of 0 or more"),
            eps=(eps >= 0, eps, "of 0 or more"),
            betas=(0 <= betas[0] < 1 and 0 <= betas[1] < 1, betas, "two numbers from 0 to below 1"),
            weight_decay=(weight_decay >= 0, weight_decay, "of 0 or more"),
        )
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        })  # fmt: skip

    def _update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: Group) -> None:
        zeros = partial(hal.zeros_like, param)
        self._start(state, step=float, exp_avg=zeros, exp_avg_sq=zeros)
        self._count(state)
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        number = partial(self._number, param=param, group=group, dtype=param.dtype)
        grad = -grad if group["maximize"] else grad
        if decay and group["decoupled_weight_decay"]:
            param.mul_(number("shrink", formula=lambda lr, step: 1 - lr * decay))
        elif decay:
            grad = grad + param.detach() * decay
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.mul_(beta1).add_(grad * (1 - beta1))
        square.mul_(beta2).add_(grad * grad * (1 - beta2))

        def plain(lr: float, step: float) -> float:
            return 0.0 if _trust(beta2, step) else lr / (1 - beta1**step)

        def adaptive(lr: float, step: float) -> float:
            return lr * _trust(beta2, step) * sqrt(1 - beta2**step) / (1 - beta1**step)

        rates = number("adaptive", formula=adaptive, step=state) / (square.sqrt() + group["eps"])
        param.sub_(mean * (rates + number("plain", formula=plain, step=state)))


def _trust(beta2: float, step: float) -> float:
    """How far the mean of so many squares can be divided by; 0 while there are too few."""
    if step < 1:
        return 0.0
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * beta2**step / (1 - beta2**step)
    if length <= 5:
        return 0.0
    return sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
