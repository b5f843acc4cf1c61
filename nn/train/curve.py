"""The loss curve as a picture: a small SVG, which any browser shows."""

from __future__ import annotations

import math
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 64, 16, 40, 44


def write(path: Path, title: str, losses: list[float], accuracies: list[float]) -> None:
    """Draw the training loss (logarithmic, left axis) and accuracy (dashed, 0 to 1, right of it) of each epoch."""
    path.write_text(svg(title, losses, accuracies), encoding="utf-8")


def svg(title: str, losses: list[float], accuracies: list[float]) -> str:
    """The picture as text."""
    finite = [v for v in losses if v > 0 and math.isfinite(v)] or [1.0]
    low, high = math.floor(math.log10(min(finite))), math.ceil(math.log10(max(finite)))
    high = max(high, low + 1)
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(i: int) -> float:
        return LEFT + wide * (i / max(1, len(losses) - 1))

    def y_loss(value: float) -> float:
        level = math.log10(value) if value > 0 and math.isfinite(value) else high
        return TOP + tall * (high - level) / (high - low)

    def y_accuracy(value: float) -> float:
        return TOP + tall * (1 - value)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for exponent in range(low, high + 1):
        y = y_loss(10.0**exponent)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**exponent:g}</text>')
    for i in range(0, len(losses), max(1, len(losses) // 10)):
        parts.append(f'<text x="{x(i):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{i + 1}</text>')
    parts.append(_line([(x(i), y_loss(v)) for i, v in enumerate(losses)], "#1f77b4", ""))
    parts.append(_line([(x(i), y_accuracy(v)) for i, v in enumerate(accuracies)], "#d62728", ' stroke-dasharray="5 3"'))
    last = f"loss {losses[-1]:.4f}, training accuracy {accuracies[-1]:.2%} (dashed, 0 to 1)" if losses else "no epoch yet"
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}">epoch; after the last: {escape(last)}</text>')
    return "\n".join([*parts, "</svg>"])


def _line(points: list[tuple[float, float]], colour: str, style: str) -> str:
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in points)
    return f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="2"{style}/>{dots}'
