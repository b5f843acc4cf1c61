"""Lion."""

from __future__ import annotations

from functools import partial
from typing import Any

import hal
from hal.tensor import Tensor
from nn.optim.optimizer import Group, Optimizer, Params, check


class Lion(Optimizer):
    """Steps by the sign of a mean of the gradient and its running mean: every element moves by the learning rate.

    Args:
        lr: the learning rate, three to ten times smaller than for AdamW.
        betas: the weight of the running mean in a step, and how slowly it moves.
        weight_decay: pulls parameters towards zero, apart from the gradient.
        maximize: ascend instead.

    Raises:
        ValueError: a setting out of its range.

    Source: Chen and others, "Symbolic Discovery of Optimization Algorithms", 2023, algorithm 2.
    """

    def __init__(
        self, params: Params, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0, *,
        maximize: bool = False,
    ) -> None:  # fmt: skip
        check(
            "Lion",
            lr=(lr >= 0, lr, "of 0 or more"),
            betas=(0 <= betas[0] < 1 and 0 <= betas[1] < 1, betas, "two numbers from 0 to below 1"),
            weight_decay=(weight_decay >= 0, weight_decay, "of 0 or more"),
        )
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize})

    def _update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: Group) -> None:
        self._start(state, exp_avg=partial(hal.zeros_like, param))
        mean, (beta1, beta2), decay = state["exp_avg"], group["betas"], group["weight_decay"]
        number = partial(self._number, param=param, group=group, dtype=param.dtype)
        grad = -grad if group["maximize"] else grad
        direction = (mean * beta1 + grad * (1 - beta1)).sign()
        if decay:
            param.mul_(number("shrink", formula=lambda lr, step: 1 - lr * decay))
        param.sub_(direction * number("lr"))
        mean.mul_(beta2).add_(grad * (1 - beta2))
