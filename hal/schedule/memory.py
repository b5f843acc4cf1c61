"""Lays tasks out on devices whose memory may not hold everything: what is needed last makes room, by way of the host.

What a task finds on its device was copied there, or made there, and not pushed out since. A step that takes memory
names the steps that must have given it back before, so that queues may run apart and still stay within the limit.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence

from hal.schedule.layout import COPY, EVICT, RUN, DoesNotFit, Layout, Links, Step
from hal.schedule.problem import Problem

NO_USE = float("inf")


def within_memory(problem: Problem, devices: Sequence[int], order: Sequence[int]) -> Layout:
    """Time every task on its device in this order; no device ever holds more than its memory.

    Raises:
        DoesNotFit: a task and what it needs at once are larger than the memory of its device.
    """
    return _Fitting(problem, devices, order).layout()


class Room:
    """The memory of one device: what was taken and what was given back, in the order of the steps."""

    def __init__(self, limit: float, used: int) -> None:
        self.limit = limit
        self.used = used
        self._taken = used  # in all, as if nothing had been given back
        self._freed: deque[tuple[int, float, dict[int, int]]] = deque()  # bytes, when, and the last steps by queue
        self.since = 0.0  # when the memory that was needed so far was there
        self._after: dict[int, int] = {}

    def take(self, nbytes: int) -> tuple[int, ...]:
        """Take memory: the steps that must be done before, since it is theirs."""
        self.used += nbytes
        self._taken += nbytes
        while self._taken > self.limit and self._freed:
            given, when, steps = self._freed.popleft()
            self._taken -= given
            self.since = max(self.since, when)
            for queue, step in steps.items():
                self._after[queue] = max(step, self._after.get(queue, -1))
        return tuple(self._after.values())

    def give(self, nbytes: int, when: float, steps: dict[int, int]) -> None:
        """Give memory back, when these steps are done."""
        self.used -= nbytes
        self._freed.append((nbytes, when, steps))


class _Fitting:
    def __init__(self, problem: Problem, devices: Sequence[int], order: Sequence[int]) -> None:
        self.problem, self.devices, self.order = problem, devices, order
        self.links = Links(problem)
        self.steps: list[Step] = []
        self.free = [0.0] * len(problem.memory)
        self.there: list[dict[int, float]] = [{} if a.home is None else {a.home: 0.0} for a in problem.data]
        homes = [0] * len(problem.memory)
        for datum in problem.data:
            if datum.home is not None:
                homes[datum.home] += datum.nbytes
        self.rooms = [Room(limit, used) for limit, used in zip(problem.memory, homes, strict=True)]
        self.touched: dict[tuple[int, int], tuple[float, dict[int, int]]] = {}
        self.uses: dict[tuple[int, int], deque[int]] = {}
        self.left = [len(tasks) for tasks in problem.consumers]
        for position, t in enumerate(order):
            for x in dict.fromkeys(problem.tasks[t].inputs):
                self.uses.setdefault((x, devices[t]), deque()).append(position)
        self.next_out: list[list[tuple[float, int]]] = [[] for _ in problem.memory]  # heaps: used last comes first

    def layout(self) -> Layout:
        """All steps."""
        for t in self.order:
            self._run(t)
        ends = [(i, x.end) for i, x in enumerate(self.problem.data) if x.end is not None]
        for i, end in ends:
            if end not in self.there[i]:
                self._bring(i, end, {j for j, other in ends if other == end}, -1)
        return Layout(tuple(self.devices), tuple(self.steps), max((s.end for s in self.steps), default=0.0))

    def _run(self, t: int) -> None:
        task, d = self.problem.tasks[t], self.devices[t]
        own = {*task.inputs, *task.outputs}
        start = self.free[d]
        for x in task.inputs:
            at = self.there[x].get(d)
            start = max(start, self._bring(x, d, own, t) if at is None else at)
        room = self.rooms[d]
        new = [x for x in task.outputs if d not in self.there[x]]
        nbytes = sum(self.problem.data[x].nbytes for x in new) + task.scratch
        self._make_room(d, nbytes, own, t)
        after = room.take(nbytes)
        start = max(start, room.since)
        end = start + task.seconds[d]
        self.free[d] = end
        index = len(self.steps)
        self.steps.append(Step(RUN, t, d, -1, start, end, self._others(after, d)))
        for x in new:
            self.there[x][d] = end
        queue = -1 - d  # queues of devices have numbers of their own beside those of links
        if task.scratch:
            room.give(task.scratch, end, {queue: index})
        for x in dict.fromkeys(task.inputs):
            self.uses[x, d].popleft()
            self.left[x] -= 1
        for x in own:
            self._touch(x, d, end, queue, index)
        for x in own:
            self._home(x, own, t)
            self._let_go(x)

    def _home(self, x: int, own: set[int], task: int) -> None:
        """Bring what nobody needs any more to where it must be in the end, if it has memory to give back here."""
        end = self.problem.data[x].end
        if end is None or self.left[x] or end in self.there[x] or self.problem.tight[end]:
            return
        if any(self.problem.tight[d] for d in self.there[x]):
            self._bring(x, end, own, task)

    def _others(self, after: Iterable[int], device: int) -> tuple[int, ...]:
        """Without what runs on the same queue anyway."""
        return tuple(i for i in after if self.steps[i].kind != RUN or self.steps[i].device != device)

    def _bring(self, x: int, target: int, own: set[int], task: int, kind: str = COPY) -> float:
        nbytes = self.problem.data[x].nbytes
        self._make_room(target, nbytes, own, task)
        after = self.rooms[target].take(nbytes)
        source, start, end = self.links.bring(x, self.there[x], target, self.rooms[target].since)
        route = self.problem.routes[source][target]
        assert route is not None
        index = len(self.steps)
        self.steps.append(Step(kind, x, target, source, start, end, after))
        self.there[x][target] = end
        self._touch(x, target, end, route.queue, index)
        self._touch(x, source, end, route.queue, index)
        if kind == COPY:
            self._let_go(x, target)
        return end

    def _make_room(self, d: int, nbytes: int, own: set[int], task: int) -> None:
        room, kept = self.rooms[d], []
        while room.used + nbytes > room.limit:
            victim = None
            while self.next_out[d]:
                entry = heapq.heappop(self.next_out[d])
                x = entry[1]
                if d not in self.there[x] or -entry[0] != self._next_use(x, d):
                    continue
                if x in own:
                    kept.append(entry)
                    continue
                victim = x
                break
            if victim is None or (d == self.problem.host and len(self.there[victim]) == 1):
                raise DoesNotFit("a task does not fit", task, d, room.used + nbytes)
            if len(self.there[victim]) == 1:
                self._bring(victim, self.problem.host, own, task, EVICT)
            self._drop(victim, d)
        for entry in kept:
            heapq.heappush(self.next_out[d], entry)

    def _next_use(self, x: int, d: int) -> float:
        uses = self.uses.get((x, d))
        return uses[0] if uses else NO_USE

    def _touch(self, x: int, d: int, end: float, queue: int, index: int) -> None:
        when, steps = self.touched.get((x, d), (0.0, {}))
        self.touched[x, d] = max(when, end), {**steps, queue: index}
        if self.problem.tight[d] and self.problem.data[x].home != d:
            heapq.heappush(self.next_out[d], (-self._next_use(x, d), x))

    def _let_go(self, x: int, keep: int = -1) -> None:
        """Forget a datum where nobody wants it any more; where there is room only when nobody wants it anywhere."""
        end = self.problem.data[x].end
        wanted = self.left[x] > 0 or end is not None
        for d in list(self.there[x]):
            if d in (keep, end) or self.uses.get((x, d)):
                continue
            if not wanted or (len(self.there[x]) > 1 and self.problem.tight[d]):
                self._drop(x, d)

    def _drop(self, x: int, d: int) -> None:
        if self.problem.data[x].home == d:
            return
        del self.there[x][d]
        when, steps = self.touched.pop((x, d))
        self.rooms[d].give(self.problem.data[x].nbytes, when, steps)


def peaks(problem: Problem, layout: Layout) -> list[int]:
    """The most bytes that each device holds at once, if the steps are carried out one by one.

    A copy is alive from the step that makes it to the last one that uses it.
    """
    here: dict[tuple[int, int], int] = {}  # which life of a datum on a device is the present one
    last: dict[tuple[int, int, int], int] = {}
    born: dict[tuple[int, int, int], int] = {}
    for i, s in enumerate(layout.steps):
        if s.kind == RUN:
            task = problem.tasks[s.what]
            used, made = task.inputs, task.outputs
        else:
            used, made = (), (s.what,)
            last[s.what, s.source, here.get((s.what, s.source), 0)] = i
        for x in used:
            last[x, s.device, here.get((x, s.device), 0)] = i
        for x in made:
            life = here[x, s.device] = here.get((x, s.device), 0) + 1
            born[x, s.device, life] = last[x, s.device, life] = i
    for i, datum in enumerate(problem.data):
        if datum.end is not None and (life := here.get((i, datum.end), 0)):
            last[i, datum.end, life] = len(layout.steps)
    now = [sum(a.nbytes for a in problem.data if a.home == d) for d in range(len(problem.memory))]
    most = list(now)
    begins: dict[int, list[tuple[int, int]]] = {}
    ends: dict[int, list[tuple[int, int]]] = {}
    for key, at in born.items():
        if problem.data[key[0]].home != key[1]:
            begins.setdefault(at, []).append((key[1], problem.data[key[0]].nbytes))
            ends.setdefault(last[key], []).append((key[1], problem.data[key[0]].nbytes))
    for i, s in enumerate(layout.steps):
        for d, nbytes in begins.get(i, ()):
            now[d] += nbytes
        scratch = problem.tasks[s.what].scratch if s.kind == RUN else 0
        for d in range(len(now)):
            most[d] = max(most[d], now[d] + (scratch if d == s.device else 0))
        for d, nbytes in ends.get(i, ()):
            now[d] -= nbytes
    return most
