"""From a device for each task and an order to every step with its time: runs, copies, what a full device pushes out.

A datum is copied to a device once, and used from there for as long as it is not pushed out. Copies start as soon as
the datum is there and the link has a gap, long before the task that wants them.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hal.errors import OutOfMemoryError
from hal.schedule.problem import Problem

RUN, COPY, EVICT = "run", "copy", "evict"


class Step(NamedTuple):
    """One thing that happens.

    Attributes:
        kind: `run` a task, `copy` a datum, or `evict` it: copy it to the host because its device is full.
        what: the task, or the datum.
        device: where it runs or goes to.
        source: where a copy comes from; -1 for a run.
        start, end: in seconds from the start.
        after: steps (by place in the order of the layout) that must be done before, since they make the room.
    """

    kind: str
    what: int
    device: int
    source: int
    start: float
    end: float
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Layout:
    """What happens where and when.

    Attributes:
        devices: of each task.
        steps: in an order in which they can be carried out one by one, within the memory of every device.
        seconds: when the last one ends.
    """

    devices: tuple[int, ...]
    steps: tuple[Step, ...]
    seconds: float

    @property
    def order(self) -> list[int]:
        """The tasks in the order of their steps."""
        return [s.what for s in self.steps if s.kind == RUN]


class DoesNotFit(OutOfMemoryError):
    """A task needs more at once than its device holds."""

    def __init__(self, message: str, task: int, device: int, need: int) -> None:
        super().__init__(message)
        self.task, self.device, self.need = task, device, need


def lay_out(problem: Problem, devices: Sequence[int], order: Sequence[int]) -> Layout:
    """Time every task on its device in this order, with the copies that this takes.

    Raises:
        DoesNotFit: a task and what it needs at once are larger than the memory of its device.
    """
    if any(problem.tight[d] for d in {*devices, *(x.home for x in problem.data if x.home is not None)}):
        from hal.schedule.memory import within_memory  # the same, watching memory: it builds on what is here

        return within_memory(problem, devices, order)
    return _freely(problem, devices, order)


def makespan(problem: Problem, devices: Sequence[int], order: Sequence[int]) -> float:
    """The seconds that `lay_out` finds; infinite where it does not fit."""
    try:
        return lay_out(problem, devices, order).seconds
    except DoesNotFit:
        return float("inf")


def _freely(problem: Problem, devices: Sequence[int], order: Sequence[int]) -> Layout:
    tasks, data = problem.tasks, problem.data
    there: list[dict[int, float]] = [{} if a.home is None else {a.home: 0.0} for a in data]
    free = [0.0] * len(problem.memory)
    links = Links(problem)
    steps: list[Step] = []
    for t in order:
        task, d = tasks[t], devices[t]
        start = free[d]
        for x in task.inputs:
            places = there[x]
            at = places.get(d)
            if at is None:
                source, begin, at = links.bring(x, places, d)
                places[d] = at
                steps.append(Step(COPY, x, d, source, begin, at))
            if at > start:
                start = at
        end = start + task.seconds[d]
        free[d] = end
        for x in task.outputs:
            there[x][d] = end
        steps.append(Step(RUN, t, d, -1, start, end))
    for x, datum in enumerate(data):
        if datum.end is not None and datum.end not in there[x]:
            source, begin, at = links.bring(x, there[x], datum.end)
            steps.append(Step(COPY, x, datum.end, source, begin, at))
    steps.sort(key=_when)  # stable: of steps that start together, those that others wait for come first
    return Layout(tuple(devices), tuple(steps), max((s.end for s in steps), default=0.0))


def _when(step: Step) -> float:
    return step.start


class Links:
    """What is under way on each link."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._busy: list[list[tuple[float, float]]] = [[] for _ in range(problem.queues)]

    def bring(self, x: int, places: dict[int, float], target: int, earliest: float = 0.0) -> tuple[int, float, float]:
        """Copy a datum to `target` from where it gets there first: that device, the start and the end."""
        nbytes = self._problem.data[x].nbytes
        best: tuple[float, float, int] | None = None
        for source, at in places.items():
            route = self._problem.routes[source][target]
            if route is None:
                continue
            seconds = route.latency + route.per_byte * nbytes
            start = first_gap(self._busy[route.queue], max(at, earliest), seconds)
            if best is None or start + seconds < best[0]:
                best = start + seconds, start, source
        assert best is not None, "a datum is wanted that nothing makes"
        end, start, source = best
        route = self._problem.routes[source][target]
        assert route is not None
        insort(self._busy[route.queue], (start, end))
        return source, start, end


def first_gap(busy: Sequence[tuple[float, float]], ready: float, seconds: float) -> float:
    """The first moment from `ready` on at which a queue that is busy from and until these has nothing to do so long."""
    if not busy or busy[-1][1] <= ready:
        return ready
    i = bisect_right(busy, (ready, float("inf")))
    start = max(ready, busy[i - 1][1]) if i else ready
    while i < len(busy) and busy[i][0] < start + seconds:
        start = busy[i][1]
        i += 1
    return start
