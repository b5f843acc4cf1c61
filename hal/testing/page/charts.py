"""Pictures of the page: the strip of outcomes, and histograms of errors as SVG."""

from __future__ import annotations

import math

from hal.testing.accuracy import BINS
from hal.testing.case import STATUSES
from hal.testing.page.markup import Markup, number, row, section, tag, titles
from hal.testing.report import Entry, Report, count

MEANINGS = {
    "native": "right, by the device's own kernel",
    "decomposed": "right, in simpler ops on the device",
    "fallback": "right, on another device, with copies",
    "declined": "the device says that it does not do this",
    "wrong": "a wrong answer, or a promise broken",
    "crash": "an exception, or a process that died",
    "not run": "left out, because something before it failed",
}
SHOWN = (*STATUSES, "not run")
DTYPES = ("float32", "float64", "float16", "bfloat16")
WIDTH, HEIGHT, BAR, GAP, LEFT, TOP, BOTTOM = 344, 190, 26, 6, 46, 14, 34
BASE = HEIGHT - BOTTOM
DIGITS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
EXPLAINED = (
    "All elements of all results, by their distance from the float64 reference in units in the last place. "
    "The scale is logarithmic."
)


def style_name(status: str) -> str:
    """The class of an outcome."""
    return status.replace(" ", "-")


def strip(counts: dict[str, int], kind: str = "") -> Markup:
    """A bar whose parts are as long as the outcomes are many; no part is too short to be seen."""
    there = {s: counts[s] for s in SHOWN if counts.get(s)}
    parts = (tag("span", cls=style_name(s), style=f"flex-grow:{n}", title=f"{n:,} {s}") for s, n in there.items())
    label = ", ".join(f"{n:,} {s}" for s, n in there.items())
    return tag("div", *parts, cls=f"strip {kind}".strip(), role="img", aria_label=label)


def legend(counts: dict[str, int]) -> Markup:
    """What the colours mean, and how many there are of each."""
    shown = [s for s in SHOWN if counts.get(s) or s in ("native", "wrong", "crash")]
    items = (
        tag("li", tag("i", cls=style_name(s)), tag("b", f"{counts.get(s, 0):,}"), f" {s}", title=MEANINGS[s])
        for s in shown
    )
    return tag("ul", *items, cls="legend")


def levels_table(report: Report) -> Markup:
    """A row for each level: what it is about, its strip, and how long it took."""
    by_level = report.by_level()
    left_out = {n.level: n for n in report.not_run}
    rows = []
    for name in dict.fromkeys([*report.levels, *by_level, *left_out]):
        results, missing = by_level.get(name, []), left_out.get(name)
        counts = count(results) | {"not run": missing.count if missing else 0}
        total = sum(counts.values())
        why = tag("em", f" {missing.count:,} not run: {missing.reason}") if missing else ""
        if total:
            rows.append(
                row(
                    tag("th", name, scope="row"),
                    tag("td", report.levels.get(name, ""), why, cls="words"),
                    tag("td", strip(counts), cls="wide"),
                    number(f"{total:,}"),
                    number(f"{sum(r.seconds for r in results):.1f} s"),
                )
            )
    return tag("table", titles("level", "about", "", "#cases", "#time"), tag("tbody", *rows), cls="levels")


def histograms(report: Report) -> Markup:
    """A histogram for each floating dtype that the certificate has."""
    entries = [e for e in report.certificate() if len(e.histogram) == len(BINS) + 1]
    by_dtype = {dtype: [e for e in entries if e.dtype == dtype] for dtype in DTYPES}
    figures = [_histogram(dtype, found) for dtype, found in by_dtype.items() if found]
    if not figures:
        return Markup("")
    key = tag(
        "ul",
        tag("li", tag("i", cls="functions"), "functions and moves, held to units in the last place"),
        tag("li", tag("i", cls="sums"), "sums and compositions, held to other units: cancellation costs digits"),
        cls="legend",
    )
    return section("Where the errors lie", tag("p", EXPLAINED), tag("div", *figures, cls="histograms"), key)


def _total(entries: list[Entry]) -> list[int]:
    return [sum(column) for column in zip(*(e.histogram for e in entries), strict=True)] or [0] * (len(BINS) + 1)


def _histogram(dtype: str, entries: list[Entry]) -> Markup:
    functions = _total([e for e in entries if e.unit == "ulp"])
    sums = _total([e for e in entries if e.unit != "ulp"])
    both = [a + b for a, b in zip(functions, sums, strict=True)]
    decades = max(1, math.ceil(math.log10(max(both) + 1)))

    def height(n: float) -> float:
        return (BASE - TOP) * math.log10(n + 1) / decades

    parts = []
    for d in range(0, decades + 1, 1 if decades < 6 else 2):
        y = BASE - height(10**d - 1)
        parts.append(tag("line", x1=LEFT, x2=WIDTH, y1=f"{y:.1f}", y2=f"{y:.1f}"))
        parts.append(_label(_power(d), LEFT - 6, y + 4, "end"))
    for i, (a, n) in enumerate(zip(functions, both, strict=True)):
        x, most = LEFT + 8 + i * (BAR + GAP), f"up to {BINS[i]:g}" if i < len(BINS) else f"more than {BINS[-1]:g}"
        told = f"{most} ulp: {a:,} of functions, {n - a:,} of sums and compositions"
        parts.append(
            tag(
                "g",
                tag("title", told),
                _bar("sums", x, height(n)),
                _bar("functions", x, height(a)),
                _label(f"{BINS[i]:g}" if i < len(BINS) else "more", x + BAR / 2, BASE + 15, "middle"),
            )
        )
    caption = f"{both[0] / max(1, sum(both)):.2%} of {sum(both):,} elements are the nearest number there is"
    below = _label(f"at most so many units in the last place ({len(entries)} ops)", LEFT, HEIGHT - 4, "start")
    drawn = tag("svg", *parts, below, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{dtype}: {caption}")
    return tag("figure", tag("figcaption", tag("b", dtype), " ", caption), drawn)


def _bar(kind: str, x: float, height: float) -> Markup:
    return tag("rect", cls=kind, x=x, y=f"{BASE - height:.1f}", width=BAR, height=f"{height:.1f}", rx=2)


def _label(words: str, x: float, y: float, anchor: str) -> Markup:
    return tag("text", words, cls="tick", x=f"{x:g}", y=f"{y:.1f}", text_anchor=anchor)


def _power(exponent: int) -> str:
    if exponent < 4:
        return ("0", "10", "100", "1,000")[exponent]
    return "10" + "".join(DIGITS[int(c)] for c in str(exponent))
