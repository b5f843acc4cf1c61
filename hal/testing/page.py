"""A report of the conformance suite as one HTML page, which needs no network and nothing beside it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from typing import Any, get_args

from hal import dtypes, ops
from hal.op import Kind
from hal.testing.accuracy import BINS
from hal.testing.case import STATUSES
from hal.testing.report import Entry, Report, Result, count

GRADIENTS = ("gradients", "curvature")  # levels whose cases are about gradients and not about values
MARKS = {"native": "●", "decomposed": "◐", "fallback": "○", "declined": "–", "wrong": "✕", "crash": "✹"}  # noqa: RUF001  # a dash is meant
MEANING = {
    "native": "a kernel of the device",
    "decomposed": "in simpler ops, on the device",
    "fallback": "on another device, and copied back",
    "declined": "the device says that it does not do this",
    "wrong": "a wrong answer, or a promise broken",
    "crash": "an exception, or the end of the process",
    "not run": "left out because of a failure before it",
}
# How a cell looks is decided by its worst case. That some calls are declined says less of it than how the others ran.
WORST_FIRST = ("crash", "wrong", "fallback", "decomposed", "native", "declined")
ADDED = "added"  # the kind of an op that is not in this table: a plugin brought it to the run
KINDS = (*get_args(Kind), ADDED)
TOLD = 8  # failures of one op that are told whole; the others are named
HEIGHT, WIDTH = 120, 34  # of the bars of a histogram, in pixels


def page(report: Report) -> str:
    """The report as a page: what failed first, then a matrix of ops and dtypes, errors, what falls back, and all facts.

    What the page says is in its HTML; the script in it only sorts, filters and shows what is under the pointer.
    """
    css, script = (files("hal.testing").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    title = f"{report.device} {'conforms' if report.passed else 'does not conform'}"
    worst = {(e.op, e.dtype): e for e in report.certificate()}
    sections = [
        _heading(report), _failures(report), _left_out(report), _matrix(report, worst), _levels(report),
        _histograms(worst.values()), _fallbacks(report), _certificate(report, worst.values()), _facts(report),
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(title)}: hal conformance</title>\n<style>\n{css}</style>\n"
        f"</head>\n<body>\n<main>\n{''.join(sections)}</main>\n"
        f'<div id="tip" role="status" hidden></div>\n<script>\n{script}</script>\n</body>\n</html>\n'
    )


def _text(value: object) -> str:
    return escape(str(value), quote=True)


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "∞"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _used(error: float, allowed: float) -> float:
    """Which share of the allowed error was used; infinite where none is allowed and there is some."""
    if not math.isfinite(error):
        return math.inf
    return error / allowed if allowed else (math.inf if error else 0.0)


def _section(name: str, title: str, body: str, lead: str = "") -> str:
    lead = f'<p class="lead">{lead}</p>\n' if lead else ""
    return f'<section id="{name}">\n<h2>{title}</h2>\n{lead}{body}</section>\n'


def _table(titles: Iterable[str], rows: Iterable[str], kind: str = "", name: str = "") -> str:
    """A table whose columns sort when their titles are clicked. A title that starts with `#` is one of numbers."""
    heads = "".join(
        f'<th scope="col"{" class=number" if t.startswith("#") else ""}><button type="button">{_text(t.lstrip("#"))}'
        "</button></th>"
        for t in titles
    )
    identity = f' id="{name}"' if name else ""
    return (
        f'<div class="scroll {kind}"><table{identity} class="sorts">\n<thead><tr>{heads}</tr></thead>\n<tbody>\n'
        + "".join(f"{row}\n" for row in rows)
        + "</tbody>\n</table></div>\n"
    )


def _cell(shown: str, value: float | None = None) -> str:
    """A cell of text (already escaped), or of a number that sorts by `value`."""
    if value is None:
        return f"<td>{shown}</td>"
    return f'<td class="number" data-v="{value if math.isfinite(value) else "1e999"}">{shown}</td>'


def _bar(counts: Mapping[str, int]) -> str:
    """A line in the colours of the outcomes, as long as there are cases of each."""
    total = sum(counts.values()) or 1
    parts = "".join(
        f'<i class="{s.replace(" ", "-")}" style="width:{100 * n / total:.3f}%" title="{n:,} {s}"></i>'
        for s, n in counts.items()
        if n
    )
    return f'<span class="bar">{parts}</span>'


def _line(report: Report, result: Result) -> str:
    """The line that runs a case again, with a button that copies it."""
    line = _text(report.rerun(result))
    return f'<p class="line"><code>{line}</code><button type="button" class="copy">copy</button></p>\n'


def _heading(report: Report) -> str:
    verdict = "conforms" if report.passed else "does not conform"
    chips = "".join(
        f'<li class="{s.replace(" ", "-")}" title="{MEANING[s]}"><b>{n:,}</b> {s}</li>'
        for s, n in report.counts.items()
        if n
    )
    chosen = "; ".join(f"only {k}: {', '.join(v)}" for k, v in report.chosen.items())
    names, seen = {r.op for r in report.results if r.op}, {r.dtype for r in report.results if r.dtype}
    facts = [
        f"{len(report.results):,} cases, {len(names)} ops, {len(seen)} dtypes",
        f"kernels for {report.facts['kernels']}" if "kernels" in report.facts else "",
        f"hal {report.versions['hal']}" if "hal" in report.versions else "",
        report.versions.get("backend", ""), f"{report.seconds:.0f} s",
        report.started.replace("T", " ").replace("+00:00", " UTC"),
    ]  # fmt: skip
    said = " · ".join(_text(f) for f in facts if f)
    narrowed = f'<p class="chosen">A part of the suite ({_text(chosen)})</p>\n' if chosen else ""
    return (
        f'<header>\n<p class="kicker">hal conformance</p>\n<h1>{_text(report.device)} '
        f'<span class="verdict {"good" if report.passed else "bad"}">{verdict}</span></h1>\n'
        f'{_bar(report.counts)}\n<ul class="chips">{chips}</ul>\n<p class="lead">{said}</p>\n{narrowed}</header>\n'
    )


def _story(report: Report, result: Result) -> str:
    """All that is known of one failure."""
    o = result.outcome
    numbers = f"error {_number(o.error)} {_text(o.unit)}, allowed {_number(o.allowed)}" if o.unit else ""
    if o.bits:
        numbers += f", at {_text(', '.join(o.bits))}"
    source = f" ({_text(o.source)})" if o.source and numbers else ""
    told = f'<p class="numbers">{numbers}{source}</p>\n' if numbers else ""
    detail = f"<pre>{_text(o.detail)}</pre>\n" if o.detail else ""
    mark = f'<span class="mark {o.status}">{o.status}</span>'
    return f"<article>\n<h4>{mark} {_text(result.id)}</h4>\n{told}{detail}{_line(report, result)}</article>\n"


def _failures(report: Report) -> str:
    failures = report.failures
    if not failures:
        return ""
    groups: dict[str, list[Result]] = {}
    for r in failures:
        groups.setdefault(r.op or r.level, []).append(r)
    told = []
    for i, (name, group) in enumerate(sorted(groups.items(), key=lambda g: -len(g[1]))):
        where = ", ".join(dict.fromkeys(r.dtype for r in group if r.dtype))
        counts = ", ".join(f"{n:,} {s}" for s, n in count(group).items() if n)
        more = "".join(f"<li><code>{_text(r.id)}</code></li>" for r in group[TOLD:])
        more = f"<details><summary>{len(group) - TOLD:,} more</summary><ul>{more}</ul></details>\n" if more else ""
        told.append(
            f"<details{' open' if i < 3 else ''}><summary><b>{_text(name)}</b> {counts}"
            f'<span class="quiet"> {_text(where)}</span></summary>\n'
            f"{''.join(_story(report, r) for r in group[:TOLD])}{more}</details>\n"
        )
    lead = f"{len(failures):,} cases, by what they are about."
    return _section("failures", "What failed", "".join(told), lead)


def _left_out(report: Report) -> str:
    known = [r for r in report.results if r.known]
    items = [f"<li><b>{n.count:,}</b> of {_text(n.level)} not run: {_text(n.reason)}</li>" for n in report.not_run]
    items += [
        f"<li><details><summary><code>{_text(r.id)}</code> is a known failure: {_text(r.known)}</summary>"
        f"<pre>{_text(r.outcome.detail)}</pre></details></li>"
        for r in known
    ]
    return _section("left-out", "Not run, or excused", f"<ul>{''.join(items)}</ul>\n") if items else ""


def _levels(report: Report) -> str:
    left_out = Counter[str]()
    for n in report.not_run:
        left_out[n.level] += n.count
    by_level = report.by_level()
    shown = [s for s, n in report.counts.items() if n]
    rows = []
    for level in dict.fromkeys([*by_level, *left_out]):
        results = by_level.get(level, [])
        counts = count(results) | {"not run": left_out[level]}
        seconds = sum(r.seconds for r in results)
        rows.append(
            f"<tr><th scope=row>{_text(level)}</th>{_cell(_text(report.levels.get(level, '')))}<td>{_bar(counts)}</td>"
            + "".join(_cell(f"{counts[s]:,}" if counts[s] else "", counts[s]) for s in shown)
            + f"{_cell(f'{seconds:.1f}', seconds)}</tr>"
        )
    body = _table(["level", "about", "", *(f"#{s}" for s in shown), "#s"], rows, "levels")
    return _section("levels", "Levels", body)


def _worst(group: list[Result]) -> Result:
    """The case that decides how a cell looks: the worst outcome, and of those the largest share of what is allowed."""
    return min(
        group, key=lambda r: (WORST_FIRST.index(r.status), -_used(r.outcome.error, r.outcome.allowed), -r.outcome.ulps)
    )


def _square(report: Report, group: list[Result], name: str, entry: Entry | None, what: str = "td") -> str:
    """A coloured cell of the matrix, with all that is behind it as its title."""
    # Cases about memory and the like are native whichever way the op ran: only those with an error say how.
    ways = [r for r in group if r.outcome.unit or r.status not in ("native", "decomposed")] or group
    counts = {s: n for s, n in count(ways).items() if n}
    worst = _worst(ways)
    more = f", {len(group) - len(ways)} more about other things" if len(ways) < len(group) else ""
    lines = [f"{name}: {', '.join(f'{n} {s}' for s, n in counts.items())}{more}"]
    nearest = max(ways, key=lambda r: _used(r.outcome.error, r.outcome.allowed))
    o = worst.outcome if worst.outcome.failed else nearest.outcome
    used = _used(o.error, o.allowed)
    if o.unit:
        at = f" at {', '.join(o.bits)}" if o.bits and (o.error or o.failed) else ""
        lines.append(f"worst error {_number(o.error)} {o.unit}, allowed {_number(o.allowed)}{at}")
    if entry is not None and entry.ulps:
        lines.append(f"largest {_number(entry.ulps)} ulp")
    if worst.outcome.reason:
        lines.append(worst.outcome.reason)
    if worst.outcome.detail and worst.status in ("wrong", "crash", "declined"):
        lines.append(worst.outcome.detail.splitlines()[0])
    again = worst if worst.outcome.failed or worst.outcome.reason else nearest
    lines.append(report.rerun(again))
    share = "" if not o.unit else f"{100 * used:.0f}" if math.isfinite(used) else "∞"
    mixed = [s for s in ("native", "decomposed", "fallback") if s in counts and s != worst.status]
    style = f' style="--other:var(--{mixed[0]})"' if mixed and not worst.outcome.failed else ""
    marked = f"<b>{MARKS[worst.status]}</b><u>{share}</u>"
    kind = f"{worst.status}{' mixed' if style else ''}"
    order = STATUSES.index(worst.status) + min(used, 1e6) / 1e7
    return (
        f'<{what} class="square {kind}"{style} data-s="{" ".join(counts)}" data-v="{order:.7f}" tabindex="0" '
        f'title="{_text(chr(10).join(lines))}">{marked}</{what}>'
    )


def _matrix(report: Report, worst: Mapping[tuple[str, str], Entry]) -> str:
    cells: dict[str, dict[str, list[Result]]] = {}
    gradients: dict[str, dict[str, list[Result]]] = {}
    for r in report.results:
        if r.op:
            slopes = r.level in GRADIENTS or r.outcome.unit == "gradient"
            (gradients if slopes else cells).setdefault(r.op, {}).setdefault(r.dtype, []).append(r)
    names = cells.keys() | gradients.keys()
    if not names:
        return ""
    found = {d for row in cells.values() for d in row}
    own = [d.name for d in dtypes.ALL]
    columns = [d for d in own if d in found] + sorted(found.difference(own, [""]))
    other = "" in found  # cases about an op in no dtype alone
    rows = []
    for op in sorted(names, key=lambda name: (KINDS.index(_kind(name)), name)):
        row, slopes_of = cells.get(op, {}), gradients.get(op, {})
        squares = "".join(
            _square(report, row[d], f"{op} {d or 'in no dtype alone'}", worst.get((op, d))) if d in row else "<td></td>"
            for d in [*columns, *([""] if other else [])]
        )
        small = "".join(
            _square(report, slopes_of[d], f"gradient of {op} {d}".rstrip(), None, "span")
            for d in sorted(slopes_of, key=lambda d: own.index(d) if d in own else len(own))
        )
        order = max((STATUSES.index(_worst(g).status) for g in slopes_of.values()), default="")
        rows.append(
            f'<tr data-kind="{_kind(op)}" data-op="{_text(op)}"><th scope="row">{_text(op)}</th>'
            f'<td class="kind">{_kind(op)}</td>{squares}<td class="slopes" data-v="{order}">{small}</td></tr>'
        )
    kinds = "".join(f"<option>{k}</option>" for k in KINDS if k in {_kind(op) for op in names})
    seen = [s for s in STATUSES if any(r.status == s for r in report.results if r.op)]
    legend = "".join(
        f'<label class="key {s}" title="{MEANING[s]}"><input type="checkbox" value="{s}">'
        f'<span class="square {s}"><b>{MARKS[s]}</b></span>{s}</label>'
        for s in seen
    )
    controls = (
        '<form class="controls" id="filter" onsubmit="return false">'
        '<input type="search" name="op" placeholder="filter ops" aria-label="filter ops">'
        f'<select name="kind" aria-label="kind of op"><option value="">all kinds</option>{kinds}</select>{legend}'
        '<label class="key"><input type="checkbox" name="shares">errors in % of allowed</label>'
        '<output name="shown"></output></form>\n'
    )
    lead = (
        f"{len(names)} ops. A square in two colours ran in two ways, depending on the call. The smaller squares are "
        "the gradients in each floating dtype. Point at a square for its worst error and the line that shows it again."
    )
    titles = ["op", "kind", *columns, *(["other"] if other else []), "gradients"]
    return _section("matrix", "Ops and dtypes", controls + _table(titles, rows, "matrix", "ops"), lead)


def _kind(op: str) -> str:
    return ops.TABLE[op].kind if op in ops.TABLE else ADDED


def _histograms(entries: Iterable[Entry]) -> str:
    by_dtype: dict[str, list[int]] = {}
    for e in entries:
        if e.histogram and e.dtype.startswith(("float", "bfloat", "complex")):
            total = by_dtype.setdefault(e.dtype, [0] * len(e.histogram))
            by_dtype[e.dtype] = [a + b for a, b in zip(total, e.histogram, strict=True)]
    order = [d.name for d in dtypes.ALL]
    charts = [_chart(d, by_dtype[d]) for d in sorted(by_dtype, key=lambda d: order.index(d) if d in order else 99)]
    if not charts:
        return ""
    lead = (
        "How many elements of all results are off by how many units in the last place (ulp). The heights are "
        "logarithmic. A result of many terms may be off by many ulp where they cancel; what is allowed is in the "
        "certificate."
    )
    return _section("errors", "Sizes of the errors", f'<div class="charts">{"".join(charts)}</div>\n', lead)


def _chart(dtype: str, counts: list[int]) -> str:
    ends = ["½" if b == 0.5 else f"{b:g}" for b in BINS]
    names = [f"≤ {ends[0]}", *ends[1:], f"> {ends[-1]}"]
    total, top = sum(counts), math.log10(1 + max(counts)) or 1.0
    bars = []
    for i, (name, n) in enumerate(zip(names, counts, strict=True)):
        height = HEIGHT * math.log10(1 + n) / top
        middle, y = i * WIDTH + WIDTH / 2, 18 + HEIGHT - height
        share = 100 * n / total if total else 0
        said = "" if not n else "<.01%" if share < 0.01 else f"{share:.3g}%"
        bars.append(
            f'<g><title>{n:,} elements: {_text(name)} ulp</title><rect x="{i * WIDTH + 3}" y="{y:.1f}" '
            f'width="{WIDTH - 6}" height="{height:.1f}" rx="2"/><text x="{middle}" y="{y - 4:.1f}">{_text(said)}</text>'
            f'<text class="end" x="{middle}" y="{HEIGHT + 32}">{_text(name)}</text></g>'
        )
    wide = WIDTH * len(names)
    return (
        f'<figure><figcaption><b>{_text(dtype)}</b> <span class="quiet">{total:,} elements</span></figcaption>'
        f'<svg viewBox="0 0 {wide} {HEIGHT + 38}" role="img" aria-label="errors in {_text(dtype)}, in ulp">'
        f'<line x1="0" x2="{wide}" y1="{HEIGHT + 18}" y2="{HEIGHT + 18}"/>{"".join(bars)}</svg></figure>\n'
    )


def _fallbacks(report: Report) -> str:
    fallen: dict[str, list[Result]] = {}
    totals = Counter(r.op for r in report.results)
    for r in report.results:
        if r.status == "fallback":
            fallen.setdefault(r.op or r.level, []).append(r)
    if not fallen:
        return _section("fallbacks", "What falls back", "<p>Nothing: every case ran on the device.</p>\n")
    rows = []
    for op, group in sorted(fallen.items(), key=lambda f: -sum(r.outcome.bytes for r in f[1])):
        reasons = Counter(r.outcome.reason for r in group if r.outcome.reason).most_common()
        more = f' <span class="quiet">and {len(reasons) - 1} other reasons</span>' if len(reasons) > 1 else ""
        moved, most = sum(r.outcome.bytes for r in group), max(r.outcome.bytes for r in group)
        own = [d for d in dict.fromkeys(r.dtype for r in group) if d]
        said = ", ".join(own) if len(own) < 6 else f"{len(own)} dtypes"
        of = max(totals[op], len(group))
        rows.append(
            f"<tr><th scope=row>{_text(op)}</th>{_cell(f'{len(group):,} of {of:,}', len(group))}"
            f"{_cell(_bytes(moved), moved)}{_cell(_bytes(most), most)}"
            f"{_cell(_text(said))}{_cell(_text(reasons[0][0] if reasons else '') + more)}</tr>"
        )
    moved = sum(r.outcome.bytes for group in fallen.values() for r in group)
    cases = sum(len(group) for group in fallen.values())
    lead = f"{cases:,} cases of {len(fallen)} ops ran elsewhere, and moved {_bytes(moved)} to another device and back."
    body = _table(["op", "#cases", "#moved", "#most in a case", "dtypes", "why"], rows, "tall")
    return _section("fallbacks", "What falls back", body, lead)


def _certificate(report: Report, entries: Iterable[Entry]) -> str:
    by_id = {r.id: r for r in report.results}
    rows = []
    for e in sorted(entries, key=lambda e: -_used(e.error, e.allowed)):
        used = _used(e.error, e.allowed)
        share = f'<meter max="1" low="0.8" high="1" value="{min(used, 1):.4f}"></meter>' if e.allowed else ""
        over = ' class="over"' if e.error > e.allowed else ""
        at = f"<code>{_text(', '.join(e.bits))}</code>" if e.bits else ""
        again = _text(report.rerun(by_id[e.case]))
        rows.append(
            f'<tr{over} title="{again}"><th scope=row>{_text(e.op)}</th>{_cell(_text(e.dtype))}'
            f"{_cell(_number(e.error), e.error)}{_cell(_number(e.allowed), e.allowed)}{_cell(share, used)}"
            f"{_cell(_text(e.unit))}{_cell(_number(e.ulps), e.ulps)}"
            f"{_cell(at)}{_cell(f'{e.cases:,}', e.cases)}{_cell(_text(e.source))}</tr>"
        )
    if not rows:
        return ""
    lead = (
        "The largest error of each op in each dtype against the table that limits it, nearest to its limit first. "
        "Errors are in ulp; for sums in <i>terms</i> (roundings of the sum of the terms' sizes), for what is scaled "
        "as a whole in <i>norm</i> (roundings of the largest element)."
    )
    titles = ["op", "dtype", "#error", "#allowed", "#share", "unit", "#ulp", "at inputs", "#cases", "table"]
    search = (
        '<form class="controls" onsubmit="return false"><input type="search" data-filters="limits" '
        'placeholder="filter lines" aria-label="filter lines"></form>\n'
    )
    return _section("certificate", "Accuracy certificate", search + _table(titles, rows, "tall", "limits"), lead)


def _facts(report: Report) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{k}: {v}" for k, v in value.items())
        if isinstance(value, list):
            return ", ".join(str(v) for v in value)
        return {True: "yes", False: "no", None: "unknown"}.get(value, str(value))

    facts = {k.replace("_", " "): shown(v) for k, v in report.facts.items()}
    lines = [("the device", {k: v for k, v in facts.items() if v}), ("versions", report.versions)]
    body = "".join(
        f"<div><h3>{title}</h3><dl>"
        + "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>" for k, v in known.items())
        + "</dl></div>\n"
        for title, known in lines
        if known
    )
    return _section("facts", "Device and versions", f'<div class="facts">{body}</div>\n')
