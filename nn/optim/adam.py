"""Adam and AdamW."""

from __future__ import annotations

from functools import partial
from typing import Any

import hal
from hal import ops
from hal.tensor import Tensor
from nn.optim.optimizer import Group, Optimizer, Params, check


class Adam(Optimizer):
    """Steps by the running mean of the gradient, divided by the root of that of its square.

    Args:
        lr: the learning rate.
        betas: how slowly the two running means move.
        eps: added to the root.
        weight_decay: pulls parameters towards zero, as a part of the gradient.
        amsgrad: divide by the largest running mean of the square so far.
        maximize: ascend instead.
        decoupled_weight_decay: let the decay be apart from the gradient, as in AdamW.

    Raises:
        ValueError: a setting out of its range.

    Source: torch.optim.Adam; Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015; Reddi, Kale, Kumar, "On
    the Convergence of Adam and Beyond", 2018, for amsgrad.
    """

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, amsgrad: bool = False, *, maximize: bool = False, decoupled_weight_decay: bool = False,
    ) -> None:  # fmt: skip
        check(
            type(self).__name__,
            lr=(lr >= 0, lr, "of 0 or more"),
            eps=(eps >= 0, eps, "of 0 or more"),
            betas=(0 <= betas[0] < 1 and 0 <= betas[1] < 1, betas, "two numbers from 0 to below 1"),
            weight_decay=(weight_decay >= 0, weight_decay, "of 0 or more"),
        )
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize, "decoupled_weight_decay": decoupled_weight_decay,
        })  # fmt: skip

    def _update(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: Group) -> None:
        zeros = partial(hal.zeros_like, param)
        self._start(state, step=float, exp_avg=zeros, exp_avg_sq=zeros)
        self._count(state)
        if group["amsgrad"]:
            self._start(state, max_exp_avg_sq=zeros)
            self._amsgrad_step(param, grad, state, group)
            return
        beta1, beta2 = group["betas"]
        m, v = state["exp_avg"], state["exp_avg_sq"]
        numbers = (
            self._number("lr", param, group),
            self._number("bias1", param, group, lambda lr, step: 1 - beta1**step, state),
            self._number("bias2", param, group, lambda lr, step: 1 - beta2**step, state),
        )
        hal.run_into((param, m, v), ops.adam_step, (param, grad, m, v, *numbers), {
            "beta1": beta1, "beta2": beta2, "eps": group["eps"], "weight_decay": group["weight_decay"],
            "decoupled": group["decoupled_weight_decay"], "maximize": group["maximize"],
        })  # fmt: skip

    def _amsgrad_step(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: Group) -> None:
        """A step of the variant that has no op of its own."""
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        number = partial(self._number, param=param, group=group, dtype=param.dtype)
        grad = -grad if group["maximize"] else grad
        if decay and group["decoupled_weight_decay"]:
            param.mul_(number("shrink", formula=lambda lr, step: 1 - lr * decay))
        elif decay:
            grad = grad + param.detach() * decay
        state["exp_avg"].mul_(beta1).add_(grad * (1 - beta1))
        state["exp_avg_sq"].mul_(beta2).add_(grad * grad * (1 - beta2))
        largest = state["max_exp_avg_sq"]
        hal.run_into((largest,), ops.maximum, (largest, state["exp_avg_sq"]), {})
        scale = number("scale", formula=lambda lr, step: 1 / (1 - beta2**step), step=state)
        root = (largest * scale).sqrt() + group["eps"]
        rate = number("rate", formula=lambda lr, step: lr / (1 - beta1**step), step=state)
        param.sub_(state["exp_avg"] / root * rate)


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters apart from the gradient; arguments as in `Adam`.

    Source: torch.optim.AdamW; Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019.
    """

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)
