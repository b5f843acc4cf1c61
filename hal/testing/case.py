"""The nouns of the conformance suite: a level holds cases, and running a case on a device gives an outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from hal.device import Device

Status = Literal["native", "decomposed", "fallback", "declined", "wrong", "crash"]
STATUSES: tuple[Status, ...] = ("native", "decomposed", "fallback", "declined", "wrong", "crash")
FAILURES: tuple[Status, ...] = ("wrong", "crash")


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        status: `native`, `decomposed`, `fallback`: right, and how it ran; `declined`: the device says that it does not
            do this; `wrong`: a wrong answer, or a promise broken; `crash`: an exception or a process that died.
        error: the largest error, in `unit`.
        allowed: the largest that the op's record allows, from the table `source`.
        bits: the inputs at the largest error, as hexadecimal bits, one per input.
        detail: for people: what was expected, what came, where.
        ulps: the largest error in units in the last place of the result, whatever `unit` is.
        histogram: how many elements of the result are off by how much, in the bins of `accuracy.BINS`.
        reason: why it did not run natively.
        bytes: how many were moved to another device and back, because something fell back.
    """

    status: Status
    error: float = 0.0
    allowed: float = 0.0
    unit: str = ""
    source: str = ""
    bits: tuple[str, ...] = ()
    detail: str = ""
    ulps: float = 0.0
    histogram: tuple[int, ...] = ()
    reason: str = ""
    bytes: int = 0

    @property
    def failed(self) -> bool:
        """Whether the device does not keep its promise."""
        return self.status in FAILURES


@dataclass(frozen=True)
class Case:
    """One thing that a device must get right.

    Attributes:
        id: unique and stable, `level/subject/dtype/number`: what reruns it.
        run: runs it on a device. Whatever it raises is a crash.
        op, dtype: what it is about, if that is one op and one dtype: a cell of the matrix.
        needs: ids of cases without which this one means nothing: if one of them failed, it is not run.
    """

    id: str
    run: Callable[[Device], Outcome]
    op: str = ""
    dtype: str = ""
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Level:
    """Cases that belong together. Levels are run in order of `order`.

    Attributes:
        cases: the level's cases for a device. The same device always gives the same ids.
        basic: whether nothing after it means anything if one of its cases fails: the rest is then not run.
        default: whether it is run when nothing else is asked for.
    """

    name: str
    doc: str
    order: int
    cases: Callable[[Device], Iterator[Case]] = field(repr=False)
    basic: bool = False
    default: bool = True
