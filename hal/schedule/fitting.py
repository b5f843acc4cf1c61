"""Fits what calls take to what they cost: seconds at the start, for each operation, and for each byte."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from hal.op import Array
from hal.schedule.speed import Pace

Point = tuple[float, float, float]  # operations, bytes, seconds
ROUNDS = 10
FAR = 100.0  # times too much or too little, beyond which all is equally far


def fitted(points: Sequence[Point]) -> Pace:
    """The pace that comes nearest to what was measured: twice too much counts as twice too little.

    Nothing in it is negative, so of each set of terms the best is tried, and the fewest that do as well as any are
    taken. Terms are three, so there are seven sets.

    Args:
        points: operations, bytes and seconds of calls; at least one, and no seconds are 0.
    """
    work = np.array([(1.0, flops, nbytes) for flops, nbytes, _ in points])
    seconds = np.array([s for _, _, s in points])
    weights = 1 / seconds**2
    for _ in range(ROUNDS):  # with these weights least squares come to the least squares of logarithms
        found = _least_squares(work, seconds, weights)
        off = np.clip(work @ found / seconds, 1 / FAR, FAR)
        far = np.abs(off - 1) > 1e-6
        weights = np.where(far, np.log(off), 1.0) / np.where(far, off * (off - 1), 1.0) / seconds**2
    return Pace(*(float(f"{x:.4g}") for x in found))


def _least_squares(work: Array, seconds: Array, weights: Array) -> Array:
    """The terms, none of them negative, for which the weighted squares of `work @ terms - seconds` are least."""
    scale = np.maximum(work.max(0), 1e-30)  # operations and bytes are many
    rows, wanted = work / scale * np.sqrt(weights)[:, None], seconds * np.sqrt(weights)
    best, least = np.zeros(3), np.inf
    for chosen in sorted(product((False, True), repeat=3), key=sum)[1:]:
        terms = np.flatnonzero(chosen)
        found = np.linalg.lstsq(rows[:, terms], wanted, rcond=None)[0]
        error = float(np.sum((rows[:, terms] @ found - wanted) ** 2))
        if (found >= 0).all() and error < least - 1e-9:
            best, least = np.zeros(3), error
            best[terms] = found / scale[terms]
    return best
