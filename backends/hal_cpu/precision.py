"""In which type kernels compute: half precision has no BLAS and slow ufuncs, and would round at every step."""

from __future__ import annotations

from typing import Any

import numpy as np


def working(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """float32 for float16 and bfloat16, to be rounded once at the end; any other type itself."""
    return np.dtype(np.float32) if dtype.itemsize == 2 and dtype.kind not in "iu" else dtype
