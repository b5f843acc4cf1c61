"""The figures of all epochs as a picture: one small SVG field for the losses and one for each metric."""

from __future__ import annotations

import math
from html import escape
from typing import Any

WIDTH, FIELD, LEFT, TOP, GAP = 640, 180, 64, 56, 64
TRAINING, VALIDATION = "#1f5fa8", "#c8501e"
NOT_DRAWN = ("epoch", "seconds", "lr", "items_per_second")
MARKS = 4


def svg(title: str, rows: list[dict[str, Any]]) -> str:
    """The text of a picture: training figures in blue, those of the validation set in orange."""
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n not in NOT_DRAWN and n[:4] != "val_"]
    drawn = [n for n in names if any(isinstance(row.get(n), (int, float)) for row in rows)]
    height = TOP + (FIELD + GAP) * max(1, len(drawn))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="26" font-size="16">{escape(title)}</text>',
    ]
    if not drawn:
        parts.append(f'<text x="{LEFT}" y="{TOP + 40}">no epoch is done yet</text>')
    for i, name in enumerate(drawn):
        parts += _field(name, rows, TOP + i * (FIELD + GAP))
    return "\n".join([*parts, "</svg>\n"])


def _field(name: str, rows: list[dict[str, Any]], top: float) -> list[str]:
    """One figure, and the same of the validation set, over the epochs."""
    curves = [(TRAINING, name), (VALIDATION, f"val_{name}")]
    values = [row[key] for _, key in curves for row in rows if _finite(row.get(key))]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high == low:
        low, high = low - 0.5, high + 0.5
    wide, bottom = WIDTH - LEFT - 24, top + FIELD

    def x(epoch: int) -> float:
        return LEFT + wide * ((epoch - 1) / (len(rows) - 1) if len(rows) > 1 else 0.5)

    def y(value: float) -> float:
        return bottom - (FIELD - 24) * (value - low) / (high - low)

    parts = []
    for i in range(MARKS + 1):
        value = low + (high - low) * i / MARKS
        parts.append(f'<path d="M{LEFT} {y(value):.1f}h{wide}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for epoch in sorted({1, len(rows), *range(5, len(rows), max(5, len(rows) // 10))}):
        parts.append(f'<text x="{x(epoch):.1f}" y="{bottom + 18}" text-anchor="middle">{epoch}</text>')
    for i, (colour, key) in enumerate(curves):
        points = [(x(n), y(row[key])) for n, row in enumerate(rows, 1) if _finite(row.get(key))]
        if points:
            line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.4" fill="{colour}"/>' for a, b in points]
            parts.append(f'<text x="{LEFT + i * 160}" y="{top + 2}" fill="{colour}">{escape(key)}</text>')
    return parts


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
