"""What a run of the conformance suite found: every case, the counts, and the accuracy certificate; as JSON and back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from hal.testing.accuracy import ROUNDING
from hal.testing.case import STATUSES, Outcome, Status

FORMAT = 1  # of the JSON
_PLAIN = ("device", "facts", "versions", "levels", "started", "seconds", "chosen", "register")


@dataclass(frozen=True)
class Result:
    """A case that was run.

    Attributes:
        known: the reason with which the backend excuses this failure; the status is then `declined`.
    """

    id: str
    level: str
    outcome: Outcome
    op: str = ""
    dtype: str = ""
    seconds: float = 0.0
    known: str = ""

    @property
    def status(self) -> Status:
        """How it ended."""
        return self.outcome.status


@dataclass(frozen=True)
class NotRun:
    """Cases of a level that were left out because of a failure before them."""

    level: str
    count: int
    reason: str


@dataclass(frozen=True)
class Entry:
    """A line of the accuracy certificate: the largest error of one op in one dtype.

    Attributes:
        op, dtype: of what.
        error, allowed, unit, source: the largest error seen, in `unit`, and the table with its limit.
        ulps: the largest error in units in the last place of the result.
        bits, case: the inputs at which it was seen (elementwise ops), and the case that shows it again.
        cases: number of cases it is the largest of.
        histogram: number of elements of results in each of `accuracy.BINS`, and beyond the last.
    """

    op: str
    dtype: str
    error: float
    allowed: float
    unit: str
    source: str
    ulps: float
    bits: tuple[str, ...]
    case: str
    cases: int
    histogram: tuple[int, ...]

    @property
    def share(self) -> float:
        """How much of what is allowed was used; nothing where a result was the nearest number there is."""
        if self.error <= ROUNDING:
            return 0.0
        return self.error / self.allowed if self.allowed else self.error


@dataclass
class Report:
    """One run of the suite on one device.

    Attributes:
        device: its name.
        facts: what the backend declares and says of itself.
        versions: of hal, Python, libraries, and of the package that brings the backend.
        levels: names of the levels that were asked for, with what they are about.
        results: every case that was run, in order.
        not_run: what was left out, and why.
        started: when, as ISO 8601 in UTC.
        seconds: how long it took.
        chosen: the filters of the run, empty if there were none.
        register: devices registered for this run, as `module:attribute`.
    """

    device: str
    facts: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    levels: dict[str, str] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    not_run: list[NotRun] = field(default_factory=list)
    started: str = ""
    seconds: float = 0.0
    chosen: dict[str, list[str]] = field(default_factory=dict)
    register: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Number of cases by how they ended."""
        return count(self.results) | {"not run": sum(n.count for n in self.not_run)}

    @property
    def failures(self) -> list[Result]:
        """The cases that ended wrong or in a crash."""
        return [r for r in self.results if r.outcome.failed]

    def failure_groups(self) -> list[list[Result]]:
        """The failures, those of one level, op and dtype that ended the same way together."""
        groups: dict[tuple[str, ...], list[Result]] = {}
        for r in self.failures:
            groups.setdefault((r.level, r.op, r.dtype, r.status) if r.op else (r.id,), []).append(r)
        return list(groups.values())

    @property
    def passed(self) -> bool:
        """Whether there was something to run, and nothing failed."""
        return bool(self.results) and not self.failures

    def by_level(self) -> dict[str, list[Result]]:
        """The results of each level that has any."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            found.setdefault(result.level, []).append(result)
        return found

    def rerun(self, result: Result) -> str:
        """The line that runs one case again."""
        registered = "".join(f" --register {name}" for name in self.register)
        return f"hal conform {self.device}{registered} --case '{result.id}'"

    def certificate(self) -> list[Entry]:
        """The largest error of each op in each dtype."""
        groups: dict[tuple[str, str], list[Result]] = {}
        for r in self.results:
            if r.op and r.dtype and r.outcome.unit and r.outcome.unit != "gradient":
                groups.setdefault((r.op, r.dtype), []).append(r)
        return [_entry(*key, group) for key, group in sorted(groups.items())]

    def to_json(self) -> str:
        """Everything, as a JSON object with a line for each case; `from_json` reads it."""
        whole = {
            "format": FORMAT, "passed": self.passed, "counts": self.counts,
            **{name: getattr(self, name) for name in _PLAIN}, "not_run": [asdict(n) for n in self.not_run],
            "certificate": [_finite(asdict(e)) for e in self.certificate()], "cases": [],
        }  # fmt: skip
        cases = ",\n".join(json.dumps(self._case(r), allow_nan=False) for r in self.results)
        return json.dumps(whole, indent=1, allow_nan=False).removesuffix("[]\n}") + f"[\n{cases}\n]\n}}\n"

    def _case(self, r: Result) -> dict[str, Any]:
        given = {"id": r.id, "level": r.level, "op": r.op, "dtype": r.dtype, "known": r.known}
        timed = {"seconds": round(r.seconds, 6), "rerun": self.rerun(r)}
        return {k: v for k, v in given.items() if v} | _brief(r.outcome) | timed

    @classmethod
    def from_json(cls, text: str) -> Report:
        """A report that `to_json` wrote. Histograms of single cases are not kept, those of the certificate are.

        Raises:
            ValueError: it is not such a report.
        """
        try:
            whole = json.loads(text)
            if whole["format"] != FORMAT:
                raise ValueError(f"format {whole['format']}, this hal reads format {FORMAT}")
            results = [_result(case) for case in whole["cases"]]
            _complete(results, whole["certificate"])
            return cls(
                results=results,
                not_run=[NotRun(**n) for n in whole["not_run"]],
                **{name: whole[name] for name in _PLAIN},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"this is no report of `hal conform --json`: {error!r}") from error


def count(results: Iterable[Result]) -> dict[str, int]:
    """Number of cases by how they ended, every status with its place."""
    counts: dict[str, int] = dict.fromkeys(STATUSES, 0)
    for r in results:
        counts[r.status] += 1
    return counts


def _entry(op: str, dtype: str, group: list[Result]) -> Entry:
    def size(r: Result) -> tuple[float, float]:
        o = r.outcome
        return (o.error / o.allowed if o.allowed else o.error, o.ulps)

    worst = max(group, key=size)
    o = worst.outcome
    histograms = [r.outcome.histogram for r in group if r.outcome.histogram]
    total = tuple(sum(column) for column in zip(*histograms, strict=True))
    ulps = max(r.outcome.ulps for r in group)
    return Entry(
        op, dtype, float(o.error), float(o.allowed), o.unit, o.source, float(ulps), o.bits, worst.id, len(group), total
    )


_DEFAULTS = {f.name: f.default for f in fields(Outcome)}


def _brief(outcome: Outcome) -> dict[str, Any]:
    """What differs from the defaults, without what the certificate says."""
    given = {name: value for name, value in vars(outcome).items() if value != _DEFAULTS[name]}
    return _finite({name: value for name, value in given.items() if name not in ("histogram", "source")})


def _finite(given: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: it is written as a word."""
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in given.items()}


def _result(case: dict[str, Any]) -> Result:
    given = {k: v for k, v in case.items() if k in _DEFAULTS}
    for name in ("error", "allowed", "ulps"):
        given[name] = float(given.get(name, 0))
    given["bits"] = tuple(given.get("bits", ()))
    return Result(
        case["id"], case["level"], Outcome(**given), case.get("op", ""), case.get("dtype", ""), case["seconds"],
        case.get("known", ""),
    )  # fmt: skip


def _complete(results: list[Result], certificate: list[dict[str, Any]]) -> None:
    """Give the results what the certificate says: each its source, and the worst of an op and dtype the histogram."""
    by_cell = {(e["op"], e["dtype"]): e for e in certificate}
    for i, r in enumerate(results):
        entry = by_cell.get((r.op, r.dtype))
        if entry is None or not r.outcome.unit:
            continue
        histogram = tuple(entry["histogram"]) if entry["case"] == r.id else ()
        results[i] = replace(r, outcome=replace(r.outcome, source=entry["source"], histogram=histogram))
