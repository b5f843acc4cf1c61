"""embedding in NumPy: rows taken from the table."""

from __future__ import annotations

import numpy as np

from hal import ops
from hal.plugin import Array
from hal_cpu.table import kernels


@kernels.register(ops.embedding)
def embedding(weight: Array, indices: Array, *, padding_idx: int | None) -> Array:
    return np.take(weight, indices, axis=0)
