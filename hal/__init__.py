"""A hardware-abstraction layer for deep learning: one network, written once, on any device.

What stands here is all that `import hal` offers, by the file it comes from; every other op of the table is `hal.name`.
"""

# ruff: noqa: I001  # a line or two for each file, and a list that takes less than a screen

from __future__ import annotations

import sys
from typing import Any

from hal import errors, ops
from hal.anomaly import detect_anomaly
from hal.autocast import autocast, is_autocast_enabled
from hal.autodiff import custom_gradient, grad, value_and_grad
from hal.collectives import all_reduce
from hal.recording import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from hal.creation import (
    arange, as_tensor, empty, empty_like, eye, from_numpy, full, full_like, linspace, ones, ones_like, tensor,
    tril_indices, triu_indices, zeros, zeros_like,
)  # fmt: skip
from hal.device import Device
from hal.dispatch import run_into
from hal.dtypes import (
    DType, bfloat16, bool_, complex64, complex128, float16, float32, float64, int8, int16, int32, int64,
    uint8, uint16, uint32, uint64,
)  # fmt: skip
from hal.functions.aliases import (
    absolute, arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh, bitwise_not, cat, clamp, concatenate, divide,
    double, e, eq, float, ge, gt, half, inf, inference_mode, int, le, long, lt, movedim, multiply, nan, ne, negative,
    newaxis, pi, short, subtract, swapaxes, swapdims, true_divide,
)  # fmt: skip
from hal.functions.arguments import is_tensor
from hal.functions.comparing import allclose, isclose
from hal.functions.datatypes import (
    astype, can_cast, finfo, iinfo, is_complex, is_floating_point, isdtype, numel, promote_types, result_type,
)  # fmt: skip
from hal.functions.elementwise import (
    add, addcdiv, addcmul, clip, div, frac, lerp, log_softmax, logit, nan_to_num, positive, round, softmax, sub,
)  # fmt: skip
from hal.functions.joining import (
    broadcast_arrays, broadcast_tensors, chunk, concat, dstack, hstack, meshgrid, split, stack, tensor_split, unbind,
    unstack, vstack,
)  # fmt: skip
from hal.functions.ordering import (
    argsort, bincount, median, searchsorted, sort, topk, unique, unique_all, unique_counts, unique_inverse,
    unique_values,
)  # fmt: skip
from hal.functions.products import (
    addmm, addmv, baddbmm, bmm, cross, dot, einsum, inner, mm, mv, outer, tensordot, trace, vecdot,
)  # fmt: skip
from hal.functions.reductions import (
    all, amax, amin, aminmax, any, argmax, argmin, count_nonzero, cumprod, cumsum, cumulative_prod, cumulative_sum,
    diff, logsumexp, max, mean, min, norm, prod, std, sum, var, var_mean,
)  # fmt: skip
from hal.functions.selecting import (
    argwhere, gather, index_add, index_copy, index_fill, index_select, masked_fill, masked_select, nonzero, scatter,
    scatter_add, take, take_along_axis, take_along_dim, where,
)  # fmt: skip
from hal.functions.shaping import (
    broadcast_shapes, broadcast_to, clone, diag, diagonal, expand_dims, flatten, flip, matrix_transpose, moveaxis,
    narrow, permute, permute_dims, ravel, repeat, repeat_interleave, reshape, roll, select, squeeze, t, tile, transpose,
    tril, triu, unflatten, unsqueeze,
)  # fmt: skip
from hal.graph.compiler import compile
from hal.interop import asarray, from_dlpack
from hal.namespace import __array_api_version__, __array_namespace_info__
from hal.op import Op
from hal.policy import copies, fallback, placement
from hal.profile import profile
from hal.random import (
    Generator, bernoulli, default_generator, get_rng_state, initial_seed, manual_seed, multinomial, normal, rand,
    rand_like, randint, randint_like, randn, randn_like, randperm, seed, set_rng_state, uniform,
)  # fmt: skip
from hal.recompute import checkpoint
from hal.schedule.by_hand import place
from hal.registry import device_count, devices, register, unregister
from hal.report import placement_report
from hal.scopes import scope
from hal.serialization import load, save
from hal.spec import Spec
from hal.tensor import Tensor

__version__ = "0.1.0"
device = Device
bool = bool_

__all__ = [
    "DType", "Device", "Generator", "Op", "Spec", "Tensor", "__array_api_version__", "__array_namespace_info__",
    "__version__", "absolute", "add", "addcdiv", "addcmul", "addmm", "addmv", "all", "all_reduce", "allclose", "amax",
    "amin", "aminmax", "any", "arange", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh",
    "argmax", "argmin", "argsort", "argwhere", "as_tensor", "asarray", "astype", "autocast", "baddbmm", "bernoulli",
    "bfloat16", "bincount", "bitwise_not", "bmm", "bool", "broadcast_arrays", "broadcast_shapes", "broadcast_tensors",
    "broadcast_to", "can_cast", "cat", "checkpoint", "chunk", "clamp", "clip", "clone", "compile", "complex64",
    "complex128", "concat", "concatenate", "copies", "count_nonzero", "cross", "cumprod", "cumsum", "cumulative_prod",
    "cumulative_sum", "custom_gradient", "default_generator", "detect_anomaly", "device", "device_count", "devices",
    "diag", "diagonal", "diff", "div", "divide", "dot", "double", "dstack", "e", "einsum", "empty", "empty_like",
    "enable_grad", "eq", "errors", "expand_dims", "eye", "fallback", "finfo", "flatten", "flip", "float", "float16",
    "float32", "float64", "frac", "from_dlpack", "from_numpy", "full", "full_like", "gather", "ge", "get_rng_state",
    "grad", "gt", "half", "hstack", "iinfo", "index_add", "index_copy", "index_fill", "index_select", "inf",
    "inference_mode", "initial_seed", "inner", "int", "int8", "int16", "int32", "int64", "is_autocast_enabled",
    "is_complex", "is_floating_point", "is_grad_enabled", "is_tensor", "isclose", "isdtype", "le", "lerp", "linspace",
    "load", "log_softmax", "logit", "logsumexp", "long", "lt", "manual_seed", "masked_fill", "masked_select",
    "matrix_transpose", "max", "mean", "median", "meshgrid", "min", "mm", "moveaxis", "movedim", "multinomial",
    "multiply", "mv", "nan", "nan_to_num", "narrow", "ne", "negative", "newaxis", "no_grad", "nonzero", "norm",
    "normal", "numel", "ones", "ones_like", "ops", "outer", "permute", "permute_dims", "pi", "place", "placement",
    "placement_report", "positive", "prod", "profile", "promote_types", "rand", "rand_like", "randint", "randint_like",
    "randn", "randn_like", "randperm", "ravel", "register", "repeat", "repeat_interleave", "reshape", "result_type",
    "roll", "round", "run_into", "save", "scatter", "scatter_add", "scope", "searchsorted", "seed", "select",
    "set_grad_enabled", "set_rng_state", "short", "softmax", "sort", "split", "squeeze", "stack", "std", "sub",
    "subtract", "sum", "swapaxes", "swapdims", "t", "take", "take_along_axis", "take_along_dim", "tensor",
    "tensor_split", "tensordot", "tile", "topk", "trace", "transpose", "tril", "tril_indices", "triu", "triu_indices",
    "true_divide", "uint8", "uint16", "uint32", "uint64", "unbind", "unflatten", "uniform", "unique", "unique_all",
    "unique_counts", "unique_inverse", "unique_values", "unregister", "unsqueeze", "unstack", "value_and_grad", "var",
    "var_mean", "vecdot", "vstack", "where", "zeros", "zeros_like",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    try:
        return ops.TABLE[name]
    except KeyError:
        hint = ": layers, optimizers and data are in the package nn" if name in ("nn", "optim", "utils") else ""
        what = f"module 'hal' has no attribute {name!r}{hint}"
        raise AttributeError(what, name=name, obj=sys.modules[__name__]) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *ops.TABLE})  # also what Python's "Did you mean" chooses from
