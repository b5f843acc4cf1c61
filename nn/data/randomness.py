"""Random numbers for one item of one pass: the same whichever thread reads it, and on whichever machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from nn.data.sampler import seed_of

_WORD = 2**64
_ITEMS = 0x6974656D  # sets these numbers apart from those that the order of a pass is made of


class Draws:
    """Random numbers in a fixed order, made of the raw bits of Philox, which no release of NumPy changes."""

    def __init__(self, seed: int, epoch: int = 0, item: int = 0) -> None:
        key = np.array([seed % _WORD, (epoch ^ (_ITEMS << 32)) % _WORD], np.uint64)
        self._bits = np.random.Philox(key=key, counter=np.array([0, 0, item % _WORD, 0], np.uint64))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number from `low` to below `high`."""
        return low + (high - low) * (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def integer(self, count: int) -> int:
        """One of 0 ... count - 1."""
        return int(self._bits.random_raw()) % count


class _Current(threading.local):
    """What this thread is reading: (seed, epoch) of the pass, the item, and its numbers once they were asked for."""

    stream: tuple[int, int] | None = None
    item = 0
    draws: Draws | None = None


_current = _Current()


@contextmanager
def reading(stream: tuple[int, int]) -> Iterator[None]:
    """Inside the block this thread reads items of the pass with this seed and number."""
    before, _current.stream = _current.stream, stream
    try:
        yield
    finally:
        _current.stream, _current.draws = before, None


def begin(item: int) -> None:
    """The next numbers are those of this item."""
    _current.item, _current.draws = item, None


def draws() -> Draws:
    """The numbers of the item that is being read; outside of a loader, new ones by hal's global generator."""
    if _current.stream is None:
        return Draws(seed_of(None, "a random transform"))
    if _current.draws is None:
        _current.draws = Draws(*_current.stream, _current.item)
    return _current.draws
