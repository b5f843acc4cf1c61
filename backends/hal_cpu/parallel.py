"""Several threads for one kernel, each with its own scratch memory.

NumPy lets go of the interpreter's lock inside copies, ufuncs and BLAS, so a kernel that works block by block runs on as
many threads as it has blocks for. While it does, BLAS itself is kept to one thread: its own threads would only get
into the way of ours, and a copy between two of its calls would leave them idle.
"""

from __future__ import annotations

import contextvars
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from hal.plugin import Array

WORTH_A_THREAD = 1_000_000  # operations (or bytes moved) below which waking a second thread costs more than it saves
KEPT = 64 << 20  # bytes of scratch memory that one thread keeps under one name


# How many threads BLAS uses.


def _openblas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """The functions of NumPy's OpenBLAS that tell and set its number of threads, if they can be found."""
    try:
        library = ctypes.CDLL(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return None
    for prefix in ("scipy_openblas", "openblas"):
        for suffix in ("64_", ""):
            tell = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
            change = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
            if tell is not None and change is not None:
                tell.restype, change.argtypes, change.restype = ctypes.c_int, [ctypes.c_int], None
                return tell, change
    return None


_blas = _openblas()
_lock = threading.Lock()
_users = 0
_before = 1


def threads() -> int:
    """On how many threads kernels may work: as many as BLAS was given (by OMP_NUM_THREADS, say); 1 if it won't tell."""
    if _blas is None:
        return 1
    return _before if _users else _blas[0]()


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    global _users, _before
    assert _blas is not None
    with _lock:
        if _users == 0:
            _before = _blas[0]()
            _blas[1](1)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _blas[1](_before)


# The threads.

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    """A forked child has none of its parent's threads."""
    global _pool, _lock, _users
    _pool, _lock = None, threading.Lock()
    if _users and _blas is not None:
        _users = 0
        _blas[1](_before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def in_parts(function: Callable[[int, int], Any], count: int, work: float) -> list[Any]:
    """What function(start, stop) gives for consecutive parts of range(count), one for each thread that is worth waking.

    The parts depend on `count`, `work` and the number of threads alone, so that sums come out the same every time.
    """
    global _pool
    wanted = min(count, threads(), int(work // WORTH_A_THREAD) + 1)
    if wanted < 2:
        return [function(0, count)]
    if _pool is None or _pool._max_workers < wanted - 1:
        _pool = ThreadPoolExecutor(max(wanted, os.cpu_count() or 1), thread_name_prefix="hal_cpu")
    edges = [i * count // wanted for i in range(wanted + 1)]
    with _one_blas_thread():
        others = [
            _pool.submit(contextvars.copy_context().run, function, start, stop) for start, stop in pairwise(edges[1:])
        ]
        try:
            first = function(edges[0], edges[1])
        finally:
            results = [other.exception() or other.result() for other in others]  # wait for all, whatever happened
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [first, *results]


# Scratch memory.


class _Scratch(threading.local):
    """One thread's memory, by name."""

    def __init__(self) -> None:
        self.buffers: dict[str, Array] = {}


_scratch = _Scratch()


def scratch(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """Memory of this thread with unknown contents, which lasts until the next call with the same name.

    Memory that NumPy gets anew for every call comes in fresh pages, which cost more than the work done in them.
    """
    size = prod(shape) * np.dtype(dtype).itemsize
    buffer = _scratch.buffers.get(name)
    if buffer is None or buffer.nbytes < size:
        buffer = np.empty(size, np.uint8)
        if size <= KEPT:
            _scratch.buffers[name] = buffer
    return buffer[:size].view(dtype).reshape(shape)
