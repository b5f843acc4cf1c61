"""embedding in NumPy: rows taken from the table."""

from __future__ import annotations

from hal import ops
from hal.plugin import Array
from hal_cpu.table import kernels


@kernels.register(ops.embedding)
def embedding(weight: Array, indices: Array, *, padding_idx: int | None) -> Array:
    try:  # ndarray.take is quicker, but copies a table that is not contiguous
        return weight.take(indices, 0) if weight.flags.c_contiguous else weight[indices]
    except IndexError as error:
        rows = weight.shape[0]
        raise IndexError(f"embedding got an index outside its table of {rows} rows: {error}") from None
