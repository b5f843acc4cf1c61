"""A line search that ends where the strong Wolfe conditions hold."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, sqrt
from typing import Any

Point = tuple[float, float, Any, float]  # the length of the step; the value, gradient and slope there
ENOUGH = 1e-4  # c1: the value falls by this part of what the first slope promises
FLAT = 0.9  # c2: the slope falls to this part of the first one
STEPS = 25


def _cubic(a: Point, b: Point, low: float, high: float) -> float:
    """Where the cubic through two points with their slopes is least, within bounds."""
    (x1, f1, _, g1), (x2, f2, _, g2) = sorted((a, b), key=lambda point: point[0])
    if x1 == x2:
        return x1
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1 * d1 - g1 * g2
    if not square >= 0:
        return (low + high) / 2
    d2 = sqrt(square)
    bottom = g2 - g1 + 2 * d2
    if bottom == 0:
        return (low + high) / 2
    return min(max(x2 - (x2 - x1) * ((g2 + d2 - d1) / bottom), low), high)


def strong_wolfe(
    along: Callable[[float], tuple[float, Any, float]], value: float, gradient: Any, slope: float, length: float,
    longest: float, tolerance_change: float,
) -> tuple[float, Any, float]:  # fmt: skip
    """Find a step that lowers the value enough and flattens the slope enough.

    Args:
        along: the value, gradient and slope after a step of some length.
        value, gradient, slope: those before the step; the slope is negative.
        length: what is tried first.
        longest: the largest element of the direction.
        tolerance_change: a bracket narrower than this is not divided further.

    Returns:
        The value, gradient and length of the step.

    Source: Nocedal, Wright, "Numerical Optimization", 2006, algorithms 3.5 and 3.6.
    """
    start: Point = (0.0, value, gradient, slope)

    def falls(point: Point) -> bool:
        return point[1] <= value + ENOUGH * point[0] * slope

    before = start
    tried = 0
    while True:
        point: Point = (length, *along(length))
        tried += 1
        if not isfinite(point[1]) and tried < STEPS:  # stepped out of where the function is defined
            length = (before[0] + length) / 2
            continue
        if not falls(point) or (tried > 1 and point[1] >= before[1]):
            bracket = [before, point]
            break
        if abs(point[3]) <= -FLAT * slope:
            return point[1], point[2], point[0]
        if point[3] >= 0 or tried >= STEPS:
            bracket = [before, point]
            break
        low, high = length + 0.01 * (length - before[0]), length * 10
        length = _cubic(before, point, low, high)
        before = point

    bracket.sort(key=lambda p: p[1])  # the lower one first
    stuck = False
    while tried < STEPS:
        best, other = bracket
        low, high = sorted((best[0], other[0]))
        width = high - low
        if width * longest < tolerance_change:
            break
        t = _cubic(best, other, low, high)
        edge = 0.1 * width
        if min(high - t, t - low) < edge:  # too near an end: move inwards, the second time for sure
            if stuck or t >= high or t <= low:
                t = high - edge if abs(t - high) < abs(t - low) else low + edge
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        point = (t, *along(t))
        tried += 1
        if not falls(point) or not point[1] < best[1]:
            bracket = [best, point]
        else:
            if abs(point[3]) <= -FLAT * slope:
                return point[1], point[2], point[0]
            bracket = [point, best if point[3] * (other[0] - best[0]) >= 0 else other]
    best = min(bracket, key=lambda p: p[1])
    return best[1], best[2], best[0]
