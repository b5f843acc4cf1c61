"""What runs for calls of one kind: a trace, its plans, and all that a call does besides running them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hal import report
from hal.device import Device
from hal.errors import GradientError
from hal.graph import plan as plans
from hal.graph.arenas import Arenas
from hal.graph.graph import Graph, Value
from hal.graph.host import Board
from hal.graph.inputs import NEW, Argument, Earlier, Enter, Source, State, entrance
from hal.graph.plan import Plan
from hal.graph.planner import plan_of
from hal.graph.rewrite import grouped, optimized, prepared, simplified
from hal.graph.structure import mapped
from hal.graph.trace import HostResult, Result, Trace
from hal.inplace import assign
from hal.op import Array
from hal.policy import placement
from hal.recording import Node as Recorded
from hal.recording import mode, no_grad
from hal.source import user_line
from hal.spec import Spec
from hal.tensor import Origin, Storage, Tensor, Waiting
from hal.transfer import upload


@dataclass(frozen=True)
class Options:
    """How to compile.

    Attributes:
        exact: leave out rewrites that may change how results are rounded.
        policy: where ops run: `follow`, as they would eagerly, or `auto`; None: as `hal.placement` says when a
            function is traced.
        fallback: run eagerly, each time, what cannot be traced.
        split: split what cannot be traced as a whole, where Python asks for the contents of a tensor.
        arenas: the memory that the plans share.
    """

    exact: bool = False
    policy: str | None = None
    fallback: bool = False
    split: bool = False
    arenas: Arenas = field(default_factory=Arenas, compare=False)


def policy_of(options: Options) -> str:
    """What decides where ops run: see `Options.policy`."""
    return options.policy or str(placement.current())


def planned(
    graph: Graph, options: Options, sources: Sequence[Source] = (), owners: Sequence[int] | None = None,
    free: int = 0, *, moves: bool = True,
) -> Plan:  # fmt: skip
    """The plan of a traced graph: rewritten, placed, and with its memory assigned.

    Args:
        sources: where its inputs come from, if it is run through an `entrance`.
        owners: for each output a number that those have in common which may share memory; others must not.
        free: how many outputs, the first ones, may be left on the device that made them.
        moves: whether state may move from where it lives now, and what is new in each call from where it comes.
    """
    given = list(zip(graph.inputs, sources, strict=False))
    earlier = {v for v, source in given if isinstance(source, Earlier)}
    if policy_of(options) == "follow":
        return plan_of(optimized(graph, options.exact, owners, earlier), options.arenas)
    from hal.schedule.offers import Freedom, offers  # most programs have no use for these
    from hal.schedule.placing import is_tight
    from hal.schedule.trial import best_of
    from hal.schedule.waiting import lives_on

    simple = simplified(graph, options.exact)

    def written_for(device: Device | None) -> Graph:
        return prepared(simple, options.exact, owners, earlier, device)

    def plan(placed: Graph) -> Plan:
        whole = placed if is_tight(placed) else grouped(placed, options.exact)  # in another order it might not fit
        return plan_of(whole, options.arenas)

    state = {v: lives_on(s.storage, v.device) for v, s in given if isinstance(s, State) and not s.storage.borrowed}
    new = [v for v, source in given if isinstance(source, NEW)]
    found = offers(written_for(None), Freedom(state, new, free, moves), written_for=written_for)
    with options.arenas.lock:  # some are tried
        return best_of(found, plan, {graph.inputs.index(v) for v in new})


def _runner(plan: Plan) -> Callable[..., Any]:
    """What runs a plan: itself, or a profile that notes its steps."""
    return plan.run if plans.timed is None else plans.timed(plan)


def on_host(buffer: Any, value: Value) -> Array:
    """The contents of a value, for which Python waits."""
    backend = value.device.backend
    if not backend.host_memory:
        report.note_sync("a split", value.device, value.spec.nbytes)
    return backend.download(buffer, value.spec)


_moving = threading.RLock()  # held by whoever moves state, until it has used it


class _Locks:
    """Two locks, one after another: `_moving`, and that of a function."""

    def __init__(self, lock: threading.RLock) -> None:
        self.lock = lock

    def __enter__(self) -> None:
        _moving.acquire()
        self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.lock.release()
        _moving.release()


class Entry:
    """A trace with its plans: what runs for calls of one kind."""

    def __init__(self, found: Trace, options: Options, who: str, board: Board | None = None) -> None:
        self.trace = found
        self.options = options
        self.who = who
        self.board = board or Board()
        self.backward = None if found.backward is None else planned(found.backward.graph, options)
        self.origin = Origin(1, user_line())
        self.specs = [(v.spec, v.device) for v in found.graph.outputs]
        self.draws = tuple(found.draws.items())
        self.lock = options.arenas.lock
        self.locks = _Locks(self.lock)
        self.holders: dict[Storage, list[Tensor]] = {}  # who would keep a buffer that was replaced
        for tensor, storage, _ in found.taken.tensors:
            if tensor.parent is None:
                self.holders.setdefault(storage, []).append(tensor)
        self.calls, self.moving, self.vain = 0, 0.0, 0  # since state was moved; seconds that took; times it did not pay
        self._plan(moves=True)

    def _plan(self, moves: bool) -> None:
        """Make the plan, for where state lives now, and all that depends on it."""
        found = self.trace
        kept = 0 if found.backward is None else found.backward.kept
        free = len(found.graph.outputs) - kept - len(found.reads)
        self.plan = plan = planned(found.graph, self.options, found.sources, found.owners, free, moves=moves)
        away = plan.graph.away
        Waiting.ever = Waiting.ever or bool(away)  # it may be asked for from now on
        self.aside = {i: v.device for i, v in enumerate(plan.graph.results) if v in away}
        inputs = list(zip(found.graph.inputs, plan.graph.inputs, found.sources, strict=True))
        source_of = {v: source for v, _, source in inputs}
        over = {v for v, taken, _ in inputs if taken in plan.in_place}
        self.updates = [
            (source_of[old], i, old.spec, old.device, self.aside.get(i))
            for i, old in enumerate(found.graph.updates, len(found.graph.outputs))
            if old not in over
        ]
        self.touched = [source.storage for v in over if isinstance(source := source_of[v], State)]
        state = [(source.storage, v.spec, v.device, p.device) for v, p, source in inputs if isinstance(source, State)]
        self.state = sorted(state, key=lambda one: one[2] is one[3])  # what goes away makes room for what comes back
        self.moves = moves and policy_of(self.options) != "follow"
        self.enter = self._entrance(plan.run)

    @property
    def plans(self) -> list[Plan]:
        """Its plans: of the call, and of its gradients."""
        return [self.plan] if self.backward is None else [self.plan, self.backward]

    @property
    def once(self) -> bool:
        """Whether it is good for one call only."""
        return self.trace.once

    def fits(self, leaves: Sequence[Tensor]) -> bool:
        """Whether all that the trace took for given still holds."""
        return self.trace.taken.holds(leaves)

    def call(self, leaves: Sequence[Tensor]) -> Any:
        """Replay on these arguments."""
        found = self.trace
        with self.locks if Waiting.ever else self.lock:
            if Waiting.ever:
                self._settle()
            enter = self.enter if plans.timed is None else self._entrance(plans.timed(self.plan))
            results = enter(leaves)
            numbers = self._host_results(results) if found.steps else []
            for generator, count in self.draws:
                generator.advance(count)
            for source, i, spec, where, aside in self.updates:
                self._update(source, leaves, results[i], spec, where, aside)
            for storage in self.touched:
                storage.version += 1
        outs = [Tensor(b, s, d, self.origin) for b, (s, d) in zip(results, self.specs)]  # noqa: B905  # then updates
        if self.aside:
            self._put_aside(outs)
        for new in found.gradients:
            leaf = leaves[new.leaf] if isinstance(new.leaf, int) else new.leaf
            leaf._grad = new.fixed if new.index is None else outs[new.index]
        for effect in found.effects:
            effect()
        if found.backward is not None:
            self._record(leaves, outs)
        return _results(found.template, outs, leaves, numbers)

    def _entrance(self, run: Callable[..., Sequence[Any]]) -> Enter:
        """A function that runs the plan on what its inputs are now."""
        return entrance(run, self.trace.sources, self.plan.graph)

    def _host_results(self, outs: Sequence[Any]) -> list[Any]:
        """What Python has on its board when everything has run."""
        found = self.trace
        for value, i in found.reads.items():
            self.board.arrays[value] = on_host(outs[i], value)
        wanted: list[int] = []
        mapped(found.template, lambda x: wanted.append(x.slot), HostResult)
        if wanted:
            self.board.value(max(wanted), found.steps)
        return list(self.board.values)

    def _settle(self) -> None:
        """Let state be where the plan takes it."""
        self.calls += 1
        for storage, _, home, place in self.state:
            now = storage.buffer
            if (now.where if type(now) is Waiting else home) is not place:
                break
        else:
            return
        if self._in_vain() and self.moves:
            self._plan(moves=False)  # so it goes where the others want it
        from hal.schedule.waiting import bring

        start = time.perf_counter()
        for storage, spec, home, place in self.state:
            bring(storage, self.holders.get(storage, ()), spec, home, place)
        self.calls, self.moving = 0, time.perf_counter() - start

    def _in_vain(self) -> bool:
        """Whether moving state took longer, there and back, than was gained before somebody else wanted it: twice."""
        took = self.plan.tried
        gained = self.calls * max(0.0, took["follow"] - next(iter(took.values()))) if took else 0.0
        self.vain = self.vain + 1 if self.moving > 0 and 2 * self.moving > gained else 0
        return self.vain > 1

    def _put_aside(self, outs: list[Tensor]) -> None:
        from hal.schedule.waiting import put_aside

        for i, x in enumerate(outs):
            if i in self.aside:
                put_aside(x.storage, (x,), Waiting(x.buffer, self.aside[i], x.spec, x.device))

    def _update(
        self, source: Any, leaves: Sequence[Tensor], buffer: Any, spec: Spec, where: Device, aside: Device | None
    ) -> None:
        if isinstance(source, State):
            storage = source.storage
            if aside is not None:
                from hal.schedule.waiting import put_aside

                put_aside(storage, self.holders.get(storage, ()), Waiting(buffer, aside, spec, where))
            elif where.backend.views:
                where.backend.write(storage.buffer, buffer, spec)
            else:
                storage.buffer = buffer
                storage.generation += 1
                for tensor in self.holders.get(storage, ()):
                    tensor.refresh()
            storage.version += 1
            return
        if isinstance(source, Argument):
            target = leaves[source.index]
        else:
            leaf = leaves[source.leaf] if isinstance(source.leaf, int) else source.leaf
            target = _grad_of(leaf)
        with no_grad():
            assign(target, Tensor(buffer, spec, where, target.origin))

    def _record(self, leaves: Sequence[Tensor], outs: list[Tensor]) -> None:
        """Give the results a history: one recorded operation, whose gradient is the backward plan."""
        back, plan = self.trace.backward, self.backward
        assert back is not None
        assert plan is not None
        kept = [x.buffer for x in outs[len(outs) - back.kept :]]
        versions = [s.version for s in back.states]
        inputs = tuple(leaves[x] if isinstance(x, int) else x for x in back.inputs)
        results = tuple(outs[i] for i in back.results)

        def gradient(g: Any, out: Any, *given: Tensor) -> list[Tensor | None]:
            if mode.enabled:
                raise GradientError(
                    f"{self.who} is compiled, and the gradients of its gradients are not recorded: "
                    "compile the whole computation, or call the function that was compiled"
                )
            if versions != [s.version for s in back.states]:
                raise GradientError(
                    f"the gradient of {self.who} needs tensors that were changed in place after the forward pass"
                )
            gs = g if isinstance(g, tuple) else (g,)
            starts = [_zeros(r) if x is None else _on(x, r).buffer for x, r in zip(gs, results, strict=True)]
            with self.lock:
                found = _runner(plan)(*kept, *starts)
            return [
                None
                if i is None
                else Tensor(found[i], back.graph.outputs[i].spec, back.graph.outputs[i].device, x.origin)
                for i, x in zip(back.used, inputs, strict=True)
            ]

        node = Recorded(_Compiled(self.who, gradient), inputs, results, {})
        for i, out in enumerate(results):
            out.node, out.index, out.tracked = node, i, True


@dataclass(frozen=True)
class _Compiled:
    """Stands in a recorded operation where an op would."""

    name: str
    gradient: Callable[..., Any]


def _zeros(like: Tensor) -> Any:
    return upload(np.zeros(like.shape, like.dtype.numpy), like.spec, like.device)


def _on(x: Tensor, like: Tensor) -> Tensor:
    from hal.transfer import to_device

    return to_device(x, like.device)


def _results(template: Any, outs: list[Tensor], leaves: Sequence[Tensor], numbers: list[Any]) -> Any:
    """What the function gives: its template with tensors and numbers in the place of each result."""
    if type(template) is HostResult:
        return numbers[template.slot]
    if type(template) is Result:
        if template.tensor is not None:
            return leaves[template.tensor] if isinstance(template.tensor, int) else template.tensor
        out = outs[template.index]
        if template.tracked and out.node is None:
            out.tracked = True
        return out
    if isinstance(template, (list, tuple)):
        parts = [_results(part, outs, leaves, numbers) for part in template]
        return type(template)(*parts) if hasattr(template, "_fields") else type(template)(parts)
    if isinstance(template, dict):
        return type(template)((name, _results(part, outs, leaves, numbers)) for name, part in template.items())
    return template


def _grad_of(leaf: Tensor) -> Tensor:
    assert leaf._grad is not None
    return leaf._grad
