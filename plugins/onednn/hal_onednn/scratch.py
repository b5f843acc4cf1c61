"""Memory that kernels of one thread use again and again: freshly allocated pages cost more than most of their work."""

from __future__ import annotations

import threading

import numpy as np

from hal.plugin import Array

ALIGNMENT = 64  # bytes: a line of the cache, and the widest register
KEPT = 256 << 20  # bytes that one thread keeps under one name


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.by_name: dict[str, Array] = {}


_buffers = _Buffers()


def scratch(name: str, size: int) -> Array:
    """`size` bytes or more of this thread, aligned, with unknown contents.

    They last until the next call with this name.
    """
    found = _buffers.by_name.get(name)
    if found is None or found.nbytes < size:
        memory = np.empty(size + ALIGNMENT, np.uint8)
        found = memory[-memory.ctypes.data % ALIGNMENT :][:size]
        if size <= KEPT:
            _buffers.by_name[name] = found
    return found
