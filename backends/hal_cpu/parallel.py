"""Several threads for one kernel, each with its own scratch memory.

NumPy lets go of the interpreter's lock inside copies, ufuncs and BLAS, so a kernel that works block by block runs on as
many threads as it has blocks for. While it does, BLAS itself is kept to one thread: its own threads would only get
into the way of ours, and a copy between two of its calls would leave them idle.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from math import prod
from queue import SimpleQueue
from typing import Any

import numpy as np

from hal.plugin import Array, one_blas_thread
from hal.plugin import blas_threads as threads

WORTH_A_THREAD = 2_000_000  # quarters of a nanosecond: less work than that is not worth another thread
KEPT = 64 << 20  # bytes of scratch memory that one thread keeps under one name


# The threads. They take tasks from one queue; that is half the delay of an executor and its futures (measured).

Task = tuple[contextvars.Context, Callable[[int, int], Any], int, int, int, "SimpleQueue[tuple[int, Any, Any]]"]
_tasks: SimpleQueue[Task] = SimpleQueue()
_lock = threading.Lock()
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
    global _tasks, _started, _lock
    _tasks, _started, _lock = SimpleQueue(), 0, threading.Lock()


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
