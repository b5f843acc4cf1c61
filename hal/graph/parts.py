"""A function that is split: its parts, the ways to go on after each, and how a call finds its way through them.

What a call changes, it changes when its last part has succeeded. A call that meets an answer for the first time has
changed nothing yet, so that the function can be traced once more, with that answer.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from hal import tracing
from hal.errors import GraphError
from hal.graph import plan as plans
from hal.graph.entry import Entry, Options, on_host, planned
from hal.graph.graph import Graph, Node, Value
from hal.graph.host import Board, Calculation
from hal.graph.inputs import Earlier, Enter, Source, State, entrance
from hal.graph.memory import roots
from hal.graph.plan import Plan
from hal.graph.planner import run_now
from hal.graph.rewrites.outputs import KEPT
from hal.graph.split import Cut, Fetch, Path, answer_of
from hal.graph.trace import Trace, live
from hal.graph.tracer import Tracer
from hal.op import Array
from hal.plugin import Buffer
from hal.tensor import Tensor, Waiting

MOST_PATHS = 8  # of one kind of arguments: what has more ways to go is better run eagerly


@dataclass(frozen=True)
class Missed:
    """What a call gives that came to an answer, or a state of things, that no trace has seen: the way up to there."""

    path: Path


def fetcher(leaves: Sequence[Tensor]) -> Fetch:
    """A function that computes values of a trace at once, from what its inputs are in the call that is traced.

    What it has computed it keeps until the trace is over, since the next question may need it as well.
    """
    known: dict[Value, Buffer] = {}

    def fetch(tracer: Tracer, wanted: Sequence[Value]) -> list[Array]:
        missing = live([node for node in tracer.nodes if node.outputs[0] not in known], wanted)
        used = {x for node in missing for x in node.inputs} | set(wanted)
        sources = {v: s for v, s in tracer.sources.items() if v in used and v not in known}
        known.update({v: t.buffer for v, t in tracer.constants.items() if v in used})
        with tracing.eagerly():
            _bring_back(sources.values())
            known.update(zip(sources, entrance(lambda *buffers: buffers, list(sources.values()))(leaves), strict=True))
            run_now(missing, known)
            return [on_host(known[v], v) for v in wanted]

    return fetch


def _between(
    nodes: Sequence[Node], wanted: Sequence[Value], inputs: Sequence[Value], constants: Any
) -> Graph:  # fmt: skip
    """The graph of what is wanted; its inputs are those of `inputs` that it needs."""
    needed = live(nodes, wanted)
    used = {x for node in needed for x in node.inputs} | set(wanted)
    return Graph(
        tuple(v for v in inputs if v in used), needed, tuple(wanted), {v: t for v, t in constants.items() if v in used}
    )


def _bring_back(sources: Iterable[Source]) -> None:
    """Bring state back that lives elsewhere between calls."""
    if not Waiting.ever:
        return
    from hal.schedule.waiting import brought_home  # most never is

    for source in sources:
        if isinstance(source, State):
            brought_home(source.storage)


class Part:
    """What runs before a question, as far as its answer needs it, and what comes after it.

    Attributes:
        cut: the question.
        span: what was recorded since the question before.
        nodes: what runs. The rest runs in the part that needs it: most often in the last, which changes state in place.
        then: for each answer the ways to go on, the latest first; which one fits depends on what it takes for granted.
        outputs: what the host or later parts need; it grows with the ways that become known.
    """

    def __init__(self, found: Trace, cut: Cut, span: Sequence[Node], nodes: Sequence[Node], tree: Tree) -> None:
        self.cut = cut
        self.span = span
        self.nodes = dict.fromkeys(nodes)
        self.tree = tree
        self.sources = tuple(zip(found.graph.inputs, found.sources, strict=True))[: cut.sources]
        self.constants = tuple(found.graph.constants.items())[: cut.constants]
        self.steps: list[Calculation] = found.steps
        self.then: dict[Hashable, list[Way]] = {}
        self.outputs: dict[Value, None] = {}
        self.earlier: dict[Value, None] = {}
        self._plan: tuple[Plan, list[Source]] | None = None
        self._enter: Enter | None = None

    def need(self, value: Value) -> None:
        """Note that somebody needs a value that is made here, or is given."""
        if value not in self.outputs:
            self.outputs[value] = None
            self._plan = None

    def fits(self, leaves: Sequence[Tensor]) -> bool:
        """Whether all that was taken for granted until its end still holds."""
        return self.cut.taken.holds(leaves)

    def run(self, leaves: Sequence[Tensor]) -> Hashable:
        """Run it; the answer to the question."""
        kept, board = self.tree.kept, self.tree.board
        if self.outputs:
            plan, sources = self.planned()
            _bring_back(sources)
            enter = self._enter if plans.timed is None else entrance(plans.timed(plan), sources)
            with self.tree.options.arenas.lock:
                assert enter is not None
                results = enter(leaves)
            kept.update(zip(self.outputs, results, strict=True))
        for value in self.cut.reads:
            board.arrays[value] = on_host(kept[value], value)
        return answer_of(self.cut, board, self.steps)

    def planned(self) -> tuple[Plan, list[Source]]:
        """Its plan, made when something new is needed of it, and where the inputs come from.

        It gives the bits of eager execution, whatever else is asked for: an answer must not depend on who needs what.
        """
        if self._plan is None:
            known = dict(self.sources)
            graph = _between(tuple(self.nodes), tuple(self.outputs), (*known, *self.earlier), dict(self.constants))
            plan = planned(graph, replace(self.tree.options, exact=True), owners=[KEPT] * len(graph.outputs))
            sources = [known[v] if v in known else Earlier(self.tree.kept, v) for v in graph.inputs]
            self._plan = replace(plan, end=str(self.cut)), sources
            self._enter = entrance(plan.run, sources)
        return self._plan


Way = Part | Entry


def _taken(nodes: Iterable[Node], end: Sequence[Value], makers: Mapping[Value, Part]) -> dict[Value, None]:
    """What these nodes, and what they end with, take from earlier parts; these are told to keep it.

    It is never a view: of what may lie in the same memory, only the one that lies there first is kept.
    """
    here = {out for node in nodes for out in node.outputs}
    inputs = (*[x for node in nodes for x in node.inputs], *end)
    taken = dict.fromkeys(v for v in inputs if v in makers and v not in here)
    for v in taken:
        makers[v].need(v)
    return taken


def _shown(answer: Hashable) -> str:
    assert isinstance(answer, tuple)
    return str(answer[-1]) if len(answer) == 2 else f"these contents, shape {answer[0]}"


class Tree:
    """What runs for calls of one kind of a function that is split.

    Attributes:
        ways: how it begins.
        board: what the host knows in the present call.
        kept: what the parts have computed for each other in the present call.
        paths: how many ways there are from the beginning to the end.
        missed: calls in a row that came to where no trace has been.
        once: whether it is good for one call only.
        strayed: whether the function was seen to do something else for the same answers.
    """

    def __init__(self, options: Options, who: str, board: Board) -> None:
        self.options = options
        self.who = who
        self.board = board
        self.kept: dict[Value, Buffer] = {}
        self.ways: list[Way] = []
        self.lock = threading.RLock()
        self.paths = 0
        self.missed = 0
        self.once = self.strayed = False

    def too_many(self) -> GraphError:
        """Why calls of this kind are better run eagerly."""
        last = [way.cut for way in self.walk() if isinstance(way, Part)][-1]
        return GraphError(f"{self.who} goes another way in almost every call after {last}")

    def story(self) -> list[str]:
        """The parts, each with the line that ends it, and the ways to go on."""
        found = []

        def tell(ways: Sequence[Way], indent: str) -> None:
            for way in ways:
                plan = way.plan if isinstance(way, Entry) else way.planned()[0]
                if isinstance(way, Entry):
                    found.append(f"{indent}{len(plan.steps)} steps, to the end")
                    continue
                found.append(f"{indent}{len(plan.steps)} steps, up to {way.cut}")
                for answer, later in way.then.items():
                    found.append(f"{indent}{'then' if answer is None else f'if it gives {_shown(answer)}'}:")
                    tell(later, indent + "    ")

        tell(self.ways, "")
        return found

    @property
    def plans(self) -> list[Plan]:
        """All plans: of each part, then of the ways to go on."""
        return [plan for way in self.walk() for plan in (way.plans if isinstance(way, Entry) else [way.planned()[0]])]

    def walk(self) -> Iterator[Way]:
        """All parts and ends, each before those that come after it."""
        waiting = list(reversed(self.ways))
        while waiting:
            way = waiting.pop()
            yield way
            if isinstance(way, Part):
                waiting += [later for ways in reversed(way.then.values()) for later in reversed(ways)]

    def fits(self, leaves: Sequence[Tensor]) -> bool:
        """Whether what its beginning takes for granted still holds."""
        return not self.strayed and any(way.fits(leaves) for way in self.ways)

    def call(self, leaves: Sequence[Tensor]) -> Any:
        """Replay on these arguments. What it gives may be `Missed`, and nothing has been changed then."""
        with self.lock:
            self.board.clear()
            try:
                return self._walk(leaves)
            finally:
                self.kept.clear()
                self.board.clear()

    def _walk(self, leaves: Sequence[Tensor]) -> Any:
        ways, passed = self.ways, list[Part]()
        while True:
            way = next((w for w in ways if w.fits(leaves)), None)
            if way is None:
                self.missed += 1
                return Missed(self._path(passed))
            if isinstance(way, Entry):
                if way.once:
                    ways.remove(way)
                    self.paths -= 1
                self.missed = 0
                return way.call(leaves)
            passed.append(way)
            ways = way.then.get(way.run(leaves), [])

    def _path(self, passed: Sequence[Part]) -> Path:
        if not passed:
            return Path()
        nodes = [node for part in passed for node in part.span]
        last = passed[-1]
        return Path(nodes, last.sources, last.constants, [p.cut for p in passed], list(self.board.values))

    def add(self, found: Trace) -> None:
        """Take in a path, whose answers are still on the board."""
        graph, cuts = found.graph, found.cuts
        self.once = found.once and not self.ways
        spans = [graph.nodes[a:b] for a, b in pairwise([0, *[c.nodes for c in cuts], len(graph.nodes)])]
        views = {node for node in graph.nodes if roots([node])}  # which are made again by each part that needs them
        ways, parts, waiting = self.ways, list[Part](), list[Node]()
        for cut, span in zip(cuts, spans, strict=False):  # the last span ends with the function
            waiting += span
            part = next((w for w in ways if isinstance(w, Part) and w.cut is cut), None)
            if part is None:
                part = Part(found, cut, span, live(waiting, cut.reads), self)
                ways.insert(0, part)
            parts.append(part)
            waiting = [node for node in waiting if node in views or node not in part.nodes]
            ways = part.then.setdefault(answer_of(cut, self.board, found.steps), [])

        last = live([*waiting, *spans[-1]], graph.results)
        makers = {out: p for p in parts for node in p.nodes if node not in views for out in node.outputs}
        for part in parts:
            part.earlier |= _taken(part.nodes, part.cut.reads, makers)
            for v in part.cut.reads:
                if v not in part.earlier:
                    part.need(v)
        self._end(found, ways, last, _taken(last, graph.results, makers))

    def _end(self, found: Trace, ways: list[Way], nodes: Sequence[Node], crossing: dict[Value, None]) -> None:
        """The part after the last question: what an unsplit function has as a whole."""
        graph = found.graph
        used = {*graph.results, *graph.updates, *[x for node in nodes for x in node.inputs]}
        inputs = {v: s for v, s in zip(graph.inputs, found.sources, strict=True) if v in used}
        inputs |= {v: Earlier(self.kept, v) for v in crossing}
        constants = {v: t for v, t in graph.constants.items() if v in used}
        last = Graph(tuple(inputs), tuple(nodes), graph.outputs, constants, graph.updates)
        end = replace(found, graph=last, sources=tuple(inputs.values()))
        ways.insert(0, Entry(end, self.options, self.who, self.board))
        self.paths += 1
