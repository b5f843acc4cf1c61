"""Tries a plan of several devices before it is used: predictions err, and devices may share one processor.

Both plans run a few times, in turn, on ones (and zeros for whole numbers); nothing that they compute is kept. So `auto`
is never much slower than leaving everything where it is, whatever was predicted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hal import config
from hal.errors import HalError, OutOfMemoryError
from hal.graph.plan import Plan
from hal.schedule.placing import is_tight
from hal.schedule.search import WORTH

WARM, TRIES = 2, 4  # calls of each plan that do not count (the first one takes memory), and that do


def better_of(follow: Callable[[], Plan], auto: Plan) -> Plan:
    """The plan that the scheduler made if it is really quicker than one where nothing is moved, else that one.

    Args:
        follow: makes the other plan; asked only if there is something to compare.
    """
    if auto.graph.away or is_tight(auto.graph):  # where nothing is moved it would not fit
        return auto
    other = follow()
    devices = [s.device for s in other.steps]
    if len(set(devices)) < 2 and devices == [s.device for s in auto.steps]:
        return other
    try:
        inputs = [(_numbers(plan), plan) for plan in (other, auto)]
        times = _times([lambda given=given, plan=plan: _run(plan, given) for given, plan in inputs])  # type: ignore[misc]
    except OutOfMemoryError:  # no room to try it beside what there is
        return auto
    except HalError:  # something cannot take such numbers
        return other
    if config.logs("placement"):
        told = ", ".join(f"{name} {1e3 * t:.3g} ms" for name, t in zip(("follow", "auto"), times, strict=True))
        print(f"hal: tried: {told}", file=sys.stderr)
    return auto if times[1] < WORTH * times[0] else other


def _numbers(plan: Plan) -> list[Any]:
    found = []
    for v in plan.graph.inputs:
        make = np.ones if v.spec.dtype.is_inexact else np.zeros  # whole numbers may be indices
        found.append(v.device.backend.upload(make(v.spec.shape, v.spec.dtype.numpy), v.device))
    return found


def _run(plan: Plan, given: list[Any]) -> None:
    results = plan.run(*given)
    for device in {v.device for v in plan.graph.results}:
        device.backend.synchronize(device)
    del results


def _times(runs: list[Callable[[], None]]) -> list[float]:
    """The least time of each, run in turn."""
    least = [float("inf")] * len(runs)
    for attempt in range(WARM + TRIES):
        for i, run in enumerate(runs):
            start = time.perf_counter()
            run()
            if attempt >= WARM:
                least[i] = min(least[i], time.perf_counter() - start)
    return least
