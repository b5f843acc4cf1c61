"""RMSprop."""

from __future__ import annotations

from functools import partial
from typing import Any

import hal
from hal import ops
from hal.tensor import Tensor
from nn.optim.optimizer import Group, Optimizer, Params, check


class RMSprop(Optimizer):
    """Steps by the gradient, divided by the root of the running mean of its square.

    Args:
        lr: the learning rate.
        alpha: how slowly the running mean moves.
        eps: added to the root.
        weight_decay: pulls parameters towards zero.
        momentum: how much of the last step goes on.
        centered: divide by the gradient's standard deviation instead.
        maximize: ascend instead.

    Raises:
        ValueError: a setting out of its range.

    Source: torch.optim.RMSprop; Hinton, "Neural Networks for Machine Learning", lecture 6e; Graves, 2013.
    """

    def __init__(
        self, params: Params, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0,
        momentum: float = 0, centered: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        settings = {"lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "weight_decay": weight_decay}
        check("RMSprop", **{name: (value >= 0, value, "of 0 or more") for name, value in settings.items()})
        super().__init__(params, {**settings, "centered": centered, "maximize": maximize})

    def _update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: Group) -> None:
        kept = ["square_avg", *["momentum_buffer"] * bool(group["momentum"]), *["grad_avg"] * bool(group["centered"])]
        self._start(state, step=float, **{name: partial(hal.zeros_like, param) for name in kept})
        self._count(state)
        square, *others = (state[name] for name in kept)
        names = ("alpha", "eps", "weight_decay", "momentum", "centered", "maximize")
        inputs = (param, grad, square, self._number("lr", param, group), *others)
        hal.run_into((param, square, *others), ops.rmsprop_step, inputs, {name: group[name] for name in names})
