"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from functools import partial
from typing import Any

import hal
from hal import ops, tracing
from hal.tensor import Tensor
from nn.optim.optimizer import Group, Optimizer, Params, check


class SGD(Optimizer):
    """Gradient descent: param -= lr * (grad + weight_decay * param), and with momentum a running mean of that.

    Args:
        lr: the learning rate.
        momentum: how much of the last step goes on.
        dampening: which part of the gradient does not enter the momentum.
        weight_decay: pulls parameters towards zero.
        nesterov: look ahead by one step of the momentum.
        maximize: ascend instead.

    Raises:
        ValueError: a setting out of its range.

    Source: torch.optim.SGD; Sutskever et al., "On the Importance of Initialization and Momentum", 2013.
    """

    def __init__(
        self, params: Params, lr: float = 1e-3, momentum: float = 0, dampening: float = 0, weight_decay: float = 0,
        nesterov: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        check(
            "SGD",
            lr=(lr >= 0, lr, "of 0 or more"),
            momentum=(momentum >= 0, momentum, "of 0 or more"),
            weight_decay=(weight_decay >= 0, weight_decay, "of 0 or more"),
            nesterov=(not nesterov or (momentum > 0 and dampening == 0), nesterov, "with a momentum and no dampening"),
        )
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov,
            "maximize": maximize,
        })  # fmt: skip

    def _update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: Group) -> None:
        lr = self._number("lr", param, group)
        settings = {"weight_decay": group["weight_decay"], "maximize": group["maximize"]}
        if not group["momentum"]:
            hal.run_into((param,), ops.sgd_step, (param, grad, lr), settings)
            return
        dampening = group["dampening"]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = tracing.once(partial(hal.zeros_like, param))
            if dampening:
                tracing.only_now()
            dampening = 0  # the first gradient counts in full
        buffer = state["momentum_buffer"]
        settings |= {"momentum": group["momentum"], "dampening": dampening, "nesterov": group["nesterov"]}
        hal.run_into((param, buffer), ops.sgd_momentum_step, (param, grad, buffer, lr), settings)
