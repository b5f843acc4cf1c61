"""Places the tasks of a problem: the best of several list schedules, then improved by moving tasks one by one.

The answer is never worse than leaving everything where it is, or on the best single device. Improving has a budget in
laid-out tasks, so small problems are searched nearly through, and large ones take a time that grows with their size.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hal.schedule.layout import DoesNotFit, Layout, lay_out, makespan
from hal.schedule.listing import Assignment, by_rank, list_schedule, upward_ranks, what_follows
from hal.schedule.problem import NEVER, Problem

BUDGET = 60_000  # tasks laid out while improving
TRIES = 2_000  # layouts that are tried at most
FEWEST = 10  # tries below which none is made: one move among thousands of tasks changes nothing
SHAKEN = 50  # tasks that are moved at random before beginning again, at most
FEW = 200  # tasks up to which more starts are tried
WORTH = 0.97  # several devices must be predicted to take at most this share of the time of one


@dataclass(frozen=True)
class Choice:
    """A candidate and what it was predicted to take."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Placement:
    """What was chosen, and what else was thought of.

    Attributes:
        layout: every step with its time.
        name: which candidate it came from.
        choices: all candidates.
    """

    layout: Layout
    name: str
    choices: tuple[Choice, ...]

    def __repr__(self) -> str:
        return f"<placement {self.name}: {self.layout.seconds:.3g} s, of {len(self.choices)} candidates>"


def place(problem: Problem, names: Sequence[str] | None = None) -> Placement:
    """The best placement that is found.

    Args:
        names: of the devices, for the names of candidates.

    Raises:
        DoesNotFit: no candidate does.
    """
    if not problem.tasks:
        return Placement(lay_out(problem, (), ()), "nothing to run", ())
    names = names or [str(d) for d in range(len(problem.memory))]
    found: dict[str, tuple[float, Assignment]] = {}
    failure: DoesNotFit | None = None
    for name, (devices, order) in _candidates(problem, names):
        try:
            found[name] = lay_out(problem, devices, order).seconds, (devices, order)
        except DoesNotFit as error:
            failure = error
    if not found:
        assert failure is not None
        raise failure
    name = min(found, key=lambda n: found[n][0])
    seconds, assignment = found[name]
    improved = _Improving(problem, assignment, seconds)
    improved.run()
    if improved.seconds < seconds:
        found["improved"] = improved.seconds, improved.assignment
    name = _preferred(found)
    return Placement(lay_out(problem, *found[name][1]), name, tuple(Choice(n, s) for n, (s, _) in found.items()))


def _preferred(found: dict[str, tuple[float, Assignment]]) -> str:
    """The quickest; but one device, and what was there before, if others bring next to nothing: predictions err."""
    name = min(found, key=lambda n: found[n][0])
    alone = [n for n, (_, (devices, _)) in found.items() if len(set(devices)) == 1]
    for others in (alone, ["follow"] if "follow" in found else []):
        best = min(others, key=lambda n: found[n][0], default=name)
        if found[name][0] > WORTH * found[best][0]:
            name = best
    return name


def _candidates(problem: Problem, names: Sequence[str]) -> Iterator[tuple[str, Assignment]]:
    first = list(range(len(problem.tasks)))
    if problem.given is not None:
        yield "follow", (problem.given, first)
    totals = []
    for d in range(len(names)):
        fixed = mostly(problem, d)
        totals.append((sum(task.seconds[e] for task, e in zip(problem.tasks, fixed, strict=True)), d, fixed))
    totals.sort()
    few = len(problem.tasks) <= FEW
    for _, d, fixed in totals if few else totals[:2]:
        yield f"all on {names[d]}", (fixed, first)
    if len(names) == 1:
        return
    ahead = what_follows(problem)
    for weight in (1.0, 0.3, 3.0) if few else (1.0,):
        order = by_rank(problem, upward_ranks(problem, weight))
        yield f"earliest finish (copies x {weight:g})", list_schedule(problem, order)
        yield f"looking ahead (copies x {weight:g})", list_schedule(problem, order, ahead)


def mostly(problem: Problem, d: int) -> tuple[int, ...]:
    """Everything on one device, except what it cannot run: that goes where it is quickest."""
    return tuple(
        d if task.seconds[d] < NEVER else min(range(len(task.seconds)), key=task.seconds.__getitem__)
        for task in problem.tasks
    )


class _Improving:
    """Moves tasks to other devices and other places in the order, and keeps what makes the whole quicker."""

    def __init__(self, problem: Problem, assignment: Assignment, seconds: float) -> None:
        self.problem = problem
        self.assignment, self.seconds = assignment, seconds
        self.left = min(TRIES, BUDGET // len(problem.tasks)) // (8 if any(problem.tight) else 1)  # memory takes longer
        self.random = random.Random(0)

    def run(self) -> None:
        """Until the budget is spent: improve what there is, then begin again from it, shaken."""
        if len(self.problem.memory) == 1 or self.left < FEWEST:
            return
        present, seconds = self.assignment, self.seconds
        while self.left > 0:
            present, seconds = self._climb(present, seconds)
            if seconds < self.seconds:
                self.assignment, self.seconds = present, seconds
            if self.left <= 0:
                return
            present = self._shaken(self.assignment)
            seconds = self._time(present)

    def _climb(self, present: Assignment, seconds: float) -> tuple[Assignment, float]:
        better = True
        while better and self.left > 0:
            better = False
            for moved in self._moves(present):
                if self.left <= 0:
                    break
                time = self._time(moved)
                if time < seconds * (1 - 1e-12):
                    present, seconds, better = moved, time, True
                    break
        return present, seconds

    def _time(self, assignment: Assignment) -> float:
        self.left -= 1
        return makespan(self.problem, *assignment)

    def _moves(self, present: Assignment) -> Iterator[Assignment]:
        """Other devices for single tasks and for a task with its neighbours, and other places in the order."""
        devices, order = present
        tasks = list(range(len(devices)))
        self.random.shuffle(tasks)
        for t in tasks:
            for d in self._others(t, devices[t]):
                yield _with(devices, {t: d}), order
                near = self._near(t)
                yield _with(devices, {u: d for u in (t, *near) if self.problem.tasks[u].seconds[d] < NEVER}), order
            low, high = self._range(order, t)
            at = order.index(t)
            for to in {low, high, self.random.randint(low, high)} - {at}:
                yield devices, _reordered(order, at, to)

    def _others(self, t: int, d: int) -> list[int]:
        return [e for e, s in enumerate(self.problem.tasks[t].seconds) if e != d and s < NEVER]

    def _near(self, t: int) -> list[int]:
        task = self.problem.tasks[t]
        before = [self.problem.producer[x] for x in task.inputs if self.problem.producer[x] >= 0]
        return before + [u for x in task.outputs for u in self.problem.consumers[x]]

    def _range(self, order: list[int], t: int) -> tuple[int, int]:
        """The first and last place in the order that a task can have."""
        at = order.index(t)
        task = self.problem.tasks[t]
        before = {self.problem.producer[x] for x in task.inputs}
        after = {u for x in task.outputs for u in self.problem.consumers[x]}
        low = at
        while low > 0 and order[low - 1] not in before:
            low -= 1
        high = at
        while high < len(order) - 1 and order[high + 1] not in after:
            high += 1
        return low, high

    def _shaken(self, present: Assignment) -> Assignment:
        devices, order = present
        for _ in range(min(SHAKEN, max(2, len(order) // 4))):
            t = self.random.randrange(len(devices))
            others = self._others(t, devices[t])
            if others:
                devices = _with(devices, {t: self.random.choice(others)})
            low, high = self._range(order, t)
            order = _reordered(order, order.index(t), self.random.randint(low, high))
        return devices, order


def _with(devices: tuple[int, ...], changes: dict[int, int]) -> tuple[int, ...]:
    changed = list(devices)
    for t, d in changes.items():
        changed[t] = d
    return tuple(changed)


def _reordered(order: list[int], at: int, to: int) -> list[int]:
    changed = list(order)
    changed.insert(to, changed.pop(at))
    return changed
