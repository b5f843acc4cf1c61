"""A simulation as a page that needs no other file: numbers, layers, roofline, timeline, and the array at work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from math import log10
from typing import Any

from hal_systolic.counters import COLUMNS, COMPONENTS, Counters
from hal_systolic.simulation import Simulation
from hal_systolic.stream import UNITS
from hal_systolic.text import si, summary

# fmt: off
COLORS = {
    "active": "#2a9d5c", "weight_stall": "#d1495b", "weight_shift": "#edae49", "input_stall": "#8f5bb0",
    "raw_stall": "#c06c84", "accumulator_stall": "#7a4419", "fill_drain": "#5d9bd3", "vector": "#3a6ea5",
    "idle": "#b8b8b8",
}
# fmt: on
WIDTH, LANE, LEFT = 1100, 22, 70  # of pictures, in pixels
MOST_CELLS = 32 * 32  # of an array that is drawn cycle by cycle
MOST_ANIMATED = 60  # products to choose from


def page(s: Simulation, title: str = "") -> str:
    """The page, as HTML."""
    name = title or f"{s.machine.name}: {s.cycles:,.0f} cycles"
    style, script = ((files("hal_systolic") / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    sections = [
        ("Layers", _layers(s)), ("Roofline", _roofline(s)), ("Timeline", _timeline(s)), ("Energy", _energy(s)),
        ("The array, cycle by cycle", _array(s)), ("The machine", _machine(s)),
    ]  # fmt: skip
    body = "\n".join(f"<section><h2>{head}</h2>\n{text}\n</section>" for head, text in sections if text)
    facts = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in summary(s))
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{escape(name)}</title>\n"
        f"<style>\n{style}</style></head>\n<body>\n<h1>{escape(name)}</h1>\n<table class='facts'>{facts}</table>\n"
        f"{body}\n<script>\n{script}</script>\n</body></html>\n"
    )


def _bar(counters: Counters) -> str:
    total = counters.total_cycles
    parts = [
        f"<i style='width:{100 * value / total:.2f}%;background:{COLORS[column]}' "
        f"title='{column}: {value:,.0f} cycles, {100 * value / total:.1f} %'></i>"
        for column, value in counters.cycles.items() if value > 0
    ]  # fmt: skip
    return f"<div class='bar'>{''.join(parts)}</div>"


def _layers(s: Simulation) -> str:
    legend = "".join(
        f"<span title='{escape(what)}'><i style='background:{COLORS[column]}'></i>{column.replace('_', ' ')}</span>"
        for column, what in COLUMNS.items() if s.total.cycles[column] > 0
    )  # fmt: skip
    rows = "".join(_layer(s, name, c) for name, c in [*s.layers.items(), ("total", s.total)] if c.total_cycles)
    return (
        f"<p class='legend'>{legend}</p>\n<table class='layers'><tr><th>layer<th>cycles<th class='wide'>"
        "<th>utilization<th>mapping<th>padding<th>bound<th>device memory<th>products<th>energy</tr>\n"
        f"{rows}</table>"
    )


def _layer(s: Simulation, name: str, counters: Counters) -> str:
    m = s.measures(counters)
    traffic = "&#10;".join(f"{escape(level)}: {si(count, 'B')}" for level, count in m["bytes"].items())
    dram = counters.bytes_at("dram read") + counters.bytes_at("dram written")
    products = f"{m['utilization_pct']:.1f} %<td>{m['mapping_efficiency_pct']:.1f} %<td>{m['padding_pct']:.1f} %"
    products += f"<td>{m['bound']}"
    return (
        f"<tr><td>{escape(name)}<td>{m['cycles']:,.0f}<td>{_bar(counters)}"
        f"<td>{products if counters.macs else '<td><td><td>vector'}"
        f"<td title='{traffic}'>{si(dram, 'B')}<td>{si(m['macs'])}<td>{si(m['joules'], 'J')}</tr>\n"
    )


# The roofline: operations a second over operations a byte of device memory, both in decades.


def _roofline(s: Simulation) -> str:
    peak = 2 * s.machine.peak_macs * s.machine.clock_hz
    bandwidth = s.machine.dram.bytes_per_s
    points = []
    for name, counters in [*s.layers.items(), ("total", s.total)]:
        m = s.measures(counters)
        if counters.macs and m["macs_per_dram_byte"]:
            points.append((name, 2 * m["macs_per_dram_byte"], m["tops"] * 1e12, m["cycles"]))
    if not points:
        return "<p>No product read from device memory: there is nothing to draw.</p>"
    ridge = peak / bandwidth
    low = min([p[1] for p in points] + [ridge]) / 3
    high = max([p[1] for p in points] + [ridge]) * 3
    floor, top = min(p[2] for p in points) / 3, peak * 2
    height = 360

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - 20) * log10(value / low) / log10(high / low)

    def y(value: float) -> float:
        return height - 30 - (height - 45) * log10(value / floor) / log10(top / floor)

    picture = [*_grid(low, high, floor, top, x, y, height)]
    start = max(low, floor / bandwidth)
    picture.append(
        f"<path class='roof' d='M{x(start):.1f} {y(start * bandwidth):.1f} L{x(ridge):.1f} {y(peak):.1f} "
        f"L{x(high):.1f} {y(peak):.1f}'/>"
        f"<text x='{x(ridge):.1f}' y='{y(peak) - 6:.1f}' text-anchor='middle'>{si(peak, 'op/s')}, from "
        f"{ridge:.0f} op/B</text>"
    )
    longest = max(p[3] for p in points)
    for name, intensity, speed, cycles in sorted(points, key=lambda p: -p[3]):
        radius = 3 + 7 * (cycles / longest) ** 0.5
        kind = "total" if name == "total" else "backward" if name.endswith("(backward)") else "forward"
        picture.append(
            f"<circle class='{kind}' cx='{x(intensity):.1f}' cy='{y(speed):.1f}' r='{radius:.1f}'>"
            f"<title>{escape(name)}&#10;{intensity:.3g} op/B, {si(speed, 'op/s')}</title></circle>"
        )
    return (
        f"<svg viewBox='0 0 {WIDTH} {height}'>{''.join(picture)}</svg>\n"
        "<p class='note'>Operations a second over operations a byte of device memory, both in decades, and the roof. "
        "A circle is a layer, the larger the longer it took; those without traffic are left out.</p>"
    )


def _grid(low: float, high: float, floor: float, top: float, x: Any, y: Any, height: int) -> Iterator[str]:
    for exponent in range(-6, 18):
        value = 10.0**exponent
        if low <= value <= high:
            yield (
                f"<line class='grid' x1='{x(value):.1f}' x2='{x(value):.1f}' y1='15' y2='{height - 30}'/>"
                f"<text x='{x(value):.1f}' y='{height - 14}' text-anchor='middle'>{value:g} op/B</text>"
            )
        if floor <= value <= top:
            yield (
                f"<line class='grid' x1='{LEFT}' x2='{WIDTH - 20}' y1='{y(value):.1f}' y2='{y(value):.1f}'/>"
                f"<text x='{LEFT - 6}' y='{y(value) + 4:.1f}' text-anchor='end'>{si(value)}</text>"
            )


# The timeline: one lane for each unit; what is nearer than a pixel is drawn as one.


def _timeline(s: Simulation) -> str:
    if not s.cycles:
        return ""
    scale = (WIDTH - LEFT) / s.cycles
    hues = {name: 47 * i % 360 for i, name in enumerate(s.layers)}
    lanes: dict[str, list[list[Any]]] = {}
    for interval in s.intervals():
        if interval.end <= interval.start:
            continue
        lane = lanes.setdefault(interval.unit, [])
        if lane and interval.layer == lane[-1][2] and (interval.start - lane[-1][1]) * scale < 0.7:
            lane[-1][1] = max(lane[-1][1], interval.end)
            lane[-1][3] += 1
        else:
            lane.append([interval.start, interval.end, interval.layer, 1, interval.text])
    used = [unit for unit in UNITS if unit in lanes]
    picture = []
    for row, unit in enumerate(used):
        top = row * LANE
        picture.append(f"<text x='{LEFT - 6}' y='{top + 15}' text-anchor='end'>{unit}</text>")
        for start, end, layer, count, text in lanes[unit]:
            what = text if count == 1 else f"{count} commands"
            picture.append(
                f"<rect x='{LEFT + start * scale:.2f}' y='{top + 2}' width='{max((end - start) * scale, 0.4):.2f}' "
                f"height='{LANE - 4}' fill='hsl({hues.get(layer, 0)} 55% 50%)'><title>{escape(layer)}&#10;"
                f"cycles {start:,.0f} to {end:,.0f}&#10;{escape(what)}</title></rect>"
            )
    bottom = len(used) * LANE
    for i in range(6):
        at = LEFT + (WIDTH - LEFT) * i / 5
        anchor = "end" if i == 5 else "middle"
        picture.append(f"<text x='{at:.0f}' y='{bottom + 16}' text-anchor='{anchor}'>{s.cycles * i / 5:,.0f}</text>")
    return (
        f"<svg viewBox='0 0 {WIDTH} {bottom + 24}'>{''.join(picture)}</svg>\n"
        "<p class='note'>Cycles from left to right; a colour is a layer. Rest on a bar to read its command.</p>"
    )


def _energy(s: Simulation) -> str:
    energy, total = s.total.energy, sum(s.total.energy.values())
    rows = "".join(
        f"<tr><td>{component}<td class='wide'><div class='bar'><i style='width:{100 * energy[component] / total:.2f}%;"
        f"background:#3a6ea5'></i></div><td>{si(energy[component] * 1e-12, 'J')}"
        f"<td>{100 * energy[component] / total:.1f} %</tr>"
        for component in sorted(COMPONENTS, key=lambda c: -energy[c]) if energy[component] > 0
    )  # fmt: skip
    return f"<table class='layers parts'>{rows}</table>" if rows else ""


# The array. When a cell works follows from the wavefront: cell (r, c) meets row m of the operands in cycle m + r + c.


def _array(s: Simulation) -> str:
    machine = s.machine
    if machine.rows * machine.cols > MOST_CELLS:
        return (
            f"<p>Arrays of up to {MOST_CELLS} cells are drawn here; this one has {machine.rows * machine.cols:,}.</p>"
        )
    seen: dict[tuple[str, int, int], dict[str, Any]] = {}
    for command in s.program.commands:
        if command.op == "MATMUL" and len(seen) < MOST_ANIMATED:
            columns = min(command.columns, machine.cols) or machine.cols
            alone = command.macs // max(1, command.rows * columns)  # the rows of the only tile
            used = machine.rows if command.tiles > 1 else min(machine.rows, max(1, alone))
            shape = (command.layer, command.rows, columns)
            seen.setdefault(shape, {"layer": command.layer, "m": command.rows, "rows": used, "cols": columns})
    if not seen:
        return ""
    products = list(seen.values())
    data = {
        "rows": machine.rows, "cols": machine.cols, "dataflow": machine.dataflow, "products": products,
    }  # fmt: skip
    options = "".join(
        f"<option value='{i}'>{escape(p['layer'])}: {p['m']} rows through a tile of {p['rows']} x {p['cols']}</option>"
        for i, p in enumerate(products)
    )
    return (
        f"<script type='application/json' id='products'>{json.dumps(data)}</script>\n"
        f"<p><select id='which'>{options}</select> <button id='play'>play</button> "
        "<input id='cycle' type='range' min='0' value='0'> <span id='now'></span></p>\n"
        "<canvas id='array' width='640' height='640'></canvas>\n"
        "<p class='note'>Green: a useful product. Grey: a cell that works on padding. Yellow: a weight is shifted in. "
        "Pale: a cell that waits.</p>"
    )


def _machine(s: Simulation) -> str:
    text = escape(json.dumps(s.machine.as_dict(), indent=1))
    return f"<details><summary>Its whole configuration</summary><pre>{text}</pre></details>"
