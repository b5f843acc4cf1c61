"""How many time steps a run has: what is set in code, else HAL_SPIKING_STEPS, else 64."""

from __future__ import annotations

import os
import threading
from types import TracebackType

from hal.errors import ConfigError

VARIABLE = "HAL_SPIKING_STEPS"
DEFAULT_STEPS = 64


class _Chosen(threading.local):
    """The numbers of the blocks that this thread is in, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[int] = []


_chosen = _Chosen()


class steps:  # used like a function, as hal.fallback is
    """Run with `count` time steps inside a `with` block of this thread: more are slower and more exact.

    >>> with steps(16):
    ...     current_steps()
    16

    Raises:
        ConfigError: not a whole number of 1 or more.
    """

    def __init__(self, count: int) -> None:
        self.count = _checked("hal_spiking.steps", count)

    def __enter__(self) -> steps:
        _chosen.stack.append(self.count)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _chosen.stack.pop()


def current_steps() -> int:
    """The number of time steps in force.

    Raises:
        ConfigError: HAL_SPIKING_STEPS is not a whole number of 1 or more.
    """
    if _chosen.stack:
        return _chosen.stack[-1]
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return DEFAULT_STEPS
    return _checked(VARIABLE, int(text) if text.isdecimal() else text)


def _checked(who: str, count: object) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(f"{who} needs a whole number of time steps, 1 or more, got {count!r}: try {DEFAULT_STEPS}")
    return count
