"""Helpers around modules: parameters as vectors, clipping, parametrisations, sequences of different lengths."""

from nn.utils.gradients import (
    clip_grad_norm_,
    clip_grad_value_,
    get_total_norm,
    l1_penalty,
    l2_penalty,
    parameters_to_vector,
    vector_to_parameters,
)

# isort: split
# After what optimizers need: these import modules, and with them all of nn.
from nn.utils import parametrizations, parametrize, rnn

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "get_total_norm",
    "l1_penalty",
    "l2_penalty",
    "parameters_to_vector",
    "parametrizations",
    "parametrize",
    "rnn",
    "vector_to_parameters",
]
