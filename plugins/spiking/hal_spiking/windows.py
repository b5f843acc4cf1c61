"""Windows of images as NumPy views, for convolutions and poolings: (N, C, *spatial) with one to three spatial axes."""

from __future__ import annotations

import numpy as np
from hal.plugin import Array
from numpy.lib.stride_tricks import sliding_window_view

Sizes = tuple[int, ...]


def pad_spatial(x: Array, padding: Sizes, value: float = 0) -> Array:
    """`x` with `value` around its spatial axes."""
    if not any(padding):
        return x
    return np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)), constant_values=value)


def windows(x: Array, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Array:
    """All windows of an `x` that is padded already, as a view: (N, C, *places, *kernel)."""
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    every = sliding_window_view(x, reach, axis=tuple(range(2, x.ndim)))
    steps = (*(slice(None, None, s) for s in stride), *(slice(None, None, d) for d in dilation))
    return every[(slice(None), slice(None), *steps)]
