"""A oneDNN primitive, ready to be called with pointers. Making one takes milliseconds, calling it microseconds."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

from hal.plugin import Array
from hal_onednn.api import SCRATCHPAD, Argument, Handle
from hal_onednn.finding import api
from hal_onednn.scratch import scratch


def address(array: Array) -> int:
    """Where its first element is."""
    found: int = array.__array_interface__["data"][0]
    return found


class _Call:
    """What one call at a time can use: a queue, the memory objects, and the pointers that were last put into them."""

    def __init__(self, layouts: Mapping[int, Handle]) -> None:
        library = api()
        self.stream = library.create("stream", library.engine, 1)
        self.memories = [library.create("memory", layout, library.engine, None) for layout in layouts.values()]
        self.raw = [memory._as_parameter_.value for memory in self.memories]
        self.pointers = [0] * len(self.memories)
        self.arguments = (Argument * len(self.memories))(*map(Argument, layouts, self.raw))
        self.address = ctypes.addressof(self.arguments)


class Primitive:
    """A primitive and its arguments' layouts. It may be called from several threads at once.

    Args:
        description: what it does.
        layouts: by the number of the argument; calls give their pointers in this order.
    """

    def __init__(self, description: Handle, layouts: Mapping[int, Handle]) -> None:
        library = api()
        self.implementation = library.implementation(description)
        self._handle = library.create("primitive", description)
        self._raw: int | None = self._handle._as_parameter_.value
        spare = library.layout_of(description, SCRATCHPAD)
        self._scratch = library.size(spare)
        self._layouts = {**layouts, SCRATCHPAD: spare} if self._scratch else dict(layouts)
        self._set, self._execute, self._wait = library.set_pointer, library.execute, library.wait
        self._check = library.check
        self._threads = library.threads
        self._made_for = library.threads.get()
        self._idle: list[_Call] = []

    def __call__(self, *pointers: int) -> None:
        """Run it on memory at these addresses; all other threads may run Python meanwhile."""
        try:
            call = self._idle.pop()
        except IndexError:
            call = _Call(self._layouts)
        if self._scratch:
            pointers = (*pointers, address(scratch("primitive", self._scratch)))
        last = call.pointers
        for i, pointer in enumerate(pointers):
            if last[i] != pointer:
                self._set(call.raw[i], pointer)
                last[i] = pointer
        queue, before = call.stream._as_parameter_, self._threads.get()
        if before != self._made_for:
            self._threads.set(self._made_for)
        status = self._execute(self._raw, queue, len(last), call.address) or self._wait(queue)
        if before != self._made_for:
            self._threads.set(before)
        self._idle.append(call)
        if status:
            self._check(f"running {self.implementation}", status)


def reorder(source: Handle, target: Handle) -> Primitive:
    """A primitive that copies an array from one layout into another."""
    library = api()
    engine = library.engine
    return Primitive(
        library.create("reorder_primitive_desc", source, engine, target, engine, library.attributes),
        {1: source, 17: target},
    )
