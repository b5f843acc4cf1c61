"""A run of equal tiles through FIFO, loader and array: a recurrence, and its closed form where it has become regular.

For tile i, with f the end of its fetch, l that of its load into the array, s the start of its rows:

    f[i] = max(f[i-1], l[i-depth]) + fetch          a FIFO of `depth` tiles, filled from device memory
    l[i] = max(l[i-1], f[i], s[i-1]) + load         one tile of shadow weights: free when the array has switched
    s[i] = max(s[i-1] + issue, l[i])                issue is 0 before the first tile

With one buffer of weights the load of a tile waits until the rows of the one before have left the array.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf, isfinite


@dataclass(slots=True)
class Feeder:
    """The state of FIFO and loader between runs.

    Attributes:
        fetched: when the last tile was in the FIFO.
        loaded: when the last tile was in the array.
        switched: when the array last switched to a new tile.
        loads: when each of the last tiles left the FIFO, oldest first; as many as it has places.
    """

    fetched: float
    loaded: float
    switched: float
    loads: deque[float]


@dataclass(frozen=True, slots=True)
class Run:
    """Times of one run.

    Attributes:
        fetch: first start and last end of the fetches; both the same where there is no FIFO.
        load: first start and last end of the loads.
        start: when the first rows enter the array.
        issued: when the last rows have entered it.
        shift: cycles after the first tile's start in which the array waited for weights that were being shifted in.
        stall: the same for weights that were not there.
    """

    fetch: tuple[float, float]
    load: tuple[float, float]
    start: float
    issued: float
    shift: float
    stall: float


def run(
    feeder: Feeder, tiles: int, issue: float, fetch: float, load: int, drain: float, *,
    weights: float, rows: float, fetchable: float = 0.0,
) -> Run:  # fmt: skip
    """Pass a run of `tiles` equal tiles; `feeder` is left as it is after them.

    Args:
        issue: cycles in which a tile's rows enter the array.
        fetch: cycles to fetch a tile into the FIFO; 0 without one.
        load: cycles to shift a tile into the array.
        drain: with one weight buffer, cycles after `issue` until the next load may start; -1 with two buffers.
        weights: when weights may be loaded; with a FIFO, always.
        rows: when the first rows may enter: all that they need is there, and the array is free.
        fetchable: when weights may be fetched.
    """
    f, l, s = feeder.fetched, feeder.loaded, feeder.switched  # noqa: E741  # the letters of the recurrence
    loads, depth, single = feeder.loads, len(feeder.loads), drain >= 0
    first_fetch = first_load = start = shift = stall = 0.0
    regular, before = 0, (inf, inf, inf)
    i = 0
    while i < tiles:
        if fetch:
            fetch_at = max(f, loads[0], fetchable)
            f_next = fetch_at + fetch
        else:
            fetch_at = f_next = weights
        free = s if not single or i == 0 else s + issue + drain
        load_at = max(l, f_next, free, weights)
        l_next = load_at + load
        s_next = max(rows, l_next) if i == 0 else max(s + issue, l_next)
        if i == 0:
            first_fetch, first_load, start = fetch_at, load_at, s_next
        else:
            waited = _cycles(s_next - s - issue)
            shifted = min(waited, load)
            shift, stall = shift + shifted, stall + waited - shifted
        if fetch:
            loads.append(l_next)
            loads.popleft()
        steps = (f_next - f, l_next - l, s_next - s)
        regular = regular + 1 if i and _same(steps, before) else 0
        f, l, s, before = f_next, l_next, s_next, steps  # noqa: E741  # as above
        i += 1
        if regular > depth + 1 and i < tiles:
            df, dl, ds = steps
            fetches = ((f, df), (loads[0], dl)) if fetch else ((f, df),)
            frees = (s + issue + drain, ds) if single else (s, ds)
            starts = ((s + issue, ds), (l + dl, dl))
            skip = min(_ahead((df, fetches), (dl, ((l, dl), (f + df, df), frees)), (ds, starts)), tiles - i)
            if skip > 0:
                waited = _cycles(ds - issue)
                shifted = min(waited, load)
                shift, stall = shift + skip * shifted, stall + skip * (waited - shifted)
                f, l, s = f + skip * df, l + skip * dl, s + skip * ds  # noqa: E741  # as above
                for j in range(depth if fetch else 0):
                    loads[j] += skip * dl
                i += skip
                regular = 0
    feeder.fetched, feeder.loaded, feeder.switched = f, l, s
    return Run((first_fetch, f) if fetch else (weights, weights), (first_load, l), start, s + issue, shift, stall)


def _cycles(difference: float) -> float:
    """A difference of two times without what rounding left of it."""
    return difference if difference > 1e-6 else 0.0


def _same(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(abs(a - b) < 1e-6 for a, b in zip(one, other, strict=True))


def _ahead(*maxima: tuple[float, tuple[tuple[float, float], ...]]) -> int:
    """For how many more tiles every maximum keeps growing as it did.

    Each is its growth a tile so far, and its terms: their values for the next tile, and their growth.
    """
    ahead = inf
    for growth, terms in maxima:
        value, step = max(terms)
        if abs(step - growth) > 1e-6:
            return 0
        for other, other_step in terms:
            if other_step > step + 1e-9:
                ahead = min(ahead, (value - other) / (other_step - step))
    return int(ahead) - 1 if isfinite(ahead) else 1 << 60
