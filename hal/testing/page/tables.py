"""Tables of the page: failures, what falls back and its cost, the accuracy certificate, and the facts of the run."""

from __future__ import annotations

from typing import Any

from hal.testing.page.markup import Markup, join, number, row, section, tag, tall_table, titles
from hal.testing.report import Entry, Report, Result

LISTED, OPEN = 300, 5  # failures that are spelled out, and of them those that are open; the JSON has all
UNITS = join(
    "The largest error that was seen of each op in each dtype, those nearest to their limit first; click on a title to "
    "sort. ", tag("code", "ulp"), ": units in the last place; ", tag("code", "terms"), ": roundings of a sum of so "
    "many terms, relative to the sum of their magnitudes; ", tag("code", "norm"), ": roundings of the largest value.",
)  # fmt: skip


def failures(report: Report) -> Markup:
    """Each failure with what was expected, what came, and the line that runs it again."""
    found = report.failures
    if not found:
        return Markup("")
    items = [
        tag(
            "details",
            tag("summary", tag("i", cls=r.status), r.id),
            tag("pre", r.outcome.detail.strip()),
            tag("p", "again: ", tag("code", report.rerun(r))),
            open="open" if i < OPEN else None,
        )
        for i, r in enumerate(found[:LISTED])
    ]
    more = tag("p", f"and {len(found) - LISTED:,} more, in the JSON") if len(found) > LISTED else ""
    return section(f"{len(found):,} failures", *items, more, kind="failures")


def fallbacks(report: Report) -> Markup:
    """The ops that ran elsewhere: how often, why, and what was copied for them."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for r in report.results:
        if r.status == "fallback":
            groups.setdefault((r.op or r.id, r.outcome.reason), []).append(r)
    if not groups:
        return section("What falls back", tag("p", "Nothing: every op that was tried stays on the device."))
    cost = {key: sum(r.outcome.bytes for r in group) for key, group in groups.items()}
    most = max(1, *cost.values())
    rows = [
        row(
            tag("th", op, scope="row"),
            tag("td", reason, cls="words"),
            number(f"{len(groups[op, reason]):,}", len(groups[op, reason])),
            number(size(cost[op, reason]), cost[op, reason]),
            tag("td", _bar("fallback", cost[op, reason] / most), cls="wide", data_value=cost[op, reason]),
        )
        for op, reason in sorted(groups, key=lambda key: (-cost[key], key))
    ]
    total = size(sum(cost.values()))
    names = len({op for op, _ in groups})
    said = f"Some calls of {names:,} ops or layers ran on another device; {total} were copied for it."
    table = tall_table(titles("op", "why", "#cases", "#copied", ""), rows, "each of them")
    return section("What falls back", tag("p", said), table)


def size(n: float) -> str:
    """Bytes in a unit that people read."""
    for unit in ("B", "KB", "MB"):
        if n < 1000:
            return f"{n:,.0f} B" if unit == "B" else f"{n:,.1f} {unit}"
        n /= 1000
    return f"{n:,.1f} GB"


def _bar(kind: str, share: float) -> Markup:
    return tag("span", cls=f"bar {kind}", style=f"width:{100 * min(share, 1.0):.1f}%")


def certificate(report: Report) -> Markup:
    """The largest error of each op in each dtype: at which inputs, and against which table."""
    entries = sorted(report.certificate(), key=lambda e: (-e.share, e.op, e.dtype))
    if not entries:
        return Markup("")
    head = titles("op", "dtype", "#error", "#allowed", "unit", "share", "#ulp", "at the bits", "table", "case")
    table = tall_table(head, [_entry(e) for e in entries], f"{len(entries):,} entries")
    return section("Accuracy certificate", tag("p", UNITS), table)


def _entry(e: Entry) -> Markup:
    return row(
        tag("th", e.op, scope="row"),
        tag("td", e.dtype),
        number(f"{e.error:.4g}", e.error),
        number(f"{e.allowed:.4g}", e.allowed),
        tag("td", e.unit),
        tag("td", _bar("wrong" if e.error > e.allowed else "native", e.share), cls="wide", data_value=f"{e.share:.4f}"),
        number(f"{e.ulps:.4g}", e.ulps),
        tag("td", *(join(tag("code", b), " ") for b in e.bits)),
        tag("td", e.source, cls="words"),
        tag("td", tag("small", e.case)),
    )


def facts(report: Report) -> Markup:
    """What the backend declares, what it says of itself, and the versions of everything."""
    groups = {
        "declares": {k: v for k, v in report.facts.items() if k != "describe"},
        "says of itself": report.facts.get("describe", {}),
        "versions": report.versions,
    }
    lists = (
        tag("div", tag("h3", title), tag("dl", *(join(tag("dt", k), tag("dd", _value(v))) for k, v in found.items())))
        for title, found in groups.items()
        if found
    )
    return section("The device", tag("div", *lists, cls="facts"))


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "not known" if value is None else str(value)
