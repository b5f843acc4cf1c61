"""The loss curve as a picture: a small SVG, which any browser shows."""

from __future__ import annotations

import math
from pathlib import Path
from xml.sax.saxutils import escape

from nn.train.run import Run

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 72, 72, 64, 52  # margins around the field of the curves
LOSS, ACCURACY, GREY = "#1f5fa8", "#c8501e", "#555"
MOST_TICKS = 12

Point = tuple[float, float]


def write(path: Path, run: Run) -> None:
    """Draw how `run` has gone so far."""
    title = f"hal train {run.task.name} on {run.device}, seed {run.settings.seed}"
    losses, accuracies = ([row[name] for row in run.history] for name in ("loss", "accuracy"))
    path.write_text(svg(title, losses, accuracies), encoding="utf-8")


def svg(title: str, losses: list[float], accuracies: list[float]) -> str:
    """The training loss (left axis, logarithmic) and accuracy (right axis) of each epoch, as the text of a picture."""
    low, high = _decades(losses)
    least = math.floor(min([*accuracies, 0.9]) * 10) / 10
    epochs = max(len(losses), 1)
    bottom, wide, tall = HEIGHT - BOTTOM, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(epoch: float) -> float:
        return LEFT + wide * ((epoch - 1) / (epochs - 1) if epochs > 1 else 0.5)

    def y_loss(value: float) -> float:
        level = math.log10(min(max(value, low), high))
        return bottom - tall * (level - math.log10(low)) / (math.log10(high) - math.log10(low))

    def y_accuracy(value: float) -> float:
        return bottom - tall * (value - least) / (1 - least)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 26, title, "start", size=16),
    ]
    for value in _marks(low, high):
        parts.append(f'<path d="M{LEFT} {y_loss(value):.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(_text(LEFT - 8, y_loss(value) + 4.5, f"{value:g}", "end", LOSS))
    for tenth in range(round(least * 10), 11, 2 if least < 0.4 else 1):
        y = y_accuracy(tenth / 10)
        parts.append(f'<path d="M{WIDTH - RIGHT} {y:.1f}h5" stroke="{GREY}"/>')
        parts.append(_text(WIDTH - RIGHT + 9, y + 4.5, f"{tenth * 10} %", "start", ACCURACY))
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10 ** len(str(epochs))) if epochs <= s * MOST_TICKS)
    for epoch in range(step, len(losses) + 1, step):
        parts.append(f'<path d="M{x(epoch):.1f} {bottom}v5" stroke="{GREY}"/>')
        parts.append(_text(x(epoch), bottom + 20, str(epoch), "middle"))
    parts.append(f'<path d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}V{TOP}" fill="none" stroke="{GREY}"/>')
    parts.append(_text(LEFT + wide / 2, HEIGHT - 10, "epoch", "middle"))
    parts.append(_text(20, TOP + tall / 2, "training loss (logarithmic)", "middle", LOSS, turned=-90))
    parts.append(_text(WIDTH - 14, TOP + tall / 2, "training accuracy", "middle", ACCURACY, turned=90))
    parts += _curve([(x(i), y_loss(v)) for i, v in enumerate(losses, 1)], LOSS, "")
    parts += _curve([(x(i), y_accuracy(v)) for i, v in enumerate(accuracies, 1)], ACCURACY, "6 4")
    last = [f"loss {losses[-1]:.4f}", f"accuracy {accuracies[-1]:.2%}"] if losses else ["loss", "accuracy"]
    parts += _legend(LEFT, last[0], LOSS, "") + _legend(LEFT + 150, last[1], ACCURACY, "6 4")
    if not losses:
        parts.append(_text(LEFT + wide / 2, TOP + tall / 2, "no epoch is done yet", "middle"))
    return "\n".join([*parts, "</svg>\n"])


def _decades(losses: list[float]) -> tuple[float, float]:
    """The next 1, 2 or 5 times a power of ten below and above all losses."""
    shown = [v for v in losses if v > 0 and math.isfinite(v)] or [1.0]
    marks = _one_two_five(min(shown) / 10, max(shown) * 10)
    low = max(v for v in marks if v <= min(shown) * (1 + 1e-9))
    return low, min(v for v in marks if v >= max(shown) * (1 - 1e-9) and v > low)


def _marks(low: float, high: float) -> list[float]:
    """Where the loss axis has lines: at 1, 2, 5 times the powers of ten, or at fewer of them if that were too many."""
    marks = _one_two_five(low, high)
    if len(marks) <= MOST_TICKS:
        return marks
    powers = [v for v in marks if f"{v:e}".startswith("1.0")]
    return powers[:: math.ceil(len(powers) / MOST_TICKS)]


def _one_two_five(low: float, high: float) -> list[float]:
    """The numbers 1, 2, 5 times a power of ten from `low` to `high`."""
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    values = [float(f"{digit}e{exponent}") for exponent in exponents for digit in (1, 2, 5)]
    return [v for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#222", size: int = 0, turned: int = 0) -> str:
    style = (f' font-size="{size}"' if size else "") + (
        f' transform="rotate({turned} {x:.1f} {y:.1f})"' if turned else ""
    )
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{style}>{escape(text)}</text>'


def _curve(points: list[Point], colour: str, dashes: str) -> list[str]:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in points]
    return [
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>',
        *dots,
    ]


def _legend(x: float, text: str, colour: str, dashes: str) -> list[str]:
    return [*_curve([(x, 46.0), (x + 34, 46.0)], colour, dashes), _text(x + 42, 50.5, text, "start", colour)]
