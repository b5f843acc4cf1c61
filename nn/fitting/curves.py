"""The figures of all epochs as a picture: a small SVG with a field for the losses and one for each metric."""

from __future__ import annotations

import math
from html import escape
from typing import Any

WIDTH, FIELD, LEFT, RIGHT, TOP, GAP, FOOT = 640, 156, 64, 24, 64, 64, 48
TRAINING, VALIDATION, FRAME, LINES = "#1f5fa8", "#c8501e", "#555", "#e4e4e4"
NOT_DRAWN = ("epoch", "seconds", "lr", "items_per_second")
MOST_MARKS = 7  # on the axis of a figure
MOST_EPOCHS = 12


def svg(title: str, rows: list[dict[str, Any]]) -> str:
    """The text of a picture: training figures in blue, those of the validation set in orange.

    The axis of a figure is logarithmic where all its values are above zero and the largest is ten times the smallest.
    """
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n not in NOT_DRAWN and n[:4] != "val_"]
    drawn = [n for n in names if any(_is_number(row.get(n)) for row in rows)]
    height = TOP + max(1, len(drawn)) * (FIELD + GAP) - GAP + FOOT
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
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:g}" y="{height - 10}" text-anchor="middle">epoch</text>')
    return "\n".join([*parts, "</svg>\n"])


def _field(name: str, rows: list[dict[str, Any]], top: int) -> list[str]:
    """One figure, and the same of the validation set, over the epochs."""
    curves = [(TRAINING, name), (VALIDATION, f"val_{name}")]
    values = [row[key] for _, key in curves for row in rows if _is_number(row.get(key))]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high >= 10 * low
    marks = _decades(low, high) if logarithmic else _steps(low, high)
    level = math.log10 if logarithmic else float
    least, most = level(min(marks[0], low)), level(max(marks[-1], high))
    wide, bottom = WIDTH - LEFT - RIGHT, top + FIELD

    def x(epoch: int) -> float:
        return LEFT + wide * ((epoch - 1) / (len(rows) - 1) if len(rows) > 1 else 0.5)

    def y(value: float) -> float:
        return bottom - FIELD * (level(value) - least) / (most - least)

    parts = []
    for value in marks:
        parts.append(f'<path d="M{LEFT} {y(value):.1f}h{wide}" stroke="{LINES}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    parts.append(f'<path d="M{LEFT} {top}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="{FRAME}"/>')
    step = next(s for s in _one_two_five(1, len(rows) + 1) if len(rows) <= s * MOST_EPOCHS)
    for epoch in range(int(step), len(rows) + 1, int(step)):
        parts.append(f'<text x="{x(epoch):.1f}" y="{bottom + 18}" text-anchor="middle">{epoch}</text>')
    for i, (colour, key) in enumerate(curves):
        points = [(x(n), y(row[key])) for n, row in enumerate(rows, 1) if _is_number(row.get(key))]
        if points:
            line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
            last = next(row[key] for row in reversed(rows) if _is_number(row.get(key)))
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.4" fill="{colour}"/>' for a, b in points]
            parts.append(
                f'<text x="{LEFT + i * 200}" y="{top - 10}" fill="{colour}">{escape(key)} {last:.4g}'
                f"{' (logarithmic)' if logarithmic and not i else ''}</text>"
            )
    return parts


def _decades(low: float, high: float) -> list[float]:
    """Marks that hold all values between them: 1, 2, 5 times the powers of ten, or fewer of them if they are many."""
    marks = _one_two_five(low / 10, high * 10)
    first = max(i for i, v in enumerate(marks) if v <= low)
    last = min(i for i, v in enumerate(marks) if v >= high)
    if last - first < MOST_MARKS:
        return marks[first : last + 1]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [float(f"1e{power}") for power in powers[:: math.ceil(len(powers) / MOST_MARKS)]]


def _steps(low: float, high: float) -> list[float]:
    """Marks that hold all values between them, each 1, 2 or 5 times a power of ten after the one before."""
    if low == high:
        half = max(abs(low), 1) / 2
        low, high = low - half, high + half
    sizes = _one_two_five((high - low) / 100, (high - low) * 10)
    step = next(s for s in sizes if math.ceil(high / s) - math.floor(low / s) < MOST_MARKS)
    return [float(f"{i * step:.12g}") for i in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _one_two_five(low: float, high: float) -> list[float]:
    """The numbers 1, 2, 5 times a power of ten, from one below or at `low` to one above or at `high`."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 2, 5)]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
