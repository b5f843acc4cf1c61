"""A plan as one HTML page, which needs no network and nothing beside it: its timeline, its graph, and every step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from importlib.resources import files

from hal.schedule.report import PlanReport, Row, duration, size

MEANING = {
    "native": "a kernel of the device",
    "fused": "several ops in one",
    "decomposed": "in simpler ops",
    "fallback": "on another device, and back",
    "copy": "to another device",
    "evict": "makes room on a full device",
    "barrier": "computed again to save memory",
}
WIDTH, LEFT, LANE = 900, 150, 26  # pixels: of the timeline, of its names, of each queue
BOX, GAP, LEVEL = 92, 10, 46  # of the graph's nodes and levels
MOST_DRAWN = 600  # nodes of a graph that a picture can show


def page(report: PlanReport) -> str:
    """The report as a page. What it says is in its HTML; the script shows what belongs together."""
    shared = [files("hal.testing").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js")]
    own = [files("hal.schedule").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js")]
    sections = [_heading(report), _timeline(report), _graph(report), _steps(report)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{duration(report.seconds)} on {_text(report.machine)}: hal plan</title>\n"
        f"<style>\n{shared[0]}{own[0]}</style>\n</head>\n<body>\n<main>\n{''.join(sections)}</main>\n"
        f'<div id="tip" role="status" hidden></div>\n<script>\n{shared[1]}</script>\n<script>\n{own[1]}</script>\n'
        "</body>\n</html>\n"
    )


def _text(value: object) -> str:
    return escape(str(value), quote=True)


def _heading(report: PlanReport) -> str:
    kinds = {how: sum(r.how == how for r in report.rows) for how in MEANING}
    chips = "".join(
        f'<li class="how-{how}"><b>{n:,}</b> {how} <span class="quiet">{MEANING[how]}</span></li>'
        for how, n in kinds.items()
        if n
    )
    moved = sum(report.moved.values())
    numbers = [
        (duration(report.seconds), "predicted for one call"),
        (report.bottleneck or "nothing", "is the busiest"),
        (size(moved), f"move between devices in {sum(r.moved > 0 for r in report.rows)} copies"),
        *(
            (size(n), f"at most on {name}" + (f", of {size(report.memory[name])}" if name in report.memory else ""))
            for name, n in report.peak.items()
        ),
    ]
    told = "".join(f"<div><b>{_text(n)}</b>{_text(what)}</div>" for n, what in numbers)
    notes = "".join(f'<p class="lead">{_text(note)}</p>' for note in report.notes)
    return (
        f'<header>\n<p class="kicker">hal plan</p>\n<h1>{len(report.rows):,} steps on {_text(report.machine)}</h1>\n'
        f'<div class="numbers-row">{told}</div>\n<ul class="chips">{chips}</ul>\n{notes}</header>\n'
    )


def _says(row: Row) -> str:
    lines = [f"{row.index}  {row.op} on {row.queue}", f"{duration(row.start)} + {duration(row.seconds)}", row.why]
    if row.members:
        lines.append(", ".join(row.members))
    lines += [f"on {n}: {_instead(row, n)}" for n in row.alternatives]
    return "\n".join([*lines, f"{', '.join(row.inputs)} → {', '.join(row.outputs)}", row.line])


def _instead(row: Row, name: str) -> str:
    other = row.alternatives[name]
    if not math.isfinite(other.seconds):
        return "cannot"
    return duration(other.seconds) + (f" + {duration(other.copies)} of copies" if other.copies else "")


def _timeline(report: PlanReport) -> str:
    queues = list(dict.fromkeys([*report.busy, *(r.queue for r in report.rows)]))
    queues = [q for q in queues if report.busy.get(q)]
    whole = report.seconds or 1.0
    height = LANE * len(queues) + 30
    lanes = []
    for y, queue in enumerate(queues):
        share = report.busy[queue] / whole
        lanes.append(
            f'<rect class="lane" data-x="0" data-w="{WIDTH}" x="{LEFT}" y="{LANE * y + 2}" width="{WIDTH}" '
            f'height="{LANE - 4}"/>'
            f'<text x="6" y="{LANE * y + 17}">{_text(_short(queue))} <tspan class="quiet">{share:.0%}</tspan></text>'
        )
    marks = []
    for row in report.rows:
        if row.queue not in queues:
            continue
        x, w, y = WIDTH * row.start / whole, WIDTH * row.seconds / whole, LANE * queues.index(row.queue)
        marks.append(
            f'<rect class="step how-{row.how}" data-step="{row.index}" data-says="{_text(_says(row))}" '
            f'data-x="{x:.3f}" data-w="{w:.3f}" x="{LEFT + x:.3f}" y="{y + 3}" width="{max(w, 1):.3f}" '
            f'height="{LANE - 6}"/>'
        )
        if w > 2:
            marks.append(
                f'<text class="on" data-x="{x + 4:.3f}" data-room="{w:.3f}" x="{LEFT + x + 4:.3f}" y="{y + 17}"'
                f"{'' if w > 7 * len(row.op) else ' style=display:none'}>{_text(row.op)}</text>"
            )
    ticks = "".join(
        f'<text class="scale" data-x="{WIDTH * i / 8:.1f}" x="{LEFT + WIDTH * i / 8:.1f}" y="{height - 8}">'
        f"{duration(whole * i / 8)}</text>"
        for i in range(9)
    )
    body = (
        '<div class="zoom"><label for="zoom">zoom</label>'
        '<input id="zoom" type="range" min="0" max="6" step="0.1" value="0"></div>\n'
        f'<div class="plan"><svg data-left="{LEFT}" data-w="{WIDTH}" width="{LEFT + WIDTH + 60}" height="{height}" '
        f'role="img" aria-label="timeline">{"".join(lanes)}{"".join(marks)}{ticks}</svg></div>\n'
    )
    lead = "A row for each device and each link; what a step waits for stays bright. Times are predicted."
    return _section("timeline", "Timeline", body, lead)


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"


def _graph(report: PlanReport) -> str:
    if len(report.rows) > MOST_DRAWN:
        return _section("graph", "Graph", f"<p>{len(report.rows):,} nodes are too many to draw; see the table.</p>\n")
    depth: list[int] = []
    for row in report.rows:
        depth.append(1 + max((depth[i] for i in row.after), default=-1))
    devices = list(dict.fromkeys(row.device for row in report.rows))
    levels: dict[tuple[int, str], list[int]] = {}
    for row in report.rows:
        levels.setdefault((depth[row.index], row.device), []).append(row.index)
    wide = {d: max([len(v) for (_, name), v in levels.items() if name == d] or [1]) for d in devices}
    left, at = {}, GAP
    for d in devices:
        left[d] = at
        at += wide[d] * (BOX + GAP) + 2 * GAP
    spot: dict[int, tuple[int, int]] = {}
    for (level, d), members in levels.items():
        indent = (wide[d] - len(members)) * (BOX + GAP) // 2
        for i, index in enumerate(members):
            spot[index] = left[d] + indent + i * (BOX + GAP), 30 + level * LEVEL
    edges = []
    for row in report.rows:
        x, y = spot[row.index]
        for i in row.after:
            a, b = spot[i]
            crossing = ' class="crossing"' if report.rows[i].device != row.device else ""
            middle = (b + 24 + y) / 2
            edges.append(
                f'<path{crossing} d="M{a + BOX / 2:.0f} {b + 24}C{a + BOX / 2:.0f} {middle:.0f} {x + BOX / 2:.0f} '
                f'{middle:.0f} {x + BOX / 2:.0f} {y}"/>'
            )
    boxes = "".join(
        f'<rect class="step how-{row.how}" data-step="{row.index}" data-says="{_text(_says(row))}" x="{x}" y="{y}" '
        f'width="{BOX}" height="24"/><text class="on" x="{x + 6}" y="{y + 16}">{_text(row.op[:13])}</text>'
        for row in report.rows
        for x, y in [spot[row.index]]
    )
    names = "".join(f'<text x="{left[d]}" y="18">{_text(d)}</text>' for d in devices)
    height = 30 + (max(depth, default=0) + 1) * LEVEL
    picture = f'<svg width="{at}" height="{height}" role="img" aria-label="graph">{names}{"".join(edges)}{boxes}</svg>'
    lead = "From top to bottom, a column for each device; what crosses from one to another is a copy."
    return _section("graph", "Graph", f'<div class="plan">{picture}</div>\n', lead)


def _steps(report: PlanReport) -> str:
    titles = ["#step", "op", "device", "how", "#starts", "#takes", "instead", "why", "buffer", "line"]
    search = (
        '<form class="controls" onsubmit="return false"><input type="search" data-filters="steps" '
        'placeholder="filter lines" aria-label="filter lines"></form>\n'
    )
    rows = []
    for row in report.rows:
        instead = "<br>".join(f"{_text(n)}: {_text(_instead(row, n))}" for n in row.alternatives)
        members = f'<br><span class="quiet">{_text(", ".join(row.members))}</span>' if row.members else ""
        rows.append(
            f'<tr data-step="{row.index}" data-after="{" ".join(map(str, row.after))}">'
            f"{_cell(str(row.index), row.index)}<th scope=row>{_text(row.op)}{members}</th>"
            f"{_cell(_text(row.queue))}{_cell(row.how)}{_cell(duration(row.start), row.start)}"
            f"{_cell(duration(row.seconds), row.seconds)}{_cell(instead)}{_cell(_text(row.why))}"
            f"{_cell(_text(row.buffer))}{_cell(_text(row.line))}</tr>"
        )
    return _section("all", "Every step", search + _table(titles, rows))


def _section(name: str, title: str, body: str, lead: str = "") -> str:
    lead = f'<p class="lead">{lead}</p>\n' if lead else ""
    return f'<section id="{name}">\n<h2>{title}</h2>\n{lead}{body}</section>\n'


def _table(titles: Iterable[str], rows: Iterable[str]) -> str:
    heads = "".join(
        f'<th scope="col"{" class=number" if t.startswith("#") else ""}><button type="button">{_text(t.lstrip("#"))}'
        "</button></th>"
        for t in titles
    )
    body = "\n".join(rows)
    return (
        f'<div class="scroll tall"><table id="steps" class="sorts">\n<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>\n"
    )


def _cell(shown: str, value: float | None = None) -> str:
    if value is None:
        return f"<td>{shown}</td>"
    return f'<td class="number" data-v="{value}">{shown}</td>'
