"""Hazards from ranges: which earlier commands must be done before one may read or write its bytes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from hal_systolic.stream import Range


class Hazards:
    """What was last done to each byte of each memory, kept for segments that were treated alike.

    A read waits for the last write (RAW); a write for the last write (WAW) and for the reads since then (WAR). Of the
    reads, the last of each unit is enough, since units work in order.
    """

    def __init__(self) -> None:
        self._memories: dict[str, _Memory] = {}

    def after(
        self, index: int, unit: str, reads: Iterable[Range], writes: Iterable[Range]
    ) -> tuple[tuple[int, str], ...]:
        """Record command `index` of `unit`; return the commands that it must wait for, with the memory they meet in."""
        found: dict[int, str] = {}
        for memory, start, stop in reads:
            if start == stop:
                continue
            for earlier in self._memory(memory).read(start, stop, index, unit):
                found[earlier] = memory
        for memory, start, stop in writes:
            if start == stop:
                continue
            for earlier in self._memory(memory).write(start, stop, index):
                found[earlier] = memory
        found.pop(index, None)
        return tuple(sorted(found.items()))

    def _memory(self, name: str) -> _Memory:
        memory = self._memories.get(name)
        if memory is None:
            memory = self._memories[name] = _Memory()
        return memory


class _Memory:
    """Segments of one memory: their starts, and for each the last writer (-1: none) and the last reader by unit."""

    def __init__(self) -> None:
        self._starts = [0]
        self._writers = [-1]
        self._readers: list[dict[str, int]] = [{}]

    def _split(self, at: int) -> int:
        """The index of the segment that starts at `at`, made if there is none."""
        i = bisect_left(self._starts, at)
        if i == len(self._starts) or self._starts[i] != at:
            self._starts.insert(i, at)
            self._writers.insert(i, self._writers[i - 1])
            self._readers.insert(i, dict(self._readers[i - 1]))
        return i

    def read(self, start: int, stop: int, index: int, unit: str) -> set[int]:
        first, last = self._split(start), self._split(stop)
        for readers in self._readers[first:last]:
            readers[unit] = index
        return set(self._writers[first:last]) - {-1}

    def write(self, start: int, stop: int, index: int) -> set[int]:
        first, last = self._split(start), self._split(stop)
        found = set(self._writers[first:last]) - {-1}
        for readers in self._readers[first:last]:
            found.update(readers.values())
        del self._starts[first + 1 : last], self._writers[first + 1 : last], self._readers[first + 1 : last]
        self._writers[first], self._readers[first] = index, {}
        return found


def overlap(one: Range, other: Range) -> bool:
    """Whether two ranges have a byte in common."""
    return one.memory == other.memory and one.start < other.stop and other.start < one.stop
