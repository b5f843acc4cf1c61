"""Copies between host and device on a stream of their own, through page-locked memory that is used again."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from hal.codegen.kernels.memory import Memory, Pool, rounded
from hal.plugin import Array

if TYPE_CHECKING:
    from hal_cuda.driver import Address, Handle
    from hal_cuda.runtime import CUDARuntime

KEPT = 1 << 28  # bytes of page-locked memory that wait to be used again


class Incoming(Pool):
    """Blocks that the copy stream writes into, which is not in order with the kernels that read them.

    A block that is given back is used again only by a later copy than the next, after an event that is recorded when it
    was found to be back: so a copy waits for a step that is done by then, and not for what was just enqueued.
    """

    def __init__(self, runtime: CUDARuntime, transfers: Transfers) -> None:
        super().__init__(runtime, runtime.pool.limit)
        self._lock = runtime.pool._lock  # one of them, when memory is out, empties both
        self.transfers = transfers
        self._waits: dict[Address, Handle] = {}
        self._noticed: list[tuple[Address, int]] = []

    def used_until(self, memory: Memory) -> Handle | None:
        """The event after which a block may be written, if anything ever read it."""
        return self._waits.pop(memory.data, None)

    def empty(self) -> None:
        with self._lock:
            self._sort_returned()  # what came back since is noticed, so that it is free when it is sorted again
            super().empty()

    def _sort_returned(self) -> None:
        for data, size in self._noticed:
            self._free.setdefault(size, []).append(data)
        self._noticed.clear()
        while self._returned:
            data, nbytes = self._returned.popleft()
            size = self._size(nbytes)
            self.used -= size
            self.kept += size
            event = self._waits[data] = self.transfers.event()
            self.transfers.driver.record(self.transfers.ordinal, event, self.transfers.compute)
            self._noticed.append((data, size))


class Transfers:
    """Copies to one device.

    The kernels that are enqueued after a copy wait for it, on the device; the host does not wait, and what was
    enqueued before goes on meanwhile.

    Attributes:
        stream: the one of the copies.
        pool: of the memory that is copied into.
    """

    def __init__(self, runtime: CUDARuntime) -> None:
        self.driver, self.ordinal, self.compute = runtime.driver, runtime.ordinal, runtime.stream
        self.stream = self.driver.stream(self.ordinal)
        self.pool = Incoming(runtime, self)
        self._busy: deque[tuple[Handle, Array]] = deque()
        self._free: dict[int, list[Array]] = {}
        self._kept = 0
        self._events: list[Handle] = []
        self._lock = threading.RLock()

    def send(self, array: Array, made_by: str) -> Memory:
        """Device memory with what is in a host array, which may change afterwards."""
        with self._lock:
            memory = self.pool.take(max(1, array.nbytes), made_by)
            before = self.pool.used_until(memory)
            if before is not None:
                self.driver.after(self.ordinal, self.stream, before)
                self._events.append(before)  # it may be recorded again: who waits for it knows what for
            staged = self._staged(array.nbytes)
            staged[: array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            self.driver.copy_in(self.ordinal, memory.data, staged[: array.nbytes], self.stream)
            event = self.event()
            self.driver.record(self.ordinal, event, self.stream)
            self.driver.after(self.ordinal, self.compute, event)
            self._busy.append((event, staged))
            return memory

    def send_now(self, array: Array, memory: Memory) -> None:
        """Copy a host array into device memory that nothing uses, and wait for that."""
        rows = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.driver.copy_in(self.ordinal, memory.data, rows, self.stream)
        self.driver.wait(self.ordinal, self.stream)

    def event(self) -> Handle:
        """An event to record."""
        return self._events.pop() if self._events else self.driver.event(self.ordinal)

    def _staged(self, nbytes: int) -> Array:
        """Page-locked memory that no copy reads any more."""
        while self._busy and self.driver.done(self._busy[0][0]):
            event, array = self._busy.popleft()
            self._events.append(event)
            if self._kept + array.nbytes <= KEPT:
                self._free.setdefault(array.nbytes, []).append(array)
                self._kept += array.nbytes
        size = rounded(nbytes)
        there = self._free.get(size)
        if there:
            self._kept -= size
            return there.pop()
        return self.driver.pinned(size)
