"""Copies from one GPU to another, without the host where they reach each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.movement import in_rows
from hal_cuda.runtime import all_locked

if TYPE_CHECKING:
    from hal_cuda.runtime import CUDARuntime


def copy_between(buffer: Buffer, target: CUDARuntime) -> Buffer:
    """Enqueue a copy of a buffer of another GPU: the target's kernels wait for it, and nobody else.

    Where the GPUs do not reach each other the driver leads it through the host.
    """
    rows = in_rows(buffer)
    source: CUDARuntime = rows.memory.runtime  # type: ignore[assignment]  # a buffer of a GPU
    out = target.empty(rows.shape, rows.dtype, "a copy of another device's tensor")
    nbytes = rows.size * rows.dtype.itemsize
    if nbytes == 0:
        return out
    driver = target.driver
    driver.can_reach(target.ordinal, source.ordinal)
    with all_locked((source, target)), target.guarded("a copy between devices"):
        ready, done = driver.event(source.ordinal), driver.event(target.ordinal)
        driver.record(source.ordinal, ready, source.stream)
        driver.after(target.ordinal, target.stream, ready)
        start = rows.memory.data + rows.offset * rows.dtype.itemsize
        driver.copy_peer(target.ordinal, out.memory.data, source.ordinal, start, nbytes, target.stream)
        driver.record(target.ordinal, done, target.stream)
        driver.after(source.ordinal, source.stream, done)  # what is given back meanwhile is not written over
        driver.drop_event(ready)
        driver.drop_event(done)
    return out
