"""Two runs of the conformance suite side by side: what the later one does worse, and what it does better."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hal.testing.case import STATUSES
from hal.testing.report import Entry, Report, Result

GROWN, NOTICED = 1.25, 0.1  # an error has grown: by this factor, and to this share of what is allowed
SHOWN = 12  # lines of each kind
GONE = "gone"
Pair = tuple[Result, Result | None]  # a case before and after


@dataclass(frozen=True)
class Change:
    """Cases of one op (or level) and dtype that ended in one way before and in another after.

    Attributes:
        subject: `level/op/dtype`, as far as they have them.
        before, after: the statuses; `gone` where the case is no longer there or was not run.
        count: number of cases.
        case: the first of them.
        detail: what the later run says of it.
    """

    subject: str
    before: str
    after: str
    count: int
    case: str
    detail: str = ""

    def __str__(self) -> str:
        more = f" ({self.count} cases)" if self.count > 1 else ""
        first = self.detail.strip().partition("\n")[0]
        return f"{self.case}: {self.before} -> {self.after}{more}" + (f"\n    {first}" if first else "")


@dataclass(frozen=True)
class Growth:
    """An entry of the accuracy certificate whose largest error grew."""

    before: Entry
    after: Entry

    def __str__(self) -> str:
        a, b = self.before, self.after
        return f"{b.op} {b.dtype}: {a.error:.3g} -> {b.error:.3g} {b.unit}, allowed {b.allowed:.3g} [{b.case}]"


@dataclass
class Comparison:
    """What changed from one run to the next.

    Attributes:
        failures: what failed anew. worse: what passes, by a worse way than before. gone: what was run and is not there.
        grown: certificate entries with a larger error. better: what improved, which is no regression.
    """

    before: Report
    after: Report
    failures: list[Change] = field(default_factory=list)
    worse: list[Change] = field(default_factory=list)
    gone: list[Change] = field(default_factory=list)
    grown: list[Growth] = field(default_factory=list)
    better: list[Change] = field(default_factory=list)

    @property
    def regressions(self) -> int:
        """Number of things that got worse."""
        return sum(c.count for c in (*self.failures, *self.worse, *self.gone)) + len(self.grown)

    def __str__(self) -> str:
        lines = [f"{_name(self.before)}  ->  {_name(self.after)}"]
        kinds: list[tuple[str, list[Change] | list[Growth]]] = [
            ("new failures", self.failures),
            ("worse", self.worse),
            ("gone", self.gone),
            ("larger errors", self.grown),
            ("better", self.better),
        ]
        for title, found in kinds:
            if found:
                lines.append(f"{title}:")
                lines += [f"  {change}" for change in found[:SHOWN]]
                if len(found) > SHOWN:
                    lines.append(f"  and {len(found) - SHOWN} more")
        both = len({r.id for r in self.before.results} & {r.id for r in self.after.results})
        lines.append(f"{self.regressions:,} regressions in {both:,} cases that both have")
        return "\n".join(lines)

    __repr__ = __str__


def _name(report: Report) -> str:
    return f"{report.device}, {report.started or 'at an unknown time'}, hal {report.versions.get('hal', 'unknown')}"


def compare(before: Report, after: Report) -> Comparison:
    """What changed from `before` to `after`. What a narrower run left out on purpose is not missing in it."""
    found = Comparison(before, after)
    later = {r.id: r for r in after.results}
    failures: list[Pair] = []
    worse: list[Pair] = []
    gone: list[Pair] = []
    better: list[Pair] = []
    for r in before.results:
        now = later.get(r.id)
        if now is None:
            if not after.chosen:
                gone.append((r, None))
            continue
        step = STATUSES.index(now.status) - STATUSES.index(r.status)
        if now.outcome.failed and not r.outcome.failed:
            failures.append((r, now))
        elif step > 0:
            worse.append((r, now))
        elif step < 0:
            better.append((r, now))
    known = {r.id for r in before.results}
    news = [r for r in after.results if r.id not in known and r.outcome.failed]
    found.failures = [*_grouped(failures), *_new(news)]
    found.worse, found.gone, found.better = _grouped(worse), _grouped(gone), _grouped(better)
    found.grown = list(_grown(before.certificate(), after.certificate()))
    return found


def _subject(r: Result) -> str:
    return "/".join(part for part in (r.level, r.op, r.dtype) if part) if r.op else r.id


def _grouped(pairs: Iterable[Pair]) -> list[Change]:
    groups: dict[tuple[str, str, str], list[Pair]] = {}
    for r, now in pairs:
        groups.setdefault((_subject(r), r.status, now.status if now else GONE), []).append((r, now))
    changes = []
    for (subject, was, is_now), members in groups.items():
        r, now = members[0]
        changes.append(Change(subject, was, is_now, len(members), r.id, now.outcome.detail if now else ""))
    return changes


def _new(results: Iterable[Result]) -> list[Change]:
    groups: dict[tuple[str, str], list[Result]] = {}
    for r in results:
        groups.setdefault((_subject(r), r.status), []).append(r)
    return [
        Change(subject, "not there", status, len(members), members[0].id, members[0].outcome.detail)
        for (subject, status), members in groups.items()
    ]


def _grown(before: list[Entry], after: list[Entry]) -> Iterable[Growth]:
    known = {(e.op, e.dtype): e for e in before}
    for e in after:
        was = known.get((e.op, e.dtype))
        if was is not None and e.error > GROWN * was.error and e.error > NOTICED * e.allowed:
            yield Growth(was, e)
