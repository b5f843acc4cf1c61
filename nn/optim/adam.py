"""Adam and AdamW."""

from __future__ import annotations

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
        if not state:
            state.update(step=0.0, exp_avg=hal.zeros_like(param), exp_avg_sq=hal.zeros_like(param))
            if group["amsgrad"]:
                state["max_exp_avg_sq"] = hal.zeros_like(param)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        bias1, bias2 = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
        if group["amsgrad"]:
            _amsgrad_step(param, grad, state, group, bias1, bias2)
            return
        m, v = state["exp_avg"], state["exp_avg_sq"]
        numbers = (self._number(n, param) for n in (group["lr"], bias1, bias2))
        hal.run_into((param, m, v), ops.adam_step, (param, grad, m, v, *numbers), {
            "beta1": beta1, "beta2": beta2, "eps": group["eps"], "weight_decay": group["weight_decay"],
            "decoupled": group["decoupled_weight_decay"], "maximize": group["maximize"],
        })  # fmt: skip


def _amsgrad_step(param: Tensor, grad: Tensor, state: dict[str, Any], group: Group, bias1: float, bias2: float) -> None:
    """A step of the variant that has no op of its own."""
    (beta1, beta2), lr, decay = group["betas"], float(group["lr"]), group["weight_decay"]
    grad = -grad if group["maximize"] else grad
    if decay and group["decoupled_weight_decay"]:
        param.mul_(1 - lr * decay)
    elif decay:
        grad = grad + param.detach() * decay
    state["exp_avg"].mul_(beta1).add_(grad * (1 - beta1))
    state["exp_avg_sq"].mul_(beta2).add_(grad * grad * (1 - beta2))
    largest = state["max_exp_avg_sq"]
    hal.run_into((largest,), ops.maximum, (largest, state["exp_avg_sq"]), {})
    root = (largest * (1 / bias2)).sqrt() + group["eps"]
    param.sub_(state["exp_avg"] / root * (lr / bias1))


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters apart from the gradient; arguments as in `Adam`.

    Source: torch.optim.AdamW; Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019.
    """

    def __init__(
        self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True)
