"""Times calls where they will run: several of one kind in a compiled plan, each on numbers of its own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

import numpy as np

from hal.decision import decision_for
from hal.device import Device
from hal.errors import HalError, OutOfMemoryError
from hal.graph.arenas import Arenas
from hal.graph.graph import Graph, Group
from hal.graph.planner import plan_of
from hal.plugin import Buffer
from hal.schedule.calls import Call
from hal.spec import Spec

PATIENCE = 0.0005  # seconds for which each plan is repeated
ROUNDS = 2  # of that
MOST = 4096  # repetitions
WARM = 4  # calls of a plan after the first until it runs as it will: launches are recorded
ENOUGH = 0.01  # seconds after which nothing is called again
COPIES, FEW, MUCH = 8, 3, 3_000_000  # calls in a plan, and in one whose calls have so many operations


class Bench:
    """A device, with memory that all plans use one after another.

    Attributes:
        device: on which things are timed.
        arenas: of the plans.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.arenas = Arenas()
        self._buffers: dict[Spec, list[Buffer]] = {}
        self._rng = np.random.default_rng(0)

    def takes(self, call: Call) -> bool:
        """Whether the device has kernels of its own for a call."""
        try:
            node = call.on(self.device)
        except HalError:  # an op of a plugin that wants other inputs than most
            return False
        for n in node.op.graph.nodes if isinstance(node.op, Group) else (node,):
            assert not isinstance(n.op, Group)
            if not {v.spec.dtype for v in (*n.inputs, *n.outputs)} <= self.device.backend.dtypes:
                return False
            if decision_for(n.op, self.device, tuple(x.spec for x in n.inputs), dict(n.settings)).kernel is None:
                return False
        return True

    def buffers(self, specs: Sequence[Spec]) -> list[Buffer]:
        """Another buffer for each spec; where there is no room, what earlier plans used is given back."""
        try:
            return self._taken(specs)
        except OutOfMemoryError:
            self._buffers.clear()
            return self._taken(specs)

    def _taken(self, specs: Sequence[Spec]) -> list[Buffer]:
        taken: Counter[Spec] = Counter()
        given = []
        for spec in specs:
            found = self._buffers.setdefault(spec, [])
            if taken[spec] == len(found):
                found.append(self._new(spec))
            given.append(found[taken[spec]])
            taken[spec] += 1
        return given

    def _new(self, spec: Spec) -> Buffer:
        """Real numbers between 0 and 1, or integers that index 8 of something."""
        real = spec.dtype.is_inexact
        array = self._rng.uniform(0.1, 0.9, spec.shape) if real else self._rng.integers(0, 8, spec.shape)
        return self.device.backend.upload(np.asarray(array, spec.dtype.numpy), self.device)


class Timed:
    """A plan of a small call, and of some calls of another kind if one is given.

    Attributes:
        copies: how many calls of that kind.
        cost: operations and bytes of each.
        seconds: the least that the plan took; infinite if there never was room for it.
    """

    def __init__(self, bench: Bench, small: Call, call: Call | None = None) -> None:
        self.bench = bench
        self.copies, self.cost = 0, (0, 0)
        nodes = [small.on(bench.device)]
        if call is not None:
            nodes.append(call.on(bench.device))
            whole = nodes[-1].cost
            count = COPIES if whole.flops < MUCH else FEW
            self.copies = count * call.parts
            self.cost = whole.flops // call.parts, whole.bytes // call.parts
            nodes += [call.on(bench.device) for _ in range(count - 1)]
        inputs = tuple(x for n in nodes for x in n.inputs)
        self.plan = plan_of(Graph(inputs, tuple(nodes), nodes[-1].outputs), bench.arenas)
        self.seconds = inf
        self._calls = 1  # of the plan, that are timed together

    def measure(self) -> None:
        """Run it for a while."""
        backend, device = self.bench.device.backend, self.bench.device
        wait = partial(backend.synchronize, device)
        try:
            run = partial(self.plan.run, *self.bench.buffers([v.spec for v in self.plan.graph.inputs]))
            if self.seconds == inf:
                _warm(run, wait)
            found = least_time(run, wait, self._calls)
        except OutOfMemoryError:  # at the moment, perhaps
            return
        self.seconds, self._calls = min(self.seconds, found[0]), found[1]


def _warm(call: Callable[[], object], wait: Callable[[], None]) -> None:
    """Call until calls run as they will; where they take long, what is gained by that is nothing."""
    call()
    wait()
    start = time.perf_counter()
    for _ in range(WARM):
        if time.perf_counter() - start < ENOUGH:
            call()
            wait()


def least_time(call: Callable[[], object], wait: Callable[[], None], calls: int = 1) -> tuple[float, int]:
    """The least time of a call, and how many have to follow each other to be timed."""
    call()
    wait()
    best, first = inf, time.perf_counter()
    for _ in range(ROUNDS):
        while time.perf_counter() - first < ENOUGH:
            start = time.perf_counter()
            for _ in range(calls):
                call()
            wait()
            seconds = time.perf_counter() - start
            best = min(best, seconds / calls)
            if seconds >= PATIENCE or calls >= MOST:
                break
            calls *= 2
    return best, calls
