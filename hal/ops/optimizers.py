"""Optimizer steps: the new parameter and state, from the gradient, by torch's formulas.

Run through `dispatch.run_into` with the parameter and its state as targets they change them in place. What changes on
every call (the learning rate, corrections for the number of steps) are 0-d tensors of the parameter's dtype or float32;
what stays the same are settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.errors import DTypeError, ShapeError
from hal.op import Array, Cost, Op, Rng, Sample, Specs, in_norm
from hal.ops.common import FLOATS, check_kind, quiet, uniform
from hal.ops.precision import HALVES
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor

NO_GRADIENT = "an optimizer step is where gradients end"
_STEP = in_norm(16, "a dozen roundings of terms no larger than the parameter or the step")


def _check(who: str, param: Spec, others: dict[str, Spec], numbers: dict[str, Spec]) -> None:
    """`others` are of the parameter's spec, `numbers` are 0-d."""
    check_kind(who, param, FLOATS)
    for name, spec in others.items():
        if spec is not param:
            raise (ShapeError if spec.shape != param.shape else DTypeError)(
                f"{who} needs a {name} like its parameter, {param}, got {spec}"
            )
    for name, spec in numbers.items():
        if spec.shape != ():
            raise ShapeError(f"{who} needs a single number as its {name}, got shape {spec.shape}")
        if spec.dtype not in (param.dtype, dtypes.float32):
            raise DTypeError(f"{who} needs its {name} in {param.dtype.name} or float32, got {spec.dtype.name}")


def _wide(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decomposition that computes in the parameter's type, or in float32 for half precision, and rounds once."""

    def decompose(param: Tensor, *others: Tensor, **settings: Any) -> Any:
        narrow = param.dtype
        wide = dtypes.float32 if narrow in HALVES else narrow
        inputs = (x if x.dtype is wide else ops.cast(x, dtype=wide) for x in (param, *others))
        result = function(*inputs, **settings)
        if isinstance(result, tuple):
            return tuple(ops.cast(x, dtype=narrow) for x in result) if narrow is not wide else result
        return ops.cast(result, dtype=narrow) if narrow is not wide else result

    return decompose


def _directed(param: Any, grad: Any, weight_decay: float, maximize: bool) -> Any:
    """The gradient of what is to be made small: with its sign, and the weights' own part."""
    grad = -grad if maximize else grad
    return grad + param * weight_decay if weight_decay else grad


def _mixed(old: Any, new: Any, share: float) -> Any:
    return old + (new - old) * share


def _cost(flops: int) -> Callable[..., Cost]:
    def cost(*specs: Spec, out: Specs, **settings: Any) -> Cost:
        outs = out if isinstance(out, tuple) else (out,)
        return Cost(flops * outs[0].size, sum(s.nbytes for s in (*specs, *outs)))

    return cost


def _samples(
    state: tuple[tuple[float, float], ...], numbers: tuple[float, ...], calls: tuple[dict[str, Any], ...],
    count: Callable[[dict[str, Any]], int] | None = None,
) -> Callable[[Rng], Iterator[Sample]]:  # fmt: skip
    """Samples (param, grad, *state, *numbers); `count` says how much state follows the numbers instead."""

    def samples(rng: Rng) -> Iterator[Sample]:
        def inputs(shape: tuple[int, ...], given: dict[str, Any]) -> tuple[Array, ...]:
            extra = count(given) if count is not None else 0
            return (
                uniform(rng, shape), uniform(rng, shape), *(uniform(rng, shape, *s) for s in state),
                *(np.array(n, np.float32) for n in numbers), *(uniform(rng, shape, -0.01, 0.01) for _ in range(extra)),
            )  # fmt: skip

        for given in calls:
            yield Sample(inputs((3, 4), given), given, smooth=False)
        for shape in ((), (0,), (5,), (2, 3, 1, 2)):
            yield Sample(inputs(shape, calls[0]), calls[0], smooth=False)
        yield Sample(tuple(x.T for x in inputs((5, 4), calls[-1])), calls[-1], smooth=False)
        for given in (calls[0], calls[-1]):
            yield Sample(inputs((70_001,), given), given, smooth=False)

    return samples


# Gradient descent.


def _infer_sgd(param: Spec, grad: Spec, lr: Spec, *, weight_decay: float = 0.0, maximize: bool = False) -> Spec:
    _check("sgd_step", param, {"grad": grad}, {"lr": lr})
    return param


def _decompose_sgd(param: Any, grad: Any, lr: Any, *, weight_decay: float = 0.0, maximize: bool = False) -> Any:
    return param - _directed(param, grad, weight_decay, maximize) * lr


sgd_step = Op(
    "sgd_step", _infer_sgd, quiet(_decompose_sgd),
    _samples((), (0.1,), ({}, {"weight_decay": 0.01}, {"maximize": True}, {"weight_decay": 0.1, "maximize": True})),
    None, _wide(_decompose_sgd), _cost(2), no_gradient=NO_GRADIENT, tolerance=_STEP,
    doc="""One step of gradient descent: param - lr * grad.

    param, grad: of one spec; lr: 0-d. weight_decay adds its multiple of the parameter to the gradient.

    Source: torch.optim.SGD.""",
)  # fmt: skip


def _infer_momentum(
    param: Spec, grad: Spec, buf: Spec, lr: Spec, *, momentum: float = 0.9, dampening: float = 0.0,
    weight_decay: float = 0.0, nesterov: bool = False, maximize: bool = False,
) -> tuple[Spec, Spec]:  # fmt: skip
    _check("sgd_momentum_step", param, {"grad": grad, "buf": buf}, {"lr": lr})
    return param, param


def _decompose_momentum(
    param: Any, grad: Any, buf: Any, lr: Any, *, momentum: float = 0.9, dampening: float = 0.0,
    weight_decay: float = 0.0, nesterov: bool = False, maximize: bool = False,
) -> Any:  # fmt: skip
    grad = _directed(param, grad, weight_decay, maximize)
    buf = buf * momentum + (grad * (1 - dampening) if dampening else grad)
    return param - (grad + buf * momentum if nesterov else buf) * lr, buf


sgd_momentum_step = Op(
    "sgd_momentum_step", _infer_momentum, quiet(_decompose_momentum),
    _samples(((-1.0, 1.0),), (0.1,), (
        {}, {"momentum": 0.5, "dampening": 0.2}, {"momentum": 0.0}, {"nesterov": True},
        {"nesterov": True, "weight_decay": 0.1, "maximize": True})),
    None, _wide(_decompose_momentum), _cost(5), no_gradient=NO_GRADIENT, tolerance=_STEP,
    doc="""One step of gradient descent with momentum: the new (param, buf).

    buf' = momentum * buf + (1 - dampening) * grad; param' = param - lr * buf', or, with nesterov,
    param - lr * (grad + momentum * buf'). torch's first step has buf' = grad: start from zeros, with dampening=0.

    Source: torch.optim.SGD.""",
)  # fmt: skip


# Adam and AdamW.


def _infer_adam(
    param: Spec, grad: Spec, m: Spec, v: Spec, lr: Spec, bias1: Spec, bias2: Spec, *, beta1: float = 0.9,
    beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0, decoupled: bool = False, maximize: bool = False,
) -> tuple[Spec, Spec, Spec]:  # fmt: skip
    _check("adam_step", param, {"grad": grad, "m": m, "v": v}, {"lr": lr, "bias1": bias1, "bias2": bias2})
    return param, param, param


def _adam(root: Callable[[Any], Any]) -> Callable[..., Any]:
    def step(
        param: Any, grad: Any, m: Any, v: Any, lr: Any, bias1: Any, bias2: Any, *, beta1: float = 0.9,
        beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0, decoupled: bool = False,
        maximize: bool = False,
    ) -> Any:  # fmt: skip
        grad = _directed(param, grad, 0.0 if decoupled else weight_decay, maximize)
        if decoupled and weight_decay:
            param = param - param * (lr * weight_decay)
        m = _mixed(m, grad, 1 - beta1)
        v = v * beta2 + grad * grad * (1 - beta2)
        return param - m / (root(v) / root(bias2) + eps) * (lr / bias1), m, v

    return step


adam_step = Op(
    "adam_step", _infer_adam, quiet(_adam(np.sqrt)),
    _samples(((-1.0, 1.0), (0.0, 1.0)), (0.01, 1 - 0.9**3, 1 - 0.999**3), (
        {}, {"beta1": 0.5, "beta2": 0.9, "eps": 1e-3}, {"weight_decay": 0.1}, {"maximize": True},
        {"weight_decay": 0.1, "decoupled": True}, {"weight_decay": 0.1, "decoupled": True, "maximize": True})),
    None, _wide(_adam(lambda x: ops.sqrt(x))), _cost(14), no_gradient=NO_GRADIENT, tolerance=_STEP,
    doc="""One step of Adam, or AdamW with decoupled=True: the new (param, m, v).

    m, v: running means of the gradient and of its square; lr: 0-d; bias1, bias2: 1 - beta1**t and 1 - beta2**t for step
    t, 0-d. m' = beta1 m + (1 - beta1) grad, v' = beta2 v + (1 - beta2) grad**2,
    param' = param - lr / bias1 * m' / (sqrt(v' / bias2) + eps). weight_decay is added to the gradient, or, decoupled,
    shrinks the parameter by lr * weight_decay first.

    Source: torch.optim.Adam, torch.optim.AdamW; Kingma, Ba 2015; Loshchilov, Hutter 2019.""",
)  # fmt: skip


# RMSprop and Adagrad.


def rmsprop_state(momentum: float, centered: bool) -> tuple[str, ...]:
    """What `rmsprop_step` takes after the learning rate, in order."""
    return ("buf",) * bool(momentum) + ("average",) * centered


def _infer_rmsprop(
    param: Spec, grad: Spec, square: Spec, lr: Spec, *state: Spec, alpha: float = 0.99, eps: float = 1e-8,
    weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, maximize: bool = False,
) -> tuple[Spec, ...]:  # fmt: skip
    wanted = rmsprop_state(momentum, centered)
    if len(state) != len(wanted):
        names = ", ".join(wanted) or "nothing more"
        raise ShapeError(
            f"rmsprop_step with momentum={momentum} and centered={centered} needs {names} after lr, "
            f"got {len(state)} more inputs"
        )
    others = {"grad": grad, "square": square, **dict(zip(wanted, state, strict=True))}
    _check("rmsprop_step", param, others, {"lr": lr})
    return (param, param, *state)


def _rmsprop(root: Callable[[Any], Any]) -> Callable[..., Any]:
    def step(
        param: Any, grad: Any, square: Any, lr: Any, *state: Any, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, maximize: bool = False,
    ) -> Any:  # fmt: skip
        grad = _directed(param, grad, weight_decay, maximize)
        square = square * alpha + grad * grad * (1 - alpha)
        spread = square
        after: tuple[Any, ...] = ()
        if centered:
            average = _mixed(state[-1], grad, 1 - alpha)
            spread, after = square - average * average, (average,)
        step = grad / (root(spread) + eps)
        if momentum:
            step = state[0] * momentum + step
            after = (step, *after)
        return (param - step * lr, square, *after)

    return step


rmsprop_step = Op(
    "rmsprop_step", _infer_rmsprop, quiet(_rmsprop(np.sqrt)),
    _samples(((0.5, 1.0),), (0.01,), (
        {}, {"alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}, {"momentum": 0.9}, {"centered": True}, {"maximize": True},
        {"momentum": 0.9, "centered": True, "weight_decay": 0.1, "maximize": True}),
        lambda given: len(rmsprop_state(given.get("momentum", 0.0), given.get("centered", False)))),
    None, _wide(_rmsprop(lambda x: ops.sqrt(x))), _cost(10), no_gradient=NO_GRADIENT, tolerance=_STEP,
    doc="""One step of RMSprop: the new (param, square, buf if momentum, average if centered).

    After lr (0-d) come buf, if momentum is not 0, and average, if centered. square' = alpha square + (1 - alpha)
    grad**2; the step is grad / (sqrt(square') + eps), where centered subtracts the square of the running mean of the
    gradient under the root; with momentum buf' = momentum buf + step is taken instead; param' = param - lr * step.

    Source: torch.optim.RMSprop.""",
)  # fmt: skip


def _infer_adagrad(
    param: Spec, grad: Spec, total: Spec, lr: Spec, *, eps: float = 1e-10, weight_decay: float = 0.0,
    maximize: bool = False,
) -> tuple[Spec, Spec]:  # fmt: skip
    _check("adagrad_step", param, {"grad": grad, "total": total}, {"lr": lr})
    return param, param


def _adagrad(root: Callable[[Any], Any]) -> Callable[..., Any]:
    def step(
        param: Any, grad: Any, total: Any, lr: Any, *, eps: float = 1e-10, weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> Any:  # fmt: skip
        grad = _directed(param, grad, weight_decay, maximize)
        total = total + grad * grad
        return param - grad / (root(total) + eps) * lr, total

    return step


adagrad_step = Op(
    "adagrad_step", _infer_adagrad, quiet(_adagrad(np.sqrt)),
    _samples(((0.0, 1.0),), (0.1,), ({}, {"weight_decay": 0.1, "eps": 1e-3}, {"weight_decay": 0.1, "maximize": True})),
    None, _wide(_adagrad(lambda x: ops.sqrt(x))), _cost(7), no_gradient=NO_GRADIENT, tolerance=_STEP,
    doc="""One step of Adagrad: the new (param, total).

    total' = total + grad**2; param' = param - lr * grad / (sqrt(total') + eps). torch's lr_decay is in the lr (0-d)
    that the caller gives: lr / (1 + (t - 1) * lr_decay) for step t.

    Source: torch.optim.Adagrad.""",
)  # fmt: skip
