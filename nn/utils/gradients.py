"""All parameters as one vector, and gradients kept from growing too large."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

import hal
from hal import ops
from hal.errors import ShapeError
from hal.tensor import Tensor
from nn.functional.normalization import p_norm


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of the parameters in one vector. Source: torch.nn.utils.parameters_to_vector."""
    return ops.concat(*(ops.reshape(p, shape=(p.spec.size,)) for p in parameters), axis=0)


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Put the elements of a vector into the parameters, in place. Source: torch.nn.utils.vector_to_parameters.

    Raises:
        ShapeError: the vector has more or fewer elements than the parameters together.
    """
    targets = list(parameters)
    wanted = sum(p.spec.size for p in targets)
    if vec.shape != (wanted,):
        raise ShapeError(f"vector_to_parameters needs a vector of {wanted} elements, got shape {vec.shape}")
    start = 0
    with hal.no_grad():
        for p in targets:
            part = vec[start : start + p.spec.size]
            p.copy_(ops.reshape(part, shape=p.shape))
            start += p.spec.size


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p.grad for p in given if p.grad is not None]


def get_total_norm(tensors: Iterable[Tensor], norm_type: float = 2.0) -> Tensor:
    """The norm of all elements of the tensors together. Source: torch.nn.utils.get_total_norm."""
    norms = [p_norm(ops.reshape(t.detach(), shape=(t.spec.size,)), norm_type, 0) for t in tensors]
    if not norms:
        return hal.tensor(0.0)
    return p_norm(ops.stack(*norms, axis=0), norm_type, 0)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients, in place, by the same factor, so that their norm together is at most `max_norm`.

    Returns:
        The norm that they had.

    Raises:
        ValueError: the norm is not finite, if that is to be an error.

    Source: torch.nn.utils.clip_grad_norm_.
    """
    gradients = _gradients(parameters)
    with hal.no_grad():
        total = get_total_norm(gradients, norm_type)
        if error_if_nonfinite and not abs(float(total)) < inf:
            raise ValueError(f"clip_grad_norm_: the norm of the gradients is {float(total)}; look for what made it so")
        _scale(gradients, max_norm, total)
    return total


def clip_grads_with_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor) -> None:
    """`clip_grad_norm_` for a norm that is known already, such as that of `get_total_norm`.

    Source: torch.nn.utils.clip_grads_with_norm_.
    """
    with hal.no_grad():
        _scale(_gradients(parameters), max_norm, total_norm)


def _scale(gradients: list[Tensor], max_norm: float, total: Tensor) -> None:
    factor = ops.minimum(max_norm / (total + 1e-6), 1.0)
    for gradient in gradients:
        gradient.mul_(factor)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Keep gradients between -clip_value and clip_value, in place. Source: torch.nn.utils.clip_grad_value_."""
    with hal.no_grad():
        for gradient in _gradients(parameters):
            hal.run_into((gradient,), ops.clip, (gradient,), {"low": -float(clip_value), "high": float(clip_value)})


def l1_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """The sum of the sizes of all elements, to be added to a loss: it draws weights to zero, one by one."""
    return _sum(p.abs().sum() for p in parameters)


def l2_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """Half the sum of the squares of all elements, to be added to a loss: its gradient is the weights themselves."""
    return _sum((p * p).sum() * 0.5 for p in parameters)


def _sum(terms: Iterable[Tensor]) -> Tensor:
    first, *others = terms
    for term in others:
        first = first + term
    return first
