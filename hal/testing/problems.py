"""Random problems for the scheduler, for its tests and benchmarks: small ones of any shape, and large layered ones."""

from __future__ import annotations

import random
from math import inf

from hal.schedule.problem import Datum, Problem, Task, uniform_routes

LATENCY, BANDWIDTH = 0.1, 10.0  # of all links: seconds, and bytes a second


def any_problem(seed: int, tasks: int, devices: int, copies: float = 1.0, memory: float = inf) -> Problem:
    """Tasks of 1 to 10 seconds with up to two inputs, on devices that are each good at something else.

    Args:
        copies: a copy takes about as long as a task, times this.
        memory: of every device but the first.
    """
    rng = random.Random(seed)
    data = [Datum(int(rng.uniform(5, 100) * copies), home=0)]
    work = []
    for _ in range(tasks):
        inputs = tuple(sorted({rng.randrange(len(data)) for _ in range(rng.randint(1, 2))}))
        seconds = rng.uniform(1, 10)
        work.append(Task(tuple(seconds * rng.uniform(0.3, 3) for _ in range(devices)), inputs, (len(data),)))
        data.append(Datum(int(rng.uniform(5, 100) * copies)))
    data[-1] = Datum(data[-1].nbytes, end=0)
    limits = (inf, *[memory] * (devices - 1))
    return Problem(tuple(work), tuple(data), limits, uniform_routes(devices, LATENCY, BANDWIDTH))


def layered_problem(seed: int, layers: int, width: int, devices: int, copies: float = 0.1) -> Problem:
    """Layers of independent tasks, each with one to three inputs of the layer before, on devices of unlike speed.

    Args:
        copies: a copy takes about as long as a task on the fastest device, times this.
    """
    rng = random.Random(seed)
    speeds = [1 / (1 + d / 2) for d in range(devices)]
    data, work, before = [Datum(0, home=0)], [], [0]
    for _ in range(layers):
        made = []
        for _ in range(width):
            inputs = tuple(sorted(rng.sample(before, min(len(before), rng.randint(1, 3)))))
            seconds = rng.uniform(1, 10)
            made.append(len(data))
            work.append(Task(tuple(seconds / s for s in speeds), inputs, (len(data),)))
            data.append(Datum(int(rng.uniform(0.5, 1.5) * 55 * copies)))
        before = made
    routes = uniform_routes(devices, LATENCY / 10, BANDWIDTH)
    return Problem(tuple(work), tuple(data), (inf,) * devices, routes)
