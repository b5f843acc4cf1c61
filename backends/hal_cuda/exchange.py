"""Memory that CuPy, torch, JAX and whoever speaks DLPack share with HAL on one GPU, without a copy."""

# CuPy is not installed where types are checked.
# pyright: reportMissingImports=false
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.memory import Memory
from hal.plugin import dtypes
from hal_cuda.runtime import address_of

if TYPE_CHECKING:
    from hal_cuda.runtime import CUDARuntime


class Lent:
    """A buffer, as other libraries take it.

    CuPy writes the capsule; who takes it says with which stream it goes on, and that one is made to wait for ours.
    """

    def __init__(self, runtime: CUDARuntime, buffer: Buffer) -> None:
        import cupy

        size = buffer.dtype.itemsize
        memory = cupy.cuda.UnownedMemory(address_of(buffer), max(1, buffer.size * size), buffer, runtime.ordinal)
        with cupy.cuda.Device(runtime.ordinal):
            self.array = cupy.ndarray(
                buffer.shape,
                buffer.dtype.numpy,
                cupy.cuda.MemoryPointer(memory, 0),
                tuple(s * size for s in buffer.strides),
            )
        self.runtime = runtime

    def __dlpack__(self, **options: Any) -> Any:
        with stream_of(self.runtime):
            return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self.array.__dlpack_device__()
        return int(kind), int(number)


def borrow(runtime: CUDARuntime, lender: Any) -> Buffer:
    """A buffer in the memory of an object on this GPU, which is kept until the kernels are done that read it."""
    import cupy

    with cupy.cuda.Device(runtime.ordinal), stream_of(runtime):
        array = cupy.from_dlpack(lender)
    memory = Memory(runtime, int(array.data.ptr), max(1, array.nbytes), "another library's array", array)
    strides = tuple(s // array.itemsize for s in array.strides)
    return Buffer(memory, array.shape, dtypes.of(array.dtype), strides, 0)


def stream_of(runtime: CUDARuntime) -> Any:
    """HAL's stream as CuPy's current one."""
    import cupy

    return cupy.cuda.ExternalStream(runtime.stream, runtime.ordinal)
