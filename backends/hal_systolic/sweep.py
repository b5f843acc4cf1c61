"""Sweeps: the same work on many machines that differ in a few fields, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import cycle, product
from math import log10
from typing import Any

from hal.plugin import ConfigError
from hal_systolic.config import Machine
from hal_systolic.simulation import simulate
from hal_systolic.work import Work

# What a point is measured by: its key, its title, what it is multiplied by, and whether its axis has decades.
MEASURES = (
    ("seconds", "time, ms", 1e3, True),
    ("utilization_pct", "utilization, %", 1.0, False),
    ("joules", "energy, mJ", 1e3, True),
    ("dram_bytes", "device memory, MB", 1e-6, True),
)
COLORS = ("#3a6ea5", "#d1495b", "#2a9d5c", "#edae49", "#8f5bb0", "#7a4419", "#5d9bd3", "#777777")


@dataclass(frozen=True)
class Point:
    """One machine of a sweep.

    Attributes:
        values: of the fields that are swept.
        measures: cycles and the `MEASURES`; empty where it cannot work.
        refusal: why it cannot work, or cannot do the work.
    """

    values: Mapping[str, Any]
    measures: Mapping[str, float]
    refusal: str = ""


def sweep(work: Sequence[Work], machine: Machine, fields: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
    """Simulate `work` on `machine` with each combination of the values of `fields`; an array of new rows is square."""
    for combination in product(*fields.values()):
        values = dict(zip(fields, combination, strict=True))
        square = {"cols": values["rows"]} if "rows" in values and "cols" not in values else {}
        try:
            simulation = simulate(work, machine.override(**values, **square))
        except ConfigError as refusal:
            yield Point(values, {}, str(refusal))
            continue
        total = simulation.measures(simulation.total)
        memory = simulation.total.bytes_at("dram read") + simulation.total.bytes_at("dram written")
        kept = {name: total[name] for name in ("cycles", "seconds", "utilization_pct", "joules")}
        yield Point(values, {**kept, "dram_bytes": memory, "watts": simulation.watts})


def rows(points: Sequence[Point]) -> list[list[str]]:
    """The table: a line of titles, then one for each point."""
    fields = list(points[0].values) if points else []
    titles = [*fields, "cycles", *(title for _, title, _, _ in MEASURES)]
    return [titles, *(_row(point) for point in points)]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _row(point: Point) -> list[str]:
    values = [_text(value) for value in point.values.values()]
    if point.refusal:
        return [*values, point.refusal, *([""] * len(MEASURES))]
    numbers = (f"{point.measures[name] * scale:.4g}" for name, _, scale, _ in MEASURES)
    return [*values, f"{point.measures['cycles']:,.0f}", *numbers]


# --- the picture ------------------------------------------------------------------------------------------------------

PANEL, HEIGHT, LEFT, BOTTOM, TOP = 540, 300, 64, 36, 28


def page(points: Sequence[Point], title: str) -> str:
    """A page that needs no other file: a panel for each measure over the first field, a line for each other value."""
    style = (files("hal_systolic") / "page.css").read_text(encoding="utf-8")
    panels = [_panel(points, i, *measure) for i, measure in enumerate(MEASURES)]
    width, height = 2 * PANEL, HEIGHT * ((len(panels) + 1) // 2)
    head, *body = rows(points)
    cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in body)
    lines = dict.fromkeys(_line(point) for point in points)
    legend = "".join(
        f"<span><i style='background:{COLORS[i % len(COLORS)]}'></i>{escape(line)}</span>"
        for i, line in enumerate(lines) if line
    )  # fmt: skip
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title>\n"
        f"<style>\n{style}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n<p class='legend'>{legend}</p>\n"
        f"<svg viewBox='0 0 {width} {height}'>{''.join(panels)}</svg>\n"
        f"<table class='layers'><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>{cells}</table>\n"
        "</body></html>\n"
    )


def _line(point: Point) -> str:
    """The values that tell a point's line from others: all but the first."""
    return ", ".join(f"{name} {_text(value)}" for name, value in list(point.values.items())[1:])


def _panel(points: Sequence[Point], place: int, key: str, title: str, scale: float, decades: bool) -> str:
    shown = [point for point in points if point.measures]
    places = {value: i for i, value in enumerate(dict.fromkeys(next(iter(point.values.values())) for point in points))}
    numbers = [point.measures[key] * scale for point in shown] or [1.0]
    decades = decades and min(numbers) > 0
    low, high = (min(numbers) / 1.3, max(numbers) * 1.3) if decades else (0.0, max(max(numbers) * 1.1, 1e-9))
    left, top = place % 2 * PANEL, place // 2 * HEIGHT

    def x(value: Any) -> float:
        return left + LEFT + (PANEL - LEFT - 24) * (places[value] + 0.5) / len(places)

    def y(number: float) -> float:
        share = log10(number / low) / log10(high / low) if decades else (number - low) / (high - low)
        return top + HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share

    field, bottom, right = next(iter(points[0].values)), top + HEIGHT - 16, left + PANEL - 24
    parts = [f"<text x='{left + LEFT}' y='{top + 16}'>{escape(title)}, over {escape(field)}</text>"]
    for value in places:
        parts.append(f"<text x='{x(value):.1f}' y='{bottom}' text-anchor='middle'>{escape(_text(value))}</text>")
    for number in (min(numbers), max(numbers)):
        at = y(number)
        parts.append(
            f"<line class='grid' x1='{left + LEFT}' x2='{right}' y1='{at:.1f}' y2='{at:.1f}'/>"
            f"<text x='{left + LEFT - 6}' y='{at + 4:.1f}' text-anchor='end'>{number:.3g}</text>"
        )
    lines = list(dict.fromkeys(_line(point) for point in points))
    for line, color in zip(lines, cycle(COLORS), strict=False):
        spots = [
            (x(next(iter(p.values.values()))), y(p.measures[key] * scale), p.measures[key] * scale)
            for p in shown if _line(p) == line
        ]  # fmt: skip
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _ in spots)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{color}' stroke-width='2'/>")
        for px, py, number in spots:
            tip = f"<title>{escape(line)} {number:.4g}</title>"
            parts.append(f"<circle cx='{px:.1f}' cy='{py:.1f}' r='4' fill='{color}'>{tip}</circle>")
    return "".join(parts)
