"""What the scheduler is asked, in numbers only: tasks, the data between them, devices with memory, links with queues.

Devices, data and tasks are known by their places in tuples, so that nothing of ops, graphs or backends matters here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

NEVER = math.inf  # seconds of a task on a device that cannot run it
ROUNDS = 60  # of improving a lower bound


@dataclass(frozen=True)
class Datum:
    """One array.

    Attributes:
        nbytes: its size.
        home: the device where it is before anything ran, and stays; None if a task makes it.
        end: the device where it must be when everything ran; None if nobody asks for it then.
    """

    nbytes: int
    home: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class Task:
    """A piece of work.

    Attributes:
        seconds: what it takes on each device; `NEVER` where it cannot run.
        inputs, outputs: places of data.
        scratch: bytes that it needs besides, while it runs.
    """

    seconds: tuple[float, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scratch: int = 0


@dataclass(frozen=True)
class Route:
    """The way from one device to another.

    Attributes:
        latency: seconds that any copy takes.
        per_byte: seconds for each byte.
        queue: copies of one queue follow each other; routes that share a wire share a queue.
    """

    latency: float
    per_byte: float
    queue: int

    def seconds(self, nbytes: int) -> float:
        """What a copy takes."""
        return self.latency + self.per_byte * nbytes


@dataclass(frozen=True)
class Problem:
    """Tasks in an order in which they can run, and what they run on.

    Attributes:
        tasks, data: see there.
        memory: bytes that each device holds; infinite where there is no limit.
        routes: `routes[source][target]`; None on the diagonal.
        host: the device that takes what others have no room for.
        given: the devices that the tasks have before anybody thinks about it, the first answer to try.
    """

    tasks: tuple[Task, ...]
    data: tuple[Datum, ...]
    memory: tuple[float, ...]
    routes: tuple[tuple[Route | None, ...], ...]
    host: int = 0
    given: tuple[int, ...] | None = None

    @cached_property
    def consumers(self) -> list[list[int]]:
        """For each datum the tasks that take it."""
        found: list[list[int]] = [[] for _ in self.data]
        for t, task in enumerate(self.tasks):
            for x in dict.fromkeys(task.inputs):
                found[x].append(t)
        return found

    @cached_property
    def producer(self) -> list[int]:
        """For each datum the task that makes it; -1 if none does."""
        found = [-1] * len(self.data)
        for t, task in enumerate(self.tasks):
            for x in task.outputs:
                found[x] = t
        return found

    @cached_property
    def seconds(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """The seconds of all tasks on all devices, as an array."""
        return np.array([t.seconds for t in self.tasks], np.float64).reshape(len(self.tasks), len(self.memory))

    @cached_property
    def queues(self) -> int:
        """Number of queues of links."""
        return 1 + max((r.queue for row in self.routes for r in row if r is not None), default=-1)

    @cached_property
    def tight(self) -> tuple[bool, ...]:
        """For each device whether all data together might not fit, so that memory needs watching."""
        whole = sum(x.nbytes for x in self.data) + max((t.scratch for t in self.tasks), default=0)
        return tuple(whole > limit for limit in self.memory)


def uniform_routes(devices: int, latency: float, bandwidth: float) -> tuple[tuple[Route | None, ...], ...]:
    """A link of its own in each direction between any two of `devices`, all alike (bandwidth in bytes per second)."""
    rows, queue = [], 0
    for a in range(devices):
        row: list[Route | None] = []
        for b in range(devices):
            row.append(None if a == b else Route(latency, 1 / bandwidth, queue))
            queue += a != b
        rows.append(tuple(row))
    return tuple(rows)


def lower_bound(problem: Problem) -> float:
    """Seconds that no schedule can beat: the longest chain at its fastest, and all the work shared without loss.

    The second is the fractional bound for unrelated machines: for any weights of the devices that add up to one, the
    sum over tasks of the least weighted seconds. The weights are improved by multiplicative steps.
    """
    if not problem.tasks:
        return 0.0
    seconds = problem.seconds
    fastest = seconds.min(axis=1)
    done = [0.0] * len(problem.data)
    longest = 0.0
    for t, task in enumerate(problem.tasks):
        end = max((done[x] for x in task.inputs), default=0.0) + float(fastest[t])
        for x in task.outputs:
            done[x] = end
        longest = max(longest, end)
    return max(longest, _shared(seconds))


def _shared(seconds: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> float:
    devices = seconds.shape[1]
    finite = np.where(np.isfinite(seconds), seconds, 1e30)
    weights = np.full(devices, 1 / devices)
    best = 0.0
    for i in range(ROUNDS):
        weighted = finite * weights
        choice = weighted.argmin(axis=1)
        best = max(best, float(weighted[np.arange(len(choice)), choice].sum()))
        load = np.bincount(choice, weights=finite[np.arange(len(choice)), choice], minlength=devices)
        most = load.max()
        if not most:
            break
        weights = weights * np.exp(load / most / (i + 1) ** 0.5)
        weights = weights / weights.sum()
    return best


def order_by(starts: Iterable[tuple[float, int]]) -> list[int]:
    """Tasks by when they start; those that start at one moment as they came."""
    return [t for _, t in sorted(starts)]
