"""Device memory as arrays of NumPy, for what NVIDIA's libraries compute."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np

from hal.plugin import Array
from hal_cuda.driver import Address

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
