"""Adagrad."""

from __future__ import annotations

from typing import Any

import hal
from hal import ops
from hal.tensor import Tensor
from nn.optim.optimizer import Group, Optimizer, Params, check


class Adagrad(Optimizer):
    """Steps by the gradient, divided by the root of the sum of all its squares so far.

    Args:
        lr: the learning rate.
        lr_decay: step t takes lr / (1 + (t - 1) * lr_decay).
        weight_decay: pulls parameters towards zero.
        initial_accumulator_value: what the sum begins with.
        eps: added to the root.
        maximize: ascend instead.

    Raises:
        ValueError: a setting out of its range.

    Source: torch.optim.Adagrad; Duchi, Hazan, Singer, "Adaptive Subgradient Methods", 2011.
    """

    def __init__(
        self, params: Params, lr: float = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        settings = {
            "lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps,
            "initial_accumulator_value": initial_accumulator_value,
        }  # fmt: skip
        check("Adagrad", **{name: (value >= 0, value, "of 0 or more") for name, value in settings.items()})
        super().__init__(params, {**settings, "maximize": maximize})

    def _update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: Group) -> None:
        self._start(state, step=float, sum=lambda: hal.full_like(param, group["initial_accumulator_value"]))
        self._count(state)
        decay = group["lr_decay"]
        lr = self._number("lr", param, group, lambda lr, step: lr / (1 + (step - 1) * decay), state)
        inputs = (param, grad, state["sum"], lr)
        names = ("eps", "weight_decay", "maximize")
        hal.run_into((param, state["sum"]), ops.adagrad_step, inputs, {name: group[name] for name in names})
