"""How many threads oneDNN works on: as many as OpenMP was given (OMP_NUM_THREADS), one for little work.

Primitives are made for a number of threads and must be run with it, wherever OpenMP's own setting stands by then:
others in the process may change it, and each of Python's threads has its own.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, ParamSpec, TypeVar

WORTH_ANOTHER = 100_000  # nanoseconds of work on one thread, below which waking others costs more than it saves
SPINS = "1000"  # how often a thread looks whether there is more to do before it sleeps: for some 20 microseconds
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # by which users say so themselves

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def brief_spinning() -> Iterator[None]:
    """Load OpenMP inside the block so that its idle threads sleep soon, unless the user said how they wait.

    By default they spin for milliseconds, in which NumPy's threads and other programs cannot have their cores: on two
    busy cores that makes a training step five times slower (measured). Where OpenMP is loaded already, nothing changes.
    """
    if any(name in os.environ for name in WAITING):
        yield
        return
    os.environ[WAITING[0]] = SPINS
    try:
        yield
    finally:
        del os.environ[WAITING[0]]


class Threads:
    """The number of threads that the library's OpenMP uses for the thread of Python that asks."""

    def __init__(self, library: ctypes.CDLL) -> None:
        try:
            self.get: Callable[[], int] = library.omp_get_max_threads
            self.set: Callable[[int], Any] = library.omp_set_num_threads
        except AttributeError:  # it was built without OpenMP
            self.get, self.set = lambda: 1, lambda count: None
        self.most = self.get()

    @contextmanager
    def to_make(self, work: float) -> Iterator[None]:
        """Make primitives inside the block for work that takes so many nanoseconds on one thread."""
        before = self.get()
        self.set(self.most if work > WORTH_ANOTHER else 1)
        try:
            yield
        finally:
            self.set(before)


# A forked child has none of OpenMP's threads, and would wait for them: it makes its primitives anew, for one thread.

_caches: list[Callable[[], None]] = []
_in_child: list[Callable[[], None]] = []


def kept(count: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate what makes primitives: the last `count` that it made are kept."""

    def decorate(make: Callable[P, T]) -> Callable[P, T]:
        cached = lru_cache(maxsize=count)(make)
        _caches.append(cached.cache_clear)
        return cached  # type: ignore[return-value]  # for arguments that can be hashed

    return decorate


def limit_in_child(threads: Threads) -> None:
    """Let the library work on one thread in children that are forked from now on."""
    _in_child.append(partial(setattr, threads, "most", 1))


def _after_fork() -> None:
    for act in (*_in_child, *_caches):
        act()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
