"""How many threads NumPy's BLAS uses: one, for backends that bring their own, or that want the same bits always.

BLAS wakes its threads for work of a few microseconds, and they wait for each other by spinning. It also splits a
product by how many there are, and the last bit of a sum may depend on where.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np


def _function(name: str) -> Any:
    """The function of NumPy's OpenBLAS by this name; None if it can't be found."""
    try:
        library = ctypes.CDLL(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]  # private
    except (AttributeError, OSError):
        return None
    spelled = (f"{prefix}_{name}{suffix}" for prefix in ("scipy_openblas", "openblas") for suffix in ("64_", ""))
    return next((found for s in spelled if (found := getattr(library, s, None)) is not None), None)


def _openblas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """The functions of NumPy's OpenBLAS that tell and set its number of threads, if they can be found."""
    tell, change = _function("get_num_threads"), _function("set_num_threads")
    if tell is None or change is None:
        return None
    tell.restype, change.argtypes, change.restype = ctypes.c_int, [ctypes.c_int], None
    return tell, change


@cache
def has_small_products() -> bool:
    """Whether NumPy's BLAS multiplies small matrices as they lie, which OpenBLAS does on CPUs with AVX-512."""
    tell = _function("get_corename")
    if tell is None:
        return False
    tell.restype = ctypes.c_char_p
    return tell() in (b"SkylakeX", b"Cooperlake", b"SapphireRapids")


_blas = _openblas()
_lock = threading.Lock()
_users = 0
_before = 1


def threads() -> int:
    """How many threads BLAS was given (by OMP_NUM_THREADS, say); 1 if it won't tell."""
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


def _after_fork() -> None:
    """The child may have been forked while another thread held the lock or kept BLAS to itself."""
    global _lock, _users
    _lock = threading.Lock()
    if _users and _blas is not None:
        _users = 0
        _blas[1](_before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
