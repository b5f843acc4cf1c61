"""Tries plans before one is used: predictions err, and devices may share one processor.

All run a few times, in turn, on small random numbers (and zeros for whole numbers); nothing that they compute is kept,
and no state is touched. So `auto` is never much slower than the best of what was tried, whatever was predicted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from math import inf, isfinite
from typing import Any

import numpy as np

from hal import config
from hal.errors import HalError
from hal.graph.graph import Graph
from hal.graph.plan import Plan
from hal.schedule.offers import Offer
from hal.schedule.queues import overlapped
from hal.schedule.search import WORTH
from hal.transfer import move

BURST = 3  # calls of one plan in a row, so that it finds its data in the caches, as it will
TRIES = (
    2,
    40,
)  # bursts of each, at least and at most, after a call that does not count: it takes memory, and may compile
ENOUGH = 0.4  # seconds of them all after which there are no more
SMALL = 0.1  # what numbers are below: not so large that they overflow, nor so small that they vanish
FAR = 1.5  # times the quickest: what takes longer is not tried any more ...
FAIR = 0.05  # ... after so many seconds of it: on a busy machine a few calls tell little. Longer calls have no bursts


def best_of(offers: Sequence[Offer], plan_of: Callable[[Graph], Plan], fresh: Collection[int] = ()) -> Plan:
    """The plan that is really quickest. The first one is kept unless another is quicker by more than times differ.

    Args:
        plan_of: makes a plan of an offer's graph.
        fresh: which inputs are new in each call, so that they come to where the plan takes them in each call.
    """
    first = plan_of(offers[0].graph)
    if len(offers) == 1:
        _say(f"{offers[0].name} (predicted {1e3 * offers[0].seconds:.3g} ms)")
        return overlapped(first)
    tried: list[tuple[Offer, Plan]] = []
    runs: list[Callable[[], None]] = []
    for offer in offers:
        try:
            plan = overlapped(first if offer is offers[0] else plan_of(offer.graph))
            runs.append(_run(plan, fresh))
        except HalError as error:  # no room to try it beside what there is, or a kernel that cannot be made
            if offer is offers[0]:
                return overlapped(first)
            _say(f"{offer.name} was not tried: {error}")
            continue
        tried.append((offer, plan))
    times = _times(runs)
    best = min(range(len(tried)), key=times.__getitem__)
    if not times[best] < WORTH * times[0]:
        best = 0
    order = [best, *[i for i in range(len(tried)) if i != best]]
    _say(f"tried, the first was taken: {', '.join(_told(tried[i][0], times[i]) for i in order)}")
    return replace(tried[best][1], tried={tried[i][0].name: times[i] for i in order})


def _told(offer: Offer, seconds: float) -> str:
    took = f"{1e3 * seconds:.3g} ms" if isfinite(seconds) else "failed"
    return f"{offer.name} {took} (predicted {1e3 * offer.seconds:.3g} ms)"


def _say(what: str) -> None:
    if config.logs("placement"):
        print(f"hal: placement: {what}", file=sys.stderr)


def _run(plan: Plan, fresh: Collection[int]) -> Callable[[], None]:
    """A call of a plan on numbers, with the copies of what is new in each call, until all is done."""
    inputs, homes = plan.graph.inputs, [plan.graph.away.get(v, v.device) for v in plan.graph.inputs]
    random = np.random.default_rng(0)  # equal numbers would be quicker than others: sums of them overflow, say
    given = []
    for i, v in enumerate(inputs):
        numbers = SMALL * random.random(v.spec.shape) if v.spec.dtype.is_inexact else np.zeros(v.spec.shape)  # indices?
        device = homes[i] if i in fresh else v.device
        given.append(device.backend.upload(numbers.astype(v.spec.dtype.numpy), device))
    moved = [i for i in fresh if homes[i] is not inputs[i].device]
    devices = {v.device for v in plan.graph.results}

    def run() -> None:
        here = list(given)
        for i in moved:
            here[i] = move(given[i], inputs[i].spec, homes[i], inputs[i].device)
        results = plan.run(*here)
        for device in devices:
            device.backend.synchronize(device)
        del results

    return run


def _times(runs: Sequence[Callable[[], Any]]) -> list[float]:
    """The least time of each, run in turn; infinite of what fails. What is far behind is not run to the end."""
    least, spent = [inf] * len(runs), [0.0] * len(runs)
    going = set(range(len(runs)))
    for attempt in range(1 + TRIES[1]):
        for i in sorted(going):
            try:
                for _ in range(BURST if attempt else 1):
                    start = time.perf_counter()
                    runs[i]()
                    seconds = time.perf_counter() - start
                    if attempt:
                        least[i], spent[i] = min(least[i], seconds), spent[i] + seconds
                    if seconds > FAIR:
                        break
            except (HalError, IndexError):  # something cannot take such numbers
                least[i] = inf
                going.discard(i)
        going -= {i for i in going if least[i] > FAR * min(least) and spent[i] > FAIR}
        if len(going) < 2 or (attempt >= TRIES[0] and sum(spent) > ENOUGH):
            break
    return least
