"""Device memory: blocks that return to a pool when nothing refers to them, a limit, and who holds them."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hal.plugin import OutOfMemoryError

if TYPE_CHECKING:
    from hal.codegen.kernels.runtime import Runtime

GRAIN = 256  # bytes: what blocks are rounded up to, at least
HOLDERS = 5  # how many are named when memory is out


class Memory:
    """A block of device memory. It goes back to its pool when the last buffer on it is gone.

    Attributes:
        runtime: the device whose memory it is.
        pool: where it goes back to.
        data: the driver's object for it.
        nbytes: how much was asked for.
        host: the host array that lies in the same memory, if there is one: then kernels that write are waited for.
    """

    __slots__ = ("__weakref__", "data", "host", "made_by", "nbytes", "pool", "runtime")

    def __init__(
        self, runtime: Runtime, data: Any, nbytes: int, made_by: str, host: Any = None, pool: Pool | None = None
    ) -> None:
        self.runtime = runtime
        self.pool = pool or runtime.pool
        self.data = data
        self.nbytes = nbytes
        self.made_by = made_by
        self.host = host

    def __del__(self) -> None:
        self.runtime.release(self)


class Pool:
    """The blocks of one device: those in use, and free ones by size, which are reused without a wait.

    That is safe because all work of a device goes through one in-order queue: whatever still reads a block that was
    given back comes before whatever writes into it next.

    Attributes:
        limit: bytes that may be in use and free together, in all pools of the device.
        used: bytes in use now.
        peak: the most that were in use at one time.
        kept: bytes in free blocks.
    """

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self.runtime = runtime
        self.limit = limit
        self.used = self.peak = self.kept = 0
        self._free: dict[int, list[Any]] = {}
        self._live: weakref.WeakSet[Memory] = weakref.WeakSet()
        self._lock = threading.RLock()  # a finalizer may run while it is held
        self._left: list[Any] = []
        self._returned: deque[tuple[Any, int]] = deque()

    def take(self, nbytes: int, made_by: str) -> Memory:
        """A block of at least `nbytes`, whose contents are whatever they are.

        Raises:
            OutOfMemoryError: it does not fit; the message lists the largest holders.
        """
        size = self._size(nbytes)
        with self._lock:
            self._sort_returned()
            blocks = self._free.get(size)
            if blocks:
                data = blocks.pop()
                self.kept -= size
            else:
                data = self._allocate(size, nbytes, made_by)
            self.used += size
            self.peak = max(self.peak, self.used)
            memory = Memory(self.runtime, data, nbytes, made_by, pool=self)
            self._live.add(memory)
            return memory

    def give_back(self, data: Any, nbytes: int) -> None:
        """Take a block back. Called by finalizers, at any moment and in any thread: it only takes a note."""
        self._returned.append((data, nbytes))

    def empty(self) -> None:
        """Give the free blocks back to the driver."""
        with self._lock:
            self._sort_returned()
            for blocks in self._free.values():
                for data in blocks:
                    self.runtime.deallocate(data)
            self._free.clear()
            self.kept = 0

    def holders(self) -> str:
        """The largest groups of blocks in use, for people."""
        return holders([self])

    def blocks(self) -> Counter[tuple[str, int]]:
        """How many blocks are in use, by what made them and their size."""
        with self._lock:
            return Counter((m.made_by, m.nbytes) for m in self._live)

    def _size(self, nbytes: int) -> int:
        """The size of a block: for simulators, which look for what lies beyond it and was never written, no more."""
        return nbytes if self.runtime.is_simulator else rounded(nbytes)

    def _sort_returned(self) -> None:
        while self._returned:
            data, nbytes = self._returned.popleft()
            size = self._size(nbytes)
            self.used -= size
            if self.runtime.is_simulator:
                # What Oclgrind 21.10 notes of a block that was freed it reports of the next one (measured).
                self._left.append(data)
            else:
                self._free.setdefault(size, []).append(data)
                self.kept += size

    def _allocate(self, size: int, nbytes: int, made_by: str) -> Any:
        pools = self.runtime.pools
        for attempt in range(2):
            if sum(p.used + p.kept for p in pools) + size <= self.limit and size <= self.runtime.max_block:
                try:
                    return self.runtime.allocate(size)
                except MemoryError:
                    pass
            if attempt == 0:
                if size > self.runtime.max_block:
                    break
                gc.collect()  # tensors in reference cycles
                self.runtime.finish()
                for pool in pools:
                    pool.empty()
        used = sum(p.used for p in pools)
        largest = f"a block has at most {bytes_text(self.runtime.max_block)}"
        raise OutOfMemoryError(
            f"{made_by} needs {bytes_text(nbytes)} on {self.runtime.name}, which has {bytes_text(self.limit)} "
            f"({largest}), {bytes_text(used)} of them in use: {holders(pools) or 'by nothing'}; "
            "free tensors, or use smaller batches"
        )


def holders(pools: Sequence[Pool]) -> str:
    """The largest groups of blocks in use of all these pools, for people."""
    groups = sum((p.blocks() for p in pools), Counter[tuple[str, int]]())
    largest = sorted(groups.items(), key=lambda g: -g[0][1] * g[1])[:HOLDERS]
    return ", ".join(f"{n} x {bytes_text(nbytes)} from {made_by}" for (made_by, nbytes), n in largest)


def rounded(nbytes: int) -> int:
    """The size of the block for `nbytes`: a multiple of an eighth of the power of two below, so that sizes recur."""
    step = max(GRAIN, 1 << max(0, nbytes.bit_length() - 4))
    return max(GRAIN, -(-nbytes // step) * step)


def bytes_text(nbytes: int) -> str:
    """Bytes for people."""
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
