"""Sums over GPUs by NCCL, where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.movement import in_rows
from hal_cuda.runtime import address_of, all_locked

if TYPE_CHECKING:
    from hal_cuda.runtime import CUDARuntime


def all_reduce(buffers: Sequence[Buffer]) -> list[Buffer] | None:
    """Enqueue the sums of buffers of one spec, one on each GPU; None where there is no NCCL.

    Each GPU's own stream has its part, so that nobody waits but for what the others have to add.
    """
    rows = [in_rows(b) for b in buffers]
    runtimes: list[CUDARuntime] = [b.memory.runtime for b in rows]  # type: ignore[misc]  # buffers of GPUs
    driver, spec = runtimes[0].driver, buffers[0].spec
    ordinals = tuple(r.ordinal for r in runtimes)
    if not driver.has_collectives() or spec.dtype.name not in DTYPES:
        return None
    sums = [r.empty(spec.shape, spec.dtype, "all_reduce") for r in runtimes]
    if buffers[0].size == 0:
        return sums
    with all_locked(runtimes), runtimes[0].guarded("all_reduce"):
        driver.all_reduce(
            ordinals, [address_of(b) for b in rows], [address_of(b) for b in sums], buffers[0].size, spec.dtype.name,
            [r.stream for r in runtimes],
        )  # fmt: skip
    return sums


DTYPES = frozenset({"int8", "uint8", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64", "bfloat16"})
