"""What the scheduler did: fallbacks, copies and host synchronisations, with counts, bytes, reasons and source lines."""

from __future__ import annotations

import atexit
import json
import sys
import threading
from dataclasses import asdict, dataclass, field
from types import TracebackType

from hal import config, policy
from hal.source import describe, user_line


@dataclass
class Entry:
    """One thing that happened, perhaps many times.

    Attributes:
        what: the op, `copy`, or the call that waited for a device.
        source: the device it began on.
        target: the device it went to.
        reason: why.
        line: the user's line.
        count: how often.
        bytes: moved in all.
    """

    what: str
    source: str
    target: str
    reason: str
    line: str
    count: int = 0
    bytes: int = 0


Key = tuple[str, str, str, str, object]


@dataclass(eq=False)
class Report:
    """What happened since it was made, or inside the `with` block that it heads."""

    fallbacks: dict[Key, Entry] = field(default_factory=dict)
    copies: dict[Key, Entry] = field(default_factory=dict)
    syncs: dict[Key, Entry] = field(default_factory=dict)

    def __enter__(self) -> Report:
        self.clear()
        _active.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _active.remove(self)
        say_fallbacks(self)
        if len(_active) == 1:
            _at_exit.clear()  # said already

    def clear(self) -> None:
        """Forget everything."""
        self.fallbacks.clear()
        self.copies.clear()
        self.syncs.clear()

    def summary(self) -> str:
        """One line on what fell back, or an empty string."""
        if not self.fallbacks:
            return ""
        entries = list(self.fallbacks.values())
        names = sorted({e.what for e in entries})
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        ways = ", ".join(sorted({f"{e.source} -> {e.target}" for e in entries}))
        return (
            f"hal: {sum(e.count for e in entries)} calls of {len(names)} ops fell back ({ways}, "
            f"{sum(e.bytes for e in entries):,} bytes copied): {shown}; hal.placement_report() has each with its reason"
        )

    def __str__(self) -> str:
        lines = []
        for title, table in (
            ("fallbacks", self.fallbacks),
            ("copies", self.copies),
            ("host synchronisations", self.syncs),
        ):
            if not table:
                lines.append(f"no {title}")
                continue
            lines.append(f"{title}:")
            for e in sorted(table.values(), key=lambda e: -e.bytes):
                way = f"{e.source} -> {e.target}"
                lines.append(f"  {e.what:<24} {way:<22} {e.count:>7} x {e.bytes:>14,} B  {e.reason}  [{e.line}]")
        return "\n".join(lines)

    __repr__ = __str__

    def to_json(self) -> str:
        """The three lists as a JSON object."""
        tables = {"fallbacks": self.fallbacks, "copies": self.copies, "syncs": self.syncs}
        return json.dumps({name: [asdict(e) for e in table.values()] for name, table in tables.items()})


_whole = Report()
_at_exit = Report()  # what fell back and no block has said yet
_active: list[Report] = [_whole]
_lock = threading.Lock()


def placement_report() -> Report:
    """What fell back, was copied, or waited for a device, since the start of the process.

    `with hal.placement_report() as report:` gives the report of the block alone.
    """
    return _View()


class _View(Report):
    """The report of the whole process until it is entered, then that of its block."""

    def __init__(self) -> None:
        super().__init__(_whole.fallbacks, _whole.copies, _whole.syncs)

    def __enter__(self) -> Report:
        self.fallbacks, self.copies, self.syncs = {}, {}, {}
        return super().__enter__()


def _note(table: str, what: str, source: object, target: object, reason: str, nbytes: int, count: int) -> None:
    line = user_line(3)
    key = (what, str(source), str(target), reason, line)
    warned = table != "fallbacks" or policy.fallback.current() == "warn"  # what was allowed needs no word at the end
    with _lock:
        for report in (*_active, _at_exit) if warned else tuple(_active):
            entries: dict[Key, Entry] = getattr(report, table)
            entry = entries.get(key)
            if entry is None:
                entry = entries[key] = Entry(what, str(source), str(target), reason, describe(line))
            entry.count += count
            entry.bytes += nbytes


def note_fallback(op: str, source: object, target: object, reason: str, nbytes: int) -> None:
    """Count a call of `op` on `source` that ran on `target`."""
    _note("fallbacks", op, source, target, reason, nbytes, 1)
    if config.logs("placement"):
        print(f"hal: {op} fell back from {source} to {target}: {reason} [{describe(user_line())}]", file=sys.stderr)


def note_copy(what: str, source: object, target: object, reason: str, nbytes: int) -> None:
    """Count a copy between devices."""
    _note("copies", what, source, target, reason, nbytes, 1)
    if config.logs("copies"):
        print(
            f"hal: copied {nbytes:,} B from {source} to {target}: {reason} [{describe(user_line())}]", file=sys.stderr
        )


def note_sync(what: str, source: object, nbytes: int) -> None:
    """Count a moment at which Python waited for a device."""
    _note("syncs", what, source, "host", "a value was asked for in Python", nbytes, 1)


def say_fallbacks(report: Report) -> None:
    """Print the one line about fallbacks, if there were any and the policy is `warn`."""
    line = report.summary()
    if line and config.get("HAL_FALLBACK") in ("", "warn"):
        print(line, file=sys.stderr)


atexit.register(say_fallbacks, _at_exit)
