"""Rprop."""

from __future__ import annotations

from functools import partial
from typing import Any

import hal
from hal import ops
from hal.tensor import Tensor
from nn.optim.optimizer import Group, Optimizer, Params, check


class Rprop(Optimizer):
    """Steps by the sign of the gradient of all data: longer ones while it stays, shorter ones when it changes.

    Args:
        lr: how long the first step of each element is.
        etas: what a step is multiplied with when the sign has changed, and when it has not.
        step_sizes: the shortest and the longest step.
        maximize: ascend instead.

    Raises:
        ValueError: a setting out of its range.

    Source: torch.optim.Rprop; Riedmiller, Braun, "A Direct Adaptive Method for Faster Backpropagation", 1993.
    """

    def __init__(
        self, params: Params, lr: float = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50), *, maximize: bool = False,
    ) -> None:  # fmt: skip
        check(
            "Rprop",
            lr=(lr >= 0, lr, "of 0 or more"),
            etas=(0 < etas[0] < 1 < etas[1], etas, "one number below 1 and one above"),
        )
        super().__init__(params, {"lr": lr, "etas": etas, "step_sizes": step_sizes, "maximize": maximize})

    def _update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: Group) -> None:
        first = partial(hal.full, param.shape, float(group["lr"]), dtype=param.dtype, device=param.device)
        self._start(state, step=float, prev=partial(hal.zeros_like, param), step_size=first)
        self._count(state)
        (shorter, longer), (least, most) = group["etas"], group["step_sizes"]
        grad = -grad if group["maximize"] else grad
        before, size = state["prev"], state["step_size"]
        agree = grad * before
        turned = ops.less(agree, 0.0)
        size.copy_(ops.clip(size * ops.where(turned, shorter, ops.where(ops.greater(agree, 0.0), longer, 1.0)),
                            low=float(least), high=float(most)))  # fmt: skip
        kept = ops.where(turned, 0.0, grad)  # where it has turned, this step is left out
        param.sub_(ops.sign(kept) * size)
        before.copy_(kept)
