"""Device memory as arrays of NumPy, for what NVIDIA's libraries compute."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cuda.driver import Address, Convolution, Layout

TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32, "float64": np.float64}


def strided(address: Address, kind: Any, shape: Any, steps: Any, elements: int) -> Array:
    """An array in memory that is there: steps are in elements, of which it spans so many."""
    memory = (ctypes.c_char * (elements * kind.itemsize)).from_address(address)
    return np.ndarray(shape, kind, memory, 0, tuple(s * kind.itemsize for s in steps))


def factor(x: Array, precision: str) -> Array:
    """A factor in the type that products are summed in; with `tf32`, of 10 binary digits, rounded to the nearest."""
    if x.dtype == np.float64:
        return x
    wide = np.ascontiguousarray(x, np.float32)
    if precision == "tf32" and x.dtype == np.float32:
        bits = wide.view(np.uint32)
        rounded = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
        return np.where(np.isfinite(wide), rounded, wide)
    return wide


def spanned(x: Layout) -> int:
    """Elements from the first of a tensor to its last."""
    return 1 + sum((n - 1) * s for n, s in zip(*x, strict=True))


def convolved(wanted: Convolution, arrays: Mapping[str, Array]) -> Array:
    """What cuDNN computes, by the references of HAL's own ops, on arrays as its strides find them."""
    x, w, y = (factor(arrays[name], wanted.precision) for name in "xwy")
    axes = len(wanted.padding)
    settings: dict[str, Any] = {"stride": wanted.stride, "padding": wanted.padding, "dilation": wanted.dilation}
    settings["groups"] = wanted.x.sizes[1] // wanted.w.sizes[1]
    if wanted.made == "y":
        bias = [arrays["bias"].astype(np.float32)] if wanted.bias else []
        return ops.TABLE[f"conv{axes}d"].reference(x, w, *bias, **settings)
    if wanted.made == "w":
        return ops.TABLE[f"conv{axes}d_weight_gradient"].reference(x, y, weight_shape=wanted.w.sizes, **settings)
    along = zip(wanted.x.sizes[2:], y.shape[2:], w.shape[2:], *(settings[k] for k in ("stride", "padding", "dilation")),
                strict=True)  # fmt: skip
    left = tuple(n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, k, s, p, d in along)
    return ops.TABLE[f"conv_transpose{axes}d"].reference(y, w, output_padding=left, **settings)
