"""Faults of time: streams, threads, results that change, errors that nobody hears of, processes that end or hang."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any

import numpy as np

from hal import dtypes
from hal.op import Array, Op
from hal.plugin import Device, Spec
from hal.testing.fake import Fake
from hal.testing.fake_memory import FakeBuffer
from hal.testing.faults.fault import SEVERAL, Fault, Miscomputing

LATER: dict[str, Any] = {"dtypes": dtypes.ALL, "asynchronous": True, **SEVERAL}


class DoesNotWait(Fake):
    """Downloads what is in memory, whether it is computed or not."""

    def wait(self, buffer: FakeBuffer) -> None:
        return None


class NothingToSynchronize(Fake):
    """Says that all work is done, and has not looked."""

    def synchronize(self, device: Device) -> None:
        return None


class ForgetsReaders(Fake):
    """Writes into a buffer that kernels before it have still to read."""

    def write(self, buffer: FakeBuffer, value: FakeBuffer, spec: Spec) -> None:
        self.wait(value)
        buffer.contents[...] = value.contents


class SharedScratch(Fake):
    """Computes products in one place that all threads share."""

    def compute(
        self, op: Op, inputs: list[Array], settings: dict[str, Any], specs: tuple[Spec, ...]
    ) -> tuple[Array, ...]:
        if op.name != "mul":
            return super().compute(op, inputs, settings, specs)
        self._scratch = super().compute(op, inputs, settings, specs)
        time.sleep(0.0005)  # what a kernel takes
        return tuple(np.resize(r, s.shape) for r, s in zip(self._scratch, specs, strict=True))


_ends = itertools.cycle((-np.inf, np.inf))


def _another_order(y: Array, x: Array, **settings: Any) -> Array:
    return np.nextafter(y, np.full_like(y, next(_ends))) if y.dtype.kind == "f" else y


class Dies(Fake):
    """Ends the process in tanh, as a driver that crashes does."""

    name = "dies-in-tanh"

    def __init__(self) -> None:
        super().__init__(self.name, dtypes=dtypes.ALL)

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], out: Any = None) -> Any:
        if op.name == "tanh":
            os._exit(9)
        return super().run(op, buffers, settings, out)


class Hangs(Fake):
    """Never comes back from erf."""

    name = "hangs-in-erf"

    def __init__(self) -> None:
        super().__init__(self.name, dtypes=dtypes.ALL)

    def run(self, op: Op, buffers: tuple[FakeBuffer, ...], settings: dict[str, Any], out: Any = None) -> Any:
        while op.name == "erf":
            time.sleep(1)
        return super().run(op, buffers, settings, out)


FAULTS = (
    Fault("stream-ignored", "A result is read before it is computed.",
          lambda: DoesNotWait("stream-ignored", **LATER), "basics/add", twin="later"),
    Fault("synchronize-does-nothing", "The device says that all is done when it is not.",
          lambda: NothingToSynchronize("synchronize-does-nothing", **LATER), "memory/synchronize-shared", twin="later"),
    Fault("written-before-read", "A change in place overtakes the kernels that still read the old contents.",
          lambda: ForgetsReaders("written-before-read", **LATER), "views/*", twin="later"),
    Fault("scratch-shared-by-threads", "Threads compute in the same piece of memory.",
          lambda: SharedScratch("scratch-shared-by-threads", dtypes=dtypes.ALL), "threads/own-data"),
    Fault("another-sum-each-time", "The last bit of a sum is another one each time.",
          lambda: Miscomputing("another-sum-each-time", "sum", _another_order),
          "repeats/sum/*", says="gave other bits than the first"),
    Fault("dies-in-tanh", "The process ends in the middle of an op.",
          Dies, "primitives/tanh/float32/0", says="exited with status 9", status="crash", own_process=True),
    Fault("hangs-in-erf", "An op never comes back.",
          Hangs, "composites/erf/float32/0", says="gave no answer", status="crash", own_process=True),
)  # fmt: skip
