"""Arrays whose channels lie side by side in memory: shaped (N, C, ...) as everywhere in hal, but stored (N, ..., C).

oneDNN is fastest so. Results are views of such memory, so that the next kernel finds its input ready; NumPy does not
mind, and reorders are left for the two ends of a chain.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from math import prod
from typing import Any

import numpy as np

from hal.plugin import Array
from hal_onednn.api import Handle, OneDnnError
from hal_onednn.finding import api
from hal_onednn.primitive import Primitive, address, reorder
from hal_onednn.scratch import scratch
from hal_onednn.threads import kept

Shape = tuple[int, ...]

TO_LAST = {n: (0, *range(2, n), 1) for n in range(2, 6)}  # the axes that bring the channels of (N, C, ...) to the end
TO_FIRST = {n: (0, n - 1, *range(1, n - 1)) for n in range(2, 6)}  # and back


def empty(shape: Shape) -> Array:
    """A new float32 array (N, C, ...) with unknown contents and its channels side by side."""
    return np.empty((shape[0], *shape[2:], shape[1]), np.float32).transpose(TO_FIRST[len(shape)])


def result(shape: Shape, out: Array | None, plain: bool = False) -> Array:
    """Where a kernel writes: `out` if that lies in the order wanted, else new memory."""
    if out is not None and (out if plain else out.transpose(TO_LAST[out.ndim])).flags.c_contiguous:
        return out
    return np.empty(shape, np.float32) if plain else empty(shape)


def into_any(kernel: Callable[..., Array]) -> Callable[..., Array]:
    """Decorate a kernel that writes where `result` says: `out` may lie in any order, and be one of the inputs."""

    @wraps(kernel)
    def run(*buffers: Array, out: Array | None = None, **settings: Any) -> Array:
        if out is None:
            return kernel(*buffers, out=None, **settings)
        found = kernel(*buffers, out=None if any(np.may_share_memory(out, b) for b in buffers) else out, **settings)
        if not np.may_share_memory(found, out):
            np.copyto(out, found)
        return out

    return run


def dense_strides(shape: Shape) -> Shape:
    """The strides, in elements, of an array without gaps in row-major order."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def channels_last(shape: Shape) -> Handle:
    """The layout of `empty(shape)`."""
    strides = dense_strides((shape[0], *shape[2:], shape[1]))
    return api().layout(shape, [strides[axis] for axis in TO_FIRST[len(shape)]])


def plain(shape: Shape) -> Handle:
    """The layout of an array in row-major order."""
    return api().layout(shape, dense_strides(shape))


@kept(512)
def _into_channels_last(shape: Shape, strides: Shape) -> Primitive | None:
    """A primitive that brings an array with these strides, in bytes, into channels-last order, if there is one."""
    steps = [s // 4 for s in strides]
    if any(s % 4 or s <= 0 for s, n in zip(strides, shape, strict=True) if n > 1):
        return None
    dense = dense_strides(shape)
    steps = [d if n == 1 else s for n, s, d in zip(shape, steps, dense, strict=True)]
    try:
        with api().threads.to_make(prod(shape)):
            return reorder(api().layout(shape, steps), channels_last(shape))
    except OneDnnError:
        return None


def is_plain(x: Array) -> bool:
    """Whether it lies in row-major order, and not as well with its channels side by side."""
    return x.flags.c_contiguous and not x.transpose(TO_LAST[x.ndim]).flags.c_contiguous


def given(x: Array, name: str) -> Array:
    """`x` as a contiguous array (N, ..., C): its own memory if it lies so, else a copy in scratch memory."""
    last = x.transpose(TO_LAST[x.ndim])
    if last.flags.c_contiguous:
        return last
    copy = scratch(name, x.nbytes)[: x.nbytes].view(np.float32).reshape(last.shape)
    bring = _into_channels_last(x.shape, x.strides)
    if bring is None:
        np.copyto(copy, last)
    else:
        bring(address(x), address(copy))
    return copy
