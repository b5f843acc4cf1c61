"""List scheduling: tasks by how long the way from them to the end is, each to the device where it is done first.

Sources: HEFT (Topcuoglu, Hariri, Wu 2002: upward rank, earliest finish, insertion into gaps) and PEFT (Arabnejad,
Barbosa 2014: to the earliest finish it adds what follows at best, so that a short task does not cost a long copy).
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from hal.schedule.layout import first_gap
from hal.schedule.problem import Problem, Task, order_by

Assignment = tuple[tuple[int, ...], list[int]]  # the device of each task, and the order


def upward_ranks(problem: Problem, weight: float = 1.0) -> list[float]:
    """For each task the mean time from its start to the end of everything that follows.

    Args:
        weight: of the copies on the way.
    """
    finite = np.where(np.isfinite(problem.seconds), problem.seconds, np.nan)
    mean = np.nanmean(finite, axis=1).tolist()
    routes = [r for row in problem.routes for r in row if r is not None]
    share = weight * (len(routes) / len(problem.memory) ** 2)  # how often two random devices differ
    latency = share * sum(r.latency for r in routes) / max(1, len(routes))
    per_byte = share * sum(r.per_byte for r in routes) / max(1, len(routes))
    after = [0.0] * len(problem.data)
    ranks = [0.0] * len(problem.tasks)
    for t in range(len(problem.tasks) - 1, -1, -1):
        task = problem.tasks[t]
        ranks[t] = mean[t] + max((after[x] for x in task.outputs), default=0.0)
        for x in task.inputs:
            cost = ranks[t] + latency + per_byte * problem.data[x].nbytes
            if cost > after[x]:
                after[x] = cost
    return ranks


def by_rank(problem: Problem, ranks: list[float]) -> list[int]:
    """The tasks by rank, largest first, each after those whose results it takes."""
    return sorted(range(len(ranks)), key=lambda t: (-ranks[t], t))


def what_follows(problem: Problem) -> list[list[float]]:
    """For each task and device: the time of everything that follows at best, if the task ran there (PEFT's table)."""
    count = len(problem.memory)
    latency = np.array([[0.0 if r is None else r.latency for r in row] for row in problem.routes])
    per_byte = np.array([[0.0 if r is None else r.per_byte for r in row] for row in problem.routes])
    table = np.zeros((len(problem.tasks), count))
    after = np.zeros((len(problem.data), count))
    for i, datum in enumerate(problem.data):
        if datum.end is not None:
            after[i] = latency[:, datum.end] + per_byte[:, datum.end] * datum.nbytes
    seconds = problem.seconds
    for t in range(len(problem.tasks) - 1, -1, -1):
        task = problem.tasks[t]
        for x in task.outputs:
            np.maximum(table[t], after[x], out=table[t])
        here = table[t] + seconds[t]
        for x in task.inputs:
            best = (latency + per_byte * problem.data[x].nbytes + here).min(axis=1)
            np.maximum(after[x], best, out=after[x])
    found: list[list[float]] = table.tolist()
    return found


def list_schedule(problem: Problem, order: list[int], ahead: list[list[float]] | None = None) -> Assignment:
    """Give each task, in this order, the device where it (and what follows, by `ahead`) ends first."""
    tasks, data, count = problem.tasks, problem.data, len(problem.memory)
    there: list[dict[int, float]] = [{} if a.home is None else {a.home: 0.0} for a in data]
    busy: list[list[tuple[float, float]]] = [[] for _ in range(count)]
    links: list[float] = [0.0] * problem.queues  # when each queue is free again
    pressure = _Pressure(problem)
    devices = [0] * len(tasks)
    starts: list[tuple[float, int]] = []
    for t in order:
        task = tasks[t]
        best = best_start = best_end = float("inf")
        chosen = -1
        for d in range(count):
            seconds = task.seconds[d]
            if seconds == float("inf"):
                continue
            ready = 0.0
            used: dict[int, float] = {}
            for x in task.inputs:
                at = there[x].get(d)
                if at is None:
                    at, queue = _arrival(problem, there[x], data[x].nbytes, d, links, used)
                    used[queue] = at
                if at > ready:
                    ready = at
            start = first_gap(busy[d], ready, seconds)
            end = start + seconds
            score = end + pressure.of(task, d)
            if ahead is not None:
                score += ahead[t][d]
            else:
                for x in task.outputs:
                    where = data[x].end
                    if where is not None and where != d:
                        route = problem.routes[d][where]
                        assert route is not None
                        score = max(score, end + route.seconds(data[x].nbytes))
            if chosen < 0 or score < best or (score == best and end < best_end):
                best, best_start, best_end, chosen = score, start, end, d
        devices[t] = chosen
        for x in task.inputs:
            if chosen not in there[x]:
                at, queue = _arrival(problem, there[x], data[x].nbytes, chosen, links, {})
                links[queue] = there[x][chosen] = at
        _insert(busy[chosen], best_start, best_end)
        for x in task.outputs:
            there[x][chosen] = best_end
        pressure.note(t, chosen)
        starts.append((best_start, t))
    return tuple(devices), order_by(starts) if _follows(problem, order) else list(order)


def _follows(problem: Problem, order: list[int]) -> bool:
    """Whether sorting by start keeps every task after those whose results it takes; a task of no time might not."""
    return all(min(problem.tasks[t].seconds) > 0 for t in order)


def _arrival(
    problem: Problem, places: dict[int, float], nbytes: int, d: int, links: list[float], used: dict[int, float]
) -> tuple[float, int]:
    """When a copy started as soon as possible would be on `d`, and the queue that it takes."""
    best, taken = float("inf"), -1
    for source, at in places.items():
        route = problem.routes[source][d]
        if route is None:
            continue
        end = max(at, links[route.queue], used.get(route.queue, 0.0)) + route.latency + route.per_byte * nbytes
        if end < best:
            best, taken = end, route.queue
    return best, taken


def _insert(busy: list[tuple[float, float]], start: float, end: float) -> None:
    """Note an interval; those without a gap between them are kept as one, so that looking for gaps stays quick."""
    i = bisect_right(busy, (start, end))
    if i and busy[i - 1][1] == start:
        i -= 1
        busy[i] = busy[i][0], end
    else:
        busy.insert(i, (start, end))
    if i + 1 < len(busy) and busy[i + 1][0] == end:
        busy[i] = busy[i][0], busy.pop(i + 1)[1]


class _Pressure:
    """How much of what is alive a device would have to push out, as seconds on the way to the host and back."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.watched = any(problem.tight)
        self.used = [0] * len(problem.memory)
        self.left = [len(c) for c in problem.consumers]
        self.where: list[int] = [-1] * len(problem.data)
        for i, x in enumerate(problem.data):
            if x.home is not None:
                self.used[x.home] += x.nbytes
                self.where[i] = x.home

    def of(self, task: Task, d: int) -> float:
        """Seconds to add to the end of a task on `d`."""
        problem = self.problem
        if not self.watched or not problem.tight[d] or d == problem.host:
            return 0.0
        over = self.used[d] + sum(problem.data[x].nbytes for x in task.outputs) - problem.memory[d]
        if over <= 0:
            return 0.0
        route = problem.routes[d][problem.host]
        assert route is not None
        return 2 * (route.latency + over * route.per_byte)

    def note(self, t: int, d: int) -> None:
        """A task was given a device."""
        if not self.watched:
            return
        problem = self.problem
        for x in problem.tasks[t].outputs:
            self.used[d] += problem.data[x].nbytes
            self.where[x] = d
        for x in dict.fromkeys(problem.tasks[t].inputs):
            self.left[x] -= 1
            if not self.left[x] and problem.data[x].home is None:
                self.used[self.where[x]] -= problem.data[x].nbytes
