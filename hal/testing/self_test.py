"""Tests the conformance suite: it must find, and name, every planted fault, and nothing on the devices without one."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hal import ops, registry
from hal.config import did_you_mean
from hal.device import Device
from hal.errors import ConfigError
from hal.op import Op
from hal.plugin import Backend
from hal.testing import suite
from hal.testing.faults import TWINS, Fault, all_faults
from hal.testing.report import Report

PATIENCE = 20.0  # seconds for a case of a device that may hang
HANGS = 3.0


@dataclass(frozen=True)
class Found:
    """What the suite said of one broken device.

    Attributes:
        fault: what was planted.
        cases: the failed cases that name it.
        detail: what the first of them said, in one line.
        ran: number of cases that were run.
        failed: number of all cases that failed, those that name it included.
        seconds: how long it took.
    """

    fault: Fault
    cases: tuple[str, ...]
    detail: str
    ran: int
    failed: int
    seconds: float

    @property
    def caught(self) -> bool:
        """Whether the fault was caught and named."""
        return bool(self.cases)


@dataclass
class SelfTest:
    """What the suite found on broken devices, and what it wrongly found on sound ones.

    Attributes:
        found: one for each planted fault.
        alarms: complaints about devices without a fault: a device, a case, and what was said.
        twins: number of cases that each sound device was given.
    """

    found: list[Found] = field(default_factory=list)
    alarms: list[tuple[str, str, str]] = field(default_factory=list)
    twins: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Which share of the faults was caught."""
        return sum(f.caught for f in self.found) / len(self.found)

    @property
    def passed(self) -> bool:
        """Whether every fault was caught, and nothing else."""
        return all(f.caught for f in self.found) and not self.alarms

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {
            "passed": self.passed,
            "kill rate": self.rate,
            "planted": len(self.found),
            "caught": sum(f.caught for f in self.found),
            "seconds": round(self.seconds, 3),
            "alarms": [dict(zip(("device", "case", "detail"), alarm, strict=True)) for alarm in self.alarms],
            "twins": self.twins,
            "faults": [
                {
                    "name": f.fault.name, "doc": f.fault.doc, "caught": f.caught, "by": list(f.cases),
                    "expected": f.fault.caught, "says": f.fault.says, "detail": f.detail, "ran": f.ran,
                    "failed": f.failed, "seconds": round(f.seconds, 3),
                }
                for f in self.found
            ],
        }  # fmt: skip


Progress = Callable[[str, int, int], None]


def self_test(names: Iterable[str] = (), progress: Progress | None = None) -> SelfTest:
    """Run the suite on planted faults (default: all) and on the sound devices that they are like.

    A fault is given the cases that should find it and the basics, not the whole suite; its sound twin gets the same.

    Args:
        progress: called with what is run now, its number, and how many there are.

    Raises:
        ConfigError: there is no fault of such a name.
    """
    start = time.monotonic()
    chosen = _chosen(tuple(names))
    twins = sorted({fault.twin for fault in chosen})
    result = SelfTest()
    for i, twin in enumerate(twins):
        if progress is not None:
            progress(f"{twin}, a sound device", i, len(twins) + len(chosen))
        _run_twin(twin, [fault for fault in chosen if fault.twin == twin], result)
    for i, fault in enumerate(chosen, len(twins)):
        if progress is not None:
            progress(fault.name, i, len(twins) + len(chosen))
        result.found.append(find(fault))
    result.seconds = time.monotonic() - start
    return result


def _chosen(names: tuple[str, ...]) -> list[Fault]:
    planted = all_faults()
    for name in names:
        if name not in planted:
            raise ConfigError(f"there is no planted fault {name!r}{did_you_mean(name, list(planted))}")
    return [fault for name, fault in planted.items() if not names or name in names]


def find(fault: Fault) -> Found:
    """Run the suite on one broken device."""
    start = time.monotonic()
    with _added(fault.added):
        report = _in_a_worker(fault) if fault.own_process else _run(fault.make(), fault.runs)
    named = [
        r
        for r in report.failures
        if fnmatch.fnmatchcase(r.id, fault.caught)
        and r.status == fault.status
        and fault.says.lower() in r.outcome.detail.lower()
    ]
    detail = " ".join(named[0].outcome.detail.split()) if named else ""
    return Found(
        fault, tuple(r.id for r in named), detail, len(report.results), len(report.failures), time.monotonic() - start
    )


def _run_twin(twin: str, faults: list[Fault], result: SelfTest) -> None:
    """The cases of all faults that are like one sound device, which must pass them."""
    added = {op.name: op for fault in faults for op in fault.sound}
    patterns = sorted({pattern for fault in faults for pattern in fault.runs})
    with _added(added.values()):
        report = _run(TWINS[twin](), patterns)
    result.twins[twin] = len(report.results)
    result.alarms += [(twin, r.id, " ".join(r.outcome.detail.split())) for r in report.failures]
    for fault in faults:
        if not any(fnmatch.fnmatchcase(r.id, fault.caught) for r in report.results):
            result.alarms.append((twin, fault.caught, f"no case of a sound device is what should catch {fault.name}"))


def _run(backend: Backend, patterns: Iterable[str]) -> Report:
    registry.register(backend, backend.name)
    try:
        return suite.run(Device(backend.devices()[0]), in_process=True, cases=patterns)
    finally:
        registry.unregister(backend.name)


def _in_a_worker(fault: Fault) -> Report:
    kind = fault.make
    assert isinstance(kind, type), f"{fault.name} needs a process of its own, so a class that it can find"
    assert issubclass(kind, Backend)
    where = f"{kind.__module__}:{kind.__qualname__}"
    return suite.run(kind.name, cases=fault.runs, register=[where], timeout=HANGS)


@contextmanager
def _added(added: Iterable[Op]) -> Iterator[None]:
    """Ops in the table for the length of a block."""
    names = []
    try:
        for op in added:
            ops.add_to_table(op, "a planted fault")
            names.append(op.name)
        yield
    finally:
        for name in names:
            ops.TABLE.pop(name)
            delattr(ops, name)
        registry.changed()
