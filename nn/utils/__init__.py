"""Helpers around modules: parameters as vectors, clipping, parametrisations, sequences of different lengths."""

from nn.utils.gradients import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
    l1_penalty,
    l2_penalty,
    parameters_to_vector,
    vector_to_parameters,
)

# isort: split
# After what optimizers need: these import modules, and with them all of nn.
from nn.utils import parametrizations, parametrize, rnn
from nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from nn.utils.older import remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "fuse_conv_bn_eval",
    "fuse_linear_bn_eval",
    "get_total_norm",
    "l1_penalty",
    "l2_penalty",
    "parameters_to_vector",
    "parametrizations",
    "parametrize",
    "remove_spectral_norm",
    "remove_weight_norm",
    "rnn",
    "spectral_norm",
    "vector_to_parameters",
    "weight_norm",
]
