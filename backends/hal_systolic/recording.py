"""Records what kernels ask of a machine while a report is open: works with operands, in the order in which they ran."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from hal.plugin import Array, current_scope
from hal_systolic.config import Machine
from hal_systolic.describing import Product, Steps
from hal_systolic.work import Matmul, Operand, Transfer, Vector, Work

SMALLEST_TRANSFER = 16  # bytes: less is a number that travels in a command, as Python's scalars do


class Recorder:
    """What ran on machines since it was made.

    Attributes:
        works: by machine, in order.
    """

    def __init__(self) -> None:
        self.works: dict[Machine, list[Work]] = {}
        self._keys: dict[int, int] = {}  # numbers of the arrays that are alive, by id
        self._next = 0
        self._lock = threading.Lock()

    def operand(self, array: Array) -> Operand:
        """The operand that lies in this array: arrays that share memory have one key."""
        root: Any = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        place = id(root)
        key = self._keys.get(place)
        if key is None:
            key = self._next = self._next + 1
            self._keys[place] = key
            weakref.finalize(root, self._keys.pop, place, None).atexit = False  # the id may be given to another
        return Operand(key, int(array.nbytes))

    def note(
        self, machine: Machine, op: str, asked: Product | Steps, inputs: Sequence[Array], results: Sequence[Array]
    ) -> None:
        """Add what the kernel of an op asked, with its operands; what has no scope is called by its op."""
        layer = current_scope() or op
        with self._lock:
            works = self.works.setdefault(machine, [])
            read = [self.operand(x) for x in inputs]
            written = [self.operand(x) for x in results]
            if isinstance(asked, Steps):
                works.append(Vector(asked.op, asked.elements, asked.ops, tuple(read), tuple(written), layer))
                return
            works.append(
                Matmul(
                    asked.m, asked.k, asked.n, read[asked.a], read[asked.b], written[0], dtype=asked.dtype,
                    count=asked.count, passes=asked.passes, halo=asked.halo, epilogue=asked.epilogue, layer=layer,
                )
            )  # fmt: skip
            if asked.gathered:
                works.append(Vector("gather_patches", asked.gathered, 1.0, (written[0],), (written[0],), layer))

    def moved(self, machine: Machine, array: Array, to_device: bool) -> None:
        """Add a copy from or to the host."""
        if array.nbytes < SMALLEST_TRANSFER:
            return
        with self._lock:
            self.works.setdefault(machine, []).append(
                Transfer(self.operand(array), to_device, current_scope() or "copies")
            )

    def finished(self, machine: Machine) -> list[Work]:
        """What ran on a machine, with operands marked that are weights: stationary sides that nothing here wrote."""
        works = self.works.get(machine, [])
        written: set[int] = set()
        for work in works:
            if isinstance(work, Matmul):
                written.add(work.out.key)
            elif isinstance(work, Vector):
                written.update(o.key for o in work.outputs)
            elif isinstance(work, Transfer) and work.to_device:
                written.add(work.operand.key)
        return [
            replace(w, b=replace(w.b, weight=True)) if isinstance(w, Matmul) and w.b.key not in written else w
            for w in works
        ]


active: Recorder | None = None


@contextmanager
def recording() -> Iterator[Recorder]:
    """Record in a new recorder inside the block, in all threads; an outer one rests."""
    global active
    before, active = active, Recorder()
    try:
        yield active
    finally:
        active = before
