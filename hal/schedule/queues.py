"""Runs a plan of several devices with a queue for each device and each link, so that copies and work overlap.

A queue is a thread that takes its steps in the order of the plan. A step waits for the steps of other queues that made
what it takes, and for those that must have given memory back. Kernels of devices with queues of their own return at
once; NumPy computes without Python's lock. Results do not depend on who is first, so they are those of the plan run
step by step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from queue import SimpleQueue
from typing import Any

from hal.device import Device
from hal.graph.graph import COPY, Value
from hal.graph.plan import Plan, Step
from hal.graph.planner import explained
from hal.policy import copies, fallback
from hal.schedule.memory import Room

Queue = tuple[Device, Device]  # of a device with itself: its kernels; of two: the link from one to the other


def overlapped(plan: Plan) -> Plan:
    """The same plan with queues that run apart. Of one device alone it is given back as it is."""
    if len({queue_of(step) for step in plan.steps}) < 2:
        return plan
    return replace(plan, run=_Queues(plan).run, memory={})  # an arena would tie steps together that may overlap


def runs_apart(plan: Plan) -> bool:
    """Whether the plan was given queues."""
    return isinstance(getattr(plan.run, "__self__", None), _Queues)


def queue_of(step: Step) -> Queue:
    """Where a step waits for its turn."""
    if step.node.op is COPY:
        return step.node.inputs[0].device, step.node.device
    return step.device, step.device


class _Worker:
    """A thread that does what it is given, one thing after another, until nobody has it any more."""

    def __init__(self, name: str) -> None:
        self.given: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        thread = threading.Thread(target=_work, args=(self.given,), name=f"hal: {name}", daemon=True)
        thread.start()

    def __del__(self) -> None:
        self.given.put(None)


def _work(given: SimpleQueue[Callable[[], None] | None]) -> None:
    while (task := given.get()) is not None:
        task()
        del task


class _Queues:
    def __init__(self, plan: Plan) -> None:
        self.graph, self.steps = plan.graph, plan.steps
        self.single = [step.node.single for step in plan.steps]
        self.constants = {v: t.buffer for v, t in self.graph.constants.items()}
        self.overwritten = {new: old for old, new in self.graph.updates.items() if old in plan.in_place}
        self.queues: dict[Queue, list[int]] = {}
        for i, step in enumerate(plan.steps):
            self.queues.setdefault(queue_of(step), []).append(i)
        self.waits = self._waits()
        self.signals = {j for waits in self.waits for j in waits}
        kept = {*self.graph.results, *self.graph.inputs, *self.constants}
        self.uses: dict[Value, int] = {}
        for step in plan.steps:
            for x in dict.fromkeys((*step.node.inputs, *step.node.outputs)):
                if x not in kept:
                    self.uses[x] = self.uses.get(x, 0) + 1
        self.mine = max(self.queues, key=lambda q: len(self.queues[q]))  # runs in the thread of the caller
        self.workers = {q: _Worker(f"{q[0]} to {q[1]}" if q[0] is not q[1] else str(q[0])) for q in self.queues}
        del self.workers[self.mine]

    def _waits(self) -> list[tuple[int, ...]]:
        """For each step the steps of other queues that must be done before it."""
        maker = {o: i for i, step in enumerate(self.steps) for o in step.node.outputs}
        last: dict[Value, dict[int, int]] = {}  # of each value: the last steps that touch it, by queue
        numbers = {q: n for n, q in enumerate(self.queues)}
        number = [numbers[queue_of(step)] for step in self.steps]
        for i, step in enumerate(self.steps):
            for x in (*step.node.inputs, *step.node.outputs):
                last.setdefault(x, {})[number[i]] = i
        ends: dict[int, list[Value]] = {}
        for x in maker:
            if x not in self.graph.results:
                ends.setdefault(max(last[x].values()), []).append(x)
        rooms: dict[Device, Room] = {}
        for device in {d for q in self.queues for d in q}:
            held = [v for v in (*self.graph.inputs, *self.constants) if v.device is device]
            held += [v for v in self.graph.outputs if v.device is device]  # of the call before
            limit = device.backend.max_memory(device)
            rooms[device] = Room(inf if limit is None else limit, sum(v.spec.nbytes for v in held))
        found = []
        for i, step in enumerate(self.steps):
            before = {maker[x] for x in step.node.inputs if x in maker}
            before.update(rooms[step.device].take(sum(o.spec.nbytes for o in step.node.outputs)))
            if self.overwritten and i == len(self.steps) - 1:  # it changes state: everything else has succeeded
                before.update(steps[-1] for steps in self.queues.values())
            newest: dict[int, int] = {}
            for j in before:
                if number[j] != number[i]:
                    newest[number[j]] = max(j, newest.get(number[j], -1))
            found.append(tuple(newest.values()))
            for x in ends.get(i, ()):
                rooms[x.device].give(x.spec.nbytes, 0.0, last[x])
        return found

    def run(self, *inputs: Any) -> tuple[Any, ...]:
        """The buffers of the graph's results, given those of its inputs.

        Raises:
            DeviceError: a kernel failed; the message names the op, the device and the user's line.
        """
        call = _Call(self, inputs)
        for queue, worker in self.workers.items():
            worker.given.put(call.of(self.queues[queue]))
        call.of(self.queues[self.mine])()
        for _ in self.queues:
            call.ended.acquire()
        buffers, failed = dict(call.buffers), call.failed
        call.buffers.clear()  # a worker may hold the call for a moment longer, and must hold no memory
        call.failed = None
        if failed is not None:
            buffers.clear()
            step, error = failed
            better = explained(error, step)
            try:
                raise better from (None if better is error else error)
            finally:
                del failed, error, better  # or the error would hold this frame, and so itself
        return tuple([buffers[v] for v in self.graph.results])


class _Call:
    """One run of a plan: what is there, who waits for what, and what went wrong first."""

    def __init__(self, queues: _Queues, inputs: Sequence[Any]) -> None:
        self.queues = queues
        self.buffers: dict[Value, Any] = {**dict(zip(queues.graph.inputs, inputs, strict=True)), **queues.constants}
        self.left = {x: [None] * count for x, count in queues.uses.items()}
        self.gates = {i: threading.Lock() for i in queues.signals}
        for gate in self.gates.values():
            gate.acquire()
        self.failed: tuple[Step, Exception] | None = None
        self.ended = threading.Semaphore(0)
        self.policies = fallback.current(), copies.current()

    def of(self, steps: list[int]) -> Callable[[], None]:
        """The work of one queue."""

        def work() -> None:
            try:
                with fallback(self.policies[0]), copies(self.policies[1]):
                    for i in steps:
                        self._step(i)
            finally:
                self.ended.release()

        return work

    def _step(self, i: int) -> None:
        for j in self.queues.waits[i]:
            with self.gates[j]:
                pass
        if self.failed is None:
            self._run(i)
        gate = self.gates.get(i)
        if gate is not None:  # also if it failed: who waits must go on, and see that
            gate.release()

    def _run(self, i: int) -> None:
        queues, step = self.queues, self.queues.steps[i]
        node, buffers = step.node, self.buffers
        settings = step.settings
        if any(o in queues.overwritten for o in node.outputs):
            outs = [buffers[queues.overwritten[o]] if o in queues.overwritten else None for o in node.outputs]
            settings = {**settings, "out": tuple(outs)}
        try:
            result = step.call(*[buffers[x] for x in node.inputs], **settings)
            for out, buffer in zip(node.outputs, (result,) if queues.single[i] else result, strict=True):
                buffers[out] = buffer
        except Exception as error:
            self.failed = self.failed or (step, error)
            return
        result = buffer = None  # or they would keep memory that somebody waits for
        for x in dict.fromkeys((*node.inputs, *node.outputs)):
            tokens = self.left.get(x)
            if tokens is not None:
                tokens.pop()
                if not tokens:
                    buffers.pop(x, None)
