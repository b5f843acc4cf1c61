"""Memory that the host and a device share, where they have the same: no copy in either direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.memory import Memory
from hal.plugin import Array, dtypes

if TYPE_CHECKING:
    from hal_opencl.runtime import OpenCLRuntime

MOST_LINGERING = 16  # shared arrays that may wait for the device to be done with them
ALIGNMENT = 16  # bytes: the widest element that a kernel reads at once from memory that is not the pool's


def wrap(runtime: OpenCLRuntime, array: Array) -> Buffer | None:
    """A buffer in the memory of `array`, or None where the device has memory of its own or the array has gaps."""
    if array.size == 0:
        return runtime.empty(array.shape, dtypes.of(array.dtype))
    if not runtime.shares_memory or not array.flags.c_contiguous or not array.flags.writeable:
        return None
    if array.ctypes.data % max(ALIGNMENT, array.itemsize):
        return None
    import pyopencl as cl

    if len(runtime.lingering) >= MOST_LINGERING:
        runtime.finish()
    flags = cl.mem_flags
    with runtime.guarded("sharing a host array"):
        data = cl.Buffer(runtime.context, flags.READ_WRITE | flags.USE_HOST_PTR, hostbuf=array)
        mapped, _ = cl.enqueue_map_buffer(
            runtime.queue, data, cl.map_flags.READ, 0, array.shape, array.dtype, is_blocking=True
        )
        same = mapped.ctypes.data == array.ctypes.data
        mapped.base.release(runtime.queue)
    if not same:  # the driver keeps a copy
        return None
    memory = Memory(runtime, data, array.nbytes, "a shared host array", array)
    strides = tuple(s // array.itemsize for s in array.strides)
    return Buffer(memory, array.shape, dtypes.of(array.dtype), strides, 0)


def expose(buffer: Buffer) -> Array | None:
    """A host array in the memory of `buffer`, where that was the host's from the beginning."""
    host = buffer.memory.host
    if host is None:
        return None
    buffer.memory.runtime.finish()
    flat = np.frombuffer(host.data, buffer.dtype.numpy) if host.flags.c_contiguous else None
    if flat is None:
        return None
    strides = tuple(s * buffer.dtype.itemsize for s in buffer.strides)
    out: Array = np.ndarray(buffer.shape, buffer.dtype.numpy, flat.data, buffer.offset * buffer.dtype.itemsize, strides)
    return out
