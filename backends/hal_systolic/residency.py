"""Which tensors lie in a buffer, and where: an allocator that knows when each will be wanted again."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ALIGNMENT = 64  # bytes: every tensor starts at a multiple


@dataclass(slots=True)
class Resident:
    """A tensor in a buffer.

    Attributes:
        start: its first byte.
        loaded: bytes of it that are there already; the rest is loaded when it is wanted.
        dirty: whether it is newer than its copy in memory, if it has one.
    """

    key: int
    start: int
    nbytes: int
    loaded: int
    dirty: bool


class Residency:
    """The tensors in the bytes `start` to `stop` of one buffer."""

    def __init__(self, memory: str, start: int, stop: int, uses: Mapping[int, Sequence[int]]) -> None:
        """`uses` has for each tensor the steps that use it, in order."""
        self.memory = memory
        self._free = [(start, stop)] if stop > start else []
        self._residents: dict[int, Resident] = {}
        self._uses = uses

    def get(self, key: int) -> Resident | None:
        """The tensor `key`, if it is here."""
        return self._residents.get(key)

    def next_use(self, key: int, step: int) -> float:
        """The first step after `step` that uses `key`; infinity if none does."""
        uses = self._uses.get(key, ())
        i = bisect_right(uses, step)
        return uses[i] if i < len(uses) else math.inf

    def place(
        self, key: int, nbytes: int, step: int, locked: frozenset[int], evict: Callable[[Resident], None]
    ) -> Resident | None:
        """Room for a tensor, where need be that of tensors that are wanted later than it is; None if there is none.

        Args:
            locked: tensors that must stay.
            evict: told of each tensor that has to go, before its room is given away.
        """
        size = max(-(-nbytes // ALIGNMENT) * ALIGNMENT, ALIGNMENT)
        wanted = self.next_use(key, step)
        while (start := self._take(size)) is None:
            candidates = [r for r in self._residents.values() if r.key not in locked]
            victim = max(candidates, key=lambda r: self.next_use(r.key, step), default=None)
            if victim is None or self.next_use(victim.key, step) <= wanted:
                return None
            evict(victim)
            self.drop(victim.key)
        resident = Resident(key, start, nbytes, 0, False)
        self._residents[key] = resident
        return resident

    def drop(self, key: int) -> None:
        """Forget a tensor; its room is free."""
        gone = self._residents.pop(key, None)
        if gone is None:
            return
        start = gone.start
        stop = start + max(-(-gone.nbytes // ALIGNMENT) * ALIGNMENT, ALIGNMENT)
        insort(self._free, (start, stop))
        merged: list[tuple[int, int]] = []
        for low, high in self._free:
            if merged and merged[-1][1] == low:
                merged[-1] = (merged[-1][0], high)
            else:
                merged.append((low, high))
        self._free = merged

    def _take(self, size: int) -> int | None:
        """The first place that is large enough."""
        for i, (start, stop) in enumerate(self._free):
            if stop - start >= size:
                self._free[i : i + 1] = [(start + size, stop)] if stop - start > size else []
                return start
        return None
