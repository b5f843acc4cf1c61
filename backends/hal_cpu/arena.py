"""Memory for the results of a compiled plan: arrays at given places of one block, which is taken once."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from hal.plugin import Array, Spec

_LINE = 64  # bytes: the arena begins at a cache line


def arena(nbytes: int) -> Callable[[int, Spec, Array], Array]:
    """A function that gives the array for an offset and a spec, whose axes lie in memory as those of `like` do."""
    block = np.empty(nbytes + _LINE, np.uint8)
    start = -block.ctypes.data % _LINE
    memory = block[start : start + nbytes]

    def carve(offset: int, spec: Spec, like: Array) -> Array:
        dtype = spec.dtype.numpy
        order = sorted(range(like.ndim), key=lambda axis: -abs(like.strides[axis])) if dense(like) else range(like.ndim)
        flat = memory[offset : offset + spec.nbytes].view(dtype)
        lying = flat.reshape([like.shape[axis] for axis in order])
        return lying.transpose(np.argsort(order)) if like.ndim else lying

    return carve


def dense(x: Array) -> bool:
    """Whether the elements lie in memory without gaps, in some order of the axes."""
    step = x.itemsize
    for axis in sorted((a for a in range(x.ndim) if x.shape[a] != 1), key=lambda a: x.strides[a]):
        if x.strides[axis] != step:
            return False
        step *= x.shape[axis]
    return step == x.itemsize * prod(x.shape)
