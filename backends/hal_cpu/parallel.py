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
from contextlib import contextmanager
from math import prod
from queue import SimpleQueue
from typing import Any

import numpy as np

from hal.plugin import Array

WORTH_A_THREAD = 2_000_000  # quarters of a nanosecond: less work than that is not worth another thread
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


def _enter() -> None:
    global _users, _before
    assert _blas is not None
    with _lock:
        if _users == 0:
            _before = _blas[0]()
            _blas[1](1)
        _users += 1


def _leave() -> None:
    global _users
    assert _blas is not None
    with _lock:
        _users -= 1
        if _users == 0:
            _blas[1](_before)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to the calling thread inside the block."""
    if _blas is None:
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def on_one_blas_thread(run: Callable[..., Any]) -> Callable[..., Any]:
    """`run` with BLAS kept to the calling thread.

    BLAS wakes its threads for work of a few microseconds, and they wait for each other by spinning: on a machine that
    others use too, a small product then takes a time slice of the scheduler, which is milliseconds.
    """
    if _blas is None:
        return run

    def alone(*args: Any, **settings: Any) -> Any:
        _enter()
        try:
            return run(*args, **settings)
        finally:
            _leave()

    return alone


# The threads. They take tasks from one queue; that is half the delay of an executor and its futures (measured).

Task = tuple[contextvars.Context, Callable[[int, int], Any], int, int, int, "SimpleQueue[tuple[int, Any, Any]]"]
_tasks: SimpleQueue[Task] = SimpleQueue()
_started = 0
_is_helper = threading.local()


def _help() -> None:
    _is_helper.yes = True
    while True:
        context, function, number, start, stop, answers = _tasks.get()
        try:
            answers.put((number, context.run(function, start, stop), None))
        except BaseException as error:  # whoever waits for the answer raises it
            answers.put((number, None, error))


def _start_helpers(wanted: int) -> None:
    global _started
    with _lock:
        while _started < wanted:
            threading.Thread(target=_help, name=f"hal_cpu {_started}", daemon=True).start()
            _started += 1


def _forget_helpers() -> None:
    """A forked child has none of its parent's threads, and may have been forked while one held the lock."""
    global _tasks, _started, _lock, _users
    _tasks, _started, _lock = SimpleQueue(), 0, threading.Lock()
    if _users and _blas is not None:
        _users = 0
        _blas[1](_before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helpers)


def in_parts(function: Callable[[int, int], Any], count: int, work: float) -> list[Any]:
    """What function(start, stop) gives for consecutive parts of range(count), one for each thread that is worth waking.

    The parts depend on `count`, `work` and the number of threads alone, so that sums come out the same every time.

    Args:
        work: how long all of it takes on one thread, roughly, in quarters of a nanosecond (what one element costs in a
            step over memory that is in the cache).
    """
    wanted = min(count, threads(), int(work // WORTH_A_THREAD) + 1)
    if wanted < 2 or getattr(_is_helper, "yes", False):
        return [function(0, count)]
    if _started < wanted - 1:
        _start_helpers(wanted - 1)
    edges = [i * count // wanted for i in range(wanted + 1)]
    answers: SimpleQueue[tuple[int, Any, Any]] = SimpleQueue()
    results: list[Any] = [None] * wanted
    failed: BaseException | None = None
    with one_blas_thread():
        for number in range(
            1, wanted
        ):  # each with this thread's context, where NumPy keeps what to do about infinities
            _tasks.put((contextvars.copy_context(), function, number, edges[number], edges[number + 1], answers))
        try:
            results[0] = function(0, edges[1])
        finally:
            for _ in range(wanted - 1):  # wait for all, whatever happened: they write into the caller's memory
                number, results_of, error = answers.get()
                results[number], failed = results_of, failed or error
    if failed is not None:
        raise failed
    return results


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
