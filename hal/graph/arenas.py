"""The memory that all plans of a function share for what they compute on the way, since one of them runs at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from hal.device import Device
from hal.plugin import Buffer
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.graph.planner import Replay

Carve = Callable[[int, Spec, Buffer], Buffer]


class Arenas:
    """A block of memory on each device, as large as the plan that needs most of it.

    Attributes:
        lock: held by whoever runs a plan.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._blocks: dict[Device, tuple[int, Carve]] = {}
        self._users: WeakSet[Replay] = WeakSet()

    def __reduce__(self) -> tuple[Any, ...]:
        return Arenas, ()

    def reserve(self, nbytes: int, device: Device, user: Replay) -> bool:
        """Have at least so many bytes for `user`; False where a device gives none.

        If the block has to grow, whoever had a place in the old one lets go of it, and takes one when it runs again.
        """
        with self.lock:
            size, _ = self._blocks.get(device, (0, None))
            if nbytes > size:
                self._blocks.pop(device, None)
                for other in self._users:
                    other.let_go()
                carve = device.backend.reserve(nbytes, device)
                if carve is None:
                    return False
                self._blocks[device] = nbytes, carve
            self._users.add(user)
            return True

    def clear(self) -> None:
        """Give back all blocks."""
        with self.lock:
            self._blocks.clear()
            for user in self._users:
                user.let_go()

    def carve(self, device: Device, offset: int, spec: Spec, like: Buffer) -> Buffer:
        """A buffer at an offset, whose axes lie in memory as those of `like` do."""
        return self._blocks[device][1](offset, spec, like)
