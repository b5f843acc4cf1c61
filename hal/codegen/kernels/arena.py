"""One block of memory for all intermediate results of a plan: no step asks the pool for its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hal.codegen.kernels.buffer import Buffer, row_strides
from hal.plugin import Spec, dtypes

if TYPE_CHECKING:
    from hal.codegen.kernels.runtime import Runtime


def arena(runtime: Runtime, nbytes: int) -> Callable[[int, Spec, Buffer], Buffer]:
    """What gives the buffers of a plan that needs so many bytes, at offsets that are multiples of 64."""
    memory = runtime.empty((nbytes,), dtypes.uint8, "the results of a compiled function").memory

    def carve(offset: int, spec: Spec, like: Buffer) -> Buffer:
        """The buffer of `spec` at `offset`, its axes in the order in which those of `like` lie."""
        order = sorted(range(spec.ndim), key=lambda axis: (-abs(like.strides[axis]), axis))
        steps = row_strides(tuple(spec.shape[axis] for axis in order))
        strides = dict(zip(order, steps, strict=True))
        at = offset // spec.dtype.itemsize
        return Buffer(memory, spec.shape, spec.dtype, tuple(strides[axis] for axis in range(spec.ndim)), at)

    return carve
