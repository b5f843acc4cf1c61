"""Which part of a program an operation belongs to, for reports that tell parts apart: names entered with `with`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

listeners = 0  # how many reports want names; modules enter theirs only if there is one, so that they cost nothing else
_lock = threading.Lock()


class _Here(threading.local):
    """Where this thread is: the innermost name."""

    name = ""


here = _Here()


@contextmanager
def scope(name: str) -> Iterator[None]:
    """What this thread runs inside the block belongs to `name`; an inner name stands for itself.

    >>> with scope("attention"):
    ...     current_scope()
    'attention'
    """
    before, here.name = here.name, name
    try:
        yield
    finally:
        here.name = before


def current_scope() -> str:
    """The innermost name, or nothing. In a backward pass it is that of the recorded operation, and `(backward)`."""
    return here.name


@contextmanager
def listening() -> Iterator[None]:
    """Have modules enter their names inside the block, in all threads."""
    global listeners
    with _lock:
        listeners += 1
    try:
        yield
    finally:
        with _lock:
            listeners -= 1
