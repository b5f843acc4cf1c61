"""Random problems for the scheduler, for its tests and benchmarks, and the optimum of small ones by trying all."""

from __future__ import annotations

import random
from math import inf

from hal.schedule.problem import Datum, Problem, Task, uniform_routes

There = dict[tuple[int, int], float]  # when a datum is on a device
Busy = dict[int, list[tuple[float, float]]]  # from and until when a link is
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


def optimum(problem: Problem, bound: float) -> float:
    """The least seconds of all devices for all tasks in all orders, if they beat `bound`; else that.

    All are tried, in other words than the scheduler's. A copy takes the first gap of its link.
    """
    count, devices = len(problem.tasks), range(len(problem.memory))
    fastest = [min(t.seconds) for t in problem.tasks]
    tail = list(fastest)  # of the longest chain from each task
    for t in reversed(range(count)):
        tail[t] += max((tail[u] for x in problem.tasks[t].outputs for u in problem.consumers[x]), default=0.0)
    best = bound

    def copied(there: There, busy: Busy, x: int, d: int) -> tuple[There, Busy]:
        options = []
        for e in devices:
            if (x, e) in there:
                route = problem.routes[e][d]
                assert route is not None
                seconds, start = route.seconds(problem.data[x].nbytes), there[x, e]
                for begin, end in busy.get(route.queue, ()):
                    if start + seconds <= begin:
                        break
                    start = max(start, end)
                options.append((start + seconds, start, route.queue))
        end, start, queue = min(options)
        return {**there, (x, d): end}, {**busy, queue: sorted([*busy.get(queue, ()), (start, end)])}

    def go_on(done: frozenset[int], free: tuple[float, ...], there: There, busy: Busy, span: float) -> None:
        nonlocal best
        if len(done) == count:
            for i, datum in enumerate(problem.data):
                if datum.end is not None and (i, datum.end) not in there:
                    there, busy = copied(there, busy, i, datum.end)
                    span = max(span, there[i, datum.end])
            best = min(best, span)
            return
        left = sum(fastest[t] for t in range(count) if t not in done)
        if max(span, (sum(free) + left) / len(free)) >= best:
            return
        for t, task in enumerate(problem.tasks):
            if t in done or any(problem.producer[x] not in done for x in task.inputs if problem.producer[x] >= 0):
                continue
            for d in devices:
                here, links, start = there, busy, free[d]
                for x in task.inputs:
                    if (x, d) not in here:
                        here, links = copied(here, links, x, d)
                    start = max(start, here[x, d])
                end = start + task.seconds[d]
                if end + tail[t] - fastest[t] < best:
                    moved = tuple(end if e == d else f for e, f in enumerate(free))
                    made = {(x, d): end for x in task.outputs}
                    go_on(done | {t}, moved, {**here, **made}, links, max(span, end))

    homes = {(i, x.home): 0.0 for i, x in enumerate(problem.data) if x.home is not None}
    go_on(frozenset(), (0.0,) * len(problem.memory), homes, {}, 0.0)
    return best
