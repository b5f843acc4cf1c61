"""A planted fault: a device that is wrong in one known way, and the cases of the suite that must find it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hal import dtypes, ops
from hal.op import Array, Op
from hal.plugin import Backend, Spec
from hal.testing.case import Status
from hal.testing.fake import Fake

SMALL = 1 << 16  # bytes of the device with little memory
SEVERAL: dict[str, Any] = {"views": True, "out": True, "host_memory": True}

# The sound devices that the broken ones are like. Each must pass what finds its broken relatives.
TWINS: dict[str, Callable[[], Fake]] = {
    "plain": lambda: Fake("plain", dtypes=dtypes.ALL),
    "no-float16": lambda: Fake("no-float16", dtypes=set(dtypes.ALL) - {dtypes.float16}),
    "views": lambda: Fake("views", dtypes=dtypes.ALL, views=True),
    "host": lambda: Fake("host", dtypes=dtypes.ALL, **SEVERAL),
    "later": lambda: Fake("later", dtypes=dtypes.ALL, asynchronous=True, **SEVERAL),
    "small": lambda: Fake("small", dtypes=dtypes.ALL, memory=SMALL),
    "pair": lambda: Fake("pair", dtypes=dtypes.ALL, views=True, count=2),
}


@dataclass(frozen=True)
class Fault:
    """A broken device, and what the suite should say of it.

    Attributes:
        name: what it is called in tables.
        doc: what is wrong with it, as a sentence.
        make: makes the broken device. For one that needs a process of its own, a class with a name.
        caught: the case, or a pattern of cases, of which one must fail.
        says: text that the failure's detail must contain, where the case alone does not name the fault.
        status: how that case ends, `wrong` or `crash`.
        cases: what is run: these and `caught`. The basics are always among them.
        twin: the sound device that it is like, one of `TWINS`, which must pass the same cases.
        own_process: whether it must run in a worker, because it ends or hangs the process.
        added: ops that come with the device, as a plugin brings them, in their broken form.
        sound: the same ops as they should be, for the twin.
    """

    name: str
    doc: str
    make: Callable[[], Backend]
    caught: str
    says: str = ""
    status: Status = "wrong"
    cases: tuple[str, ...] = ()
    twin: str = "plain"
    own_process: bool = False
    added: tuple[Op, ...] = ()
    sound: tuple[Op, ...] = ()

    @property
    def runs(self) -> tuple[str, ...]:
        """The patterns of the cases that are run."""
        return ("basics/*", self.caught, *self.cases)


class Miscomputing(Fake):
    """A device with a wrong kernel: `wrong(right, *inputs, **settings)` gives what comes of it."""

    def __init__(self, name: str, op: str, wrong: Callable[..., Any], **limits: Any) -> None:
        super().__init__(name, **{"dtypes": dtypes.ALL, **limits})
        self._op = op
        self._wrong = wrong

    def compute(
        self, op: Op, inputs: list[Array], settings: dict[str, Any], specs: tuple[Spec, ...]
    ) -> tuple[Array, ...]:
        right = super().compute(op, inputs, settings, specs)
        if op.name != self._op:
            return right
        with np.errstate(all="ignore"):
            wrong = self._wrong(right[0] if len(right) == 1 else right, *inputs, **settings)
            several = wrong if isinstance(wrong, tuple) else (wrong,)
            return tuple(np.asarray(w).astype(s.dtype.numpy) for w, s in zip(several, specs, strict=True))


def miscomputes(op: str, name: str, doc: str, wrong: Callable[..., Any], *, level: str = "", **more: Any) -> Fault:
    """A fault in the kernel of one op, found by that op's own cases in `level` (default: where all its samples are)."""
    level = level or ("primitives" if ops.TABLE[op].is_primitive else "composites")
    return Fault(name, doc, lambda: Miscomputing(name, op, wrong), f"{level}/{op}/*", **more)
