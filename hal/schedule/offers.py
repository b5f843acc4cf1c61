"""The ways to place a graph that are worth trying: nothing moved, the scheduler's answer, and all of it on one device.

In each of them state lives where all that touches it runs, so that it is moved once, and not in every call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from hal.device import Device
from hal.graph.graph import Graph, Value
from hal.schedule.layout import Layout, lay_out
from hal.schedule.machine import Machine, candidates, here
from hal.schedule.placing import Binding, Living, with_room
from hal.schedule.search import Choice, mostly

HOPELESS = 5.0  # times the best prediction: predictions of single nodes may be that far off
MOST = 4  # offers
RETURNS = 4  # calls after which state that another plan has moved is expected to be wanted back by that plan
FOLLOW = "follow"


@dataclass(frozen=True)
class Offer(Choice):
    """A way to place a graph.

    Attributes:
        name, seconds: what it is called, and what a call was predicted to take.
        graph: with its copies.
    """

    graph: Graph


@dataclass(frozen=True)
class Freedom:
    """What may be elsewhere than its tensors are, when a call begins or has ended.

    Attributes:
        state: inputs that may live elsewhere between calls, and where they live now. From a device that may not be used
            they come home.
        new: inputs that may be brought to where they are wanted when a call begins.
        free: how many outputs, the first ones, may stay where they are made until somebody wants them.
        moves: whether state may move from where it lives now; where a device is full, it may anyway.
    """

    state: Mapping[Value, Device] = field(default_factory=dict)
    new: Collection[Value] = ()
    free: int = 0
    moves: bool = True


def offers(
    graph: Graph, freedom: Freedom, devices: Iterable[Device] | None = None,
    written_for: Callable[[Device], Graph] | None = None,
) -> list[Offer]:  # fmt: skip
    """The ways to place a graph, the one that moves nothing first, if there is a choice.

    Args:
        devices: that may be used (default: those of the policy, or all that are here).
        written_for: makes the same graph of what a device can run, with the same inputs.

    Raises:
        OutOfMemoryError: something needs more memory at once than its device has, and may run nowhere else.
    """
    found = _devices(graph, devices)
    if len(found) == 1 and found[0].backend.max_memory(found[0]) is None:
        return [Offer(FOLLOW, 0.0, graph)]
    machine = here(found)
    freedom = replace(freedom, state={v: d if d in found else v.device for v, d in freedom.state.items()})
    here_now = _Ways(graph, machine, freedom)
    problem, living = with_room(here_now.binding, here_now.movable, here_now.living)
    answer = here_now.binding.placement(problem)
    follow = None if problem.given is None else here_now.way(FOLLOW, problem.given, living)
    crowded = living != here_now.living or (follow is not None and follow.layout is None)
    if crowded or _simulated(machine.devices):  # nothing else fits, or a time would tell nothing
        return [Offer(answer.name, answer.layout.seconds, here_now.binding.applied(answer.layout, living))]

    name = answer.name if answer.name != FOLLOW else "where its data is"
    best = here_now.settled(name, answer.layout.devices, answer.layout.order)
    ways = [best if best.layout is not None else replace(best, living=living, layout=answer.layout)]
    for place, device in enumerate(machine.devices):
        written = graph if written_for is None else written_for(device)
        whole = here_now if len(written.nodes) == len(graph.nodes) else _Ways(written, machine, freedom)
        name = f"all on {device}" if whole is here_now else f"all on {device} in its own ops"
        tasks = mostly(whole.binding.problem(whole.living), place)
        ways += [whole.settled(name, tasks)] if place in tasks else []  # or it can run nothing of this
    first = Offer(FOLLOW, inf, graph) if follow is None else follow.offer(graph if not living else None)
    others: dict[object, _Way] = {}
    for way in sorted((way for way in ways if way.layout is not None), key=lambda way: way.seconds):
        if follow is None or way.key != follow.key:
            others.setdefault(way.key, way)
    least = min([first.seconds, *[way.seconds for way in others.values()]])
    likely = [way for way in others.values() if way.seconds <= HOPELESS * least]
    return [first, *[way.offer() for way in likely[: MOST - 1]]]


def _devices(graph: Graph, devices: Iterable[Device] | None) -> list[Device]:
    """Those that may be used: simulated ones, whose time is another, only where the graph is on one already."""
    from hal.policy import placement

    used = list(dict.fromkeys([v.device for v in (*graph.inputs, *graph.constants)] + [n.device for n in graph.nodes]))
    allowed = devices if devices is not None else placement.devices()
    found = candidates(used) if allowed is None else list(dict.fromkeys([*used, *allowed]))
    return found if _simulated(used) else [d for d in found if d in used or not d.backend.simulated]


def _simulated(devices: Collection[Device]) -> bool:
    return any(d.backend.simulated for d in devices)


@dataclass(frozen=True)
class _Way:
    """A way before a graph is made of it.

    Attributes:
        name: for people.
        of: what it is a way of.
        devices: of each task.
        living: where what lives elsewhere does.
        layout: None if a device might become too full.
    """

    name: str
    of: _Ways
    devices: tuple[int, ...]
    living: Living
    layout: Layout | None

    @property
    def key(self) -> object:
        """Equal for ways that are the same."""
        return self.of, self.devices, frozenset(self.living.items())

    @property
    def seconds(self) -> float:
        """What a call is predicted to take."""
        return inf if self.layout is None else self.layout.seconds + self.of.brought(self.living)

    def offer(self, graph: Graph | None = None) -> Offer:
        """It with its graph."""
        assert self.layout is not None
        names = self.of.binding.machine.devices
        homes = sorted({str(names[place]) for v, place in self.living.items() if v in self.of.freedom.state})
        told = f"{self.name}, state on {' and '.join(homes)}" if homes and self.name != FOLLOW else self.name
        return Offer(told, self.seconds, graph or self.of.binding.applied(self.layout, self.living))


class _Ways:
    """The ways to place one graph."""

    def __init__(self, graph: Graph, machine: Machine, freedom: Freedom) -> None:
        self.freedom = freedom
        self.binding = Binding(graph, machine)
        self.movable = self.binding.movable(freedom.state, freedom.free)
        self.living = self.binding.lived(self.movable, {v: d for v, d in freedom.state.items() if d is not v.device})
        self.new = [v for v in freedom.new if v not in graph.updates and v not in graph.outputs]

    def way(self, name: str, devices: tuple[int, ...], living: Living, order: Sequence[int] | None = None) -> _Way:
        """Tasks on these devices, and state where it is said to live."""
        problem, layout = self.binding.problem(living), None
        if not any(problem.tight[d] for d in {*devices, *living.values()}):
            layout = lay_out(problem, devices, order or range(len(devices)))
        return _Way(name, self, devices, living, layout)

    def settled(self, name: str, devices: tuple[int, ...], order: Sequence[int] | None = None) -> _Way:
        """Tasks on these devices, state where it is used, and arguments brought to where all is when a call begins."""
        if not self.freedom.moves:
            return self.way(name, devices, self.living, order)
        living = self.binding.settled(devices, self.movable, self.living)
        if len(set(devices)) == 1:
            device = self.binding.machine.devices[devices[0]]
            brought = [v for v in self.new if v.device is not device and self.binding.consumers[v]]
            living = {**living, **dict.fromkeys(brought, devices[0])}
        return self.way(name, devices, living, order)

    def brought(self, living: Living) -> float:
        """Seconds of what moves besides the copies in the plan: arguments, and state when another plan has had it."""
        routes, places = self.binding.machine.routes(), self.binding.places
        seconds = 0.0
        for v in self.binding.inputs:
            before = self.living.get(v, places[v.device])
            route = routes[before][living.get(v, places[v.device])]
            if route is not None and v in self.freedom.state:
                seconds += 2 * route.seconds(v.spec.nbytes) / RETURNS if self.living else 0.0
            elif route is not None:
                seconds += route.seconds(v.spec.nbytes)
        return seconds
