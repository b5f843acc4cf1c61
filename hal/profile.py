"""Profiling: what ran when on which device and link, as a trace for Perfetto or Chrome, measured beside predicted.

While a profile runs, every kernel is waited for, so that its time is its own: devices still overlap with each other.
"""

from __future__ import annotations

import atexit
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from hal import config, decision, transfer
from hal.device import Device
from hal.errors import HalError
from hal.graph import plan as plans
from hal.graph.graph import Node, Value
from hal.op import Op
from hal.source import describe, user_line
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.decision import Decision
    from hal.graph.plan import Plan, Step
    from hal.schedule.machine import Machine

COLOURS = {"fallback": "terrible", "decomposed": "bad", "copy": "yellow", "evict": "olive", "fused": "rail_animation"}
MEASURED, PREDICTED, SIMULATED = 1, 2, 3  # process ids of the groups of tracks
GROUPS = {MEASURED: "measured", PREDICTED: "predicted", SIMULATED: "simulated clock"}
running: profile | None = None


@dataclass
class Slice:
    """One thing that took time.

    Attributes:
        track: the device, or the link (`a → b`).
        name: the op, or `copy`.
        how: `native`, `decomposed`, `fallback`, `fused`, `copy`.
        start, seconds: measured, from the start of the profile.
        facts: specs, reason, the user's line.
        work: what a prediction needs: the call as a node of a graph, and its device; or source, target and bytes.
        predicted: seconds, where the device's speed is known.
        simulated: start and seconds on the clock of a simulated device, which runs while the device works.
    """

    track: str
    name: str
    how: str
    start: float
    seconds: float
    facts: dict[str, Any]
    work: tuple[Any, ...] = ()
    predicted: float | None = None
    simulated: tuple[float, float] | None = None


@dataclass
class _Call:
    """One call of a plan."""

    plan: Plan
    start: float


@dataclass(eq=False)
class profile:  # used like a function: with hal.profile("trace.json"):
    """Note what runs inside a `with` block, and write it as a trace when the block ends.

    The trace has a track for each device and each link, fallbacks in a colour of their own, the bytes that each link
    carried as counters, and for compiled functions the predicted timeline beside the measured one. What a simulated
    device did is also shown in its own time. Open it in
    https://ui.perfetto.dev or chrome://tracing. Predictions need speeds: those that backends declare, or that
    `hal calibrate` has measured.

    Args:
        path: where the trace is written; None: nowhere, `slices` and `summary()` have it.

    >>> import hal
    >>> with hal.profile() as p:
    ...     x = hal.ones(3) + 1
    >>> [s.name for s in p.slices if s.track == "cpu"]
    ['full', 'add']
    """

    path: str | Path | None = None
    slices: list[Slice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._calls: list[_Call] = []
        self._plans: WeakKeyDictionary[Plan, Callable[..., Any]] = WeakKeyDictionary()
        self._begin = time.perf_counter()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._machine: Callable[..., Machine | None] = lambda *devices: None

    def __repr__(self) -> str:
        return f"<profile: {len(self.slices)} slices{f', for {self.path}' if self.path is not None else ''}>"

    def __enter__(self) -> profile:
        global running
        if running is not None:
            raise HalError("a profile is running already; end it before another begins")
        self.slices.clear()
        self._begin = time.perf_counter()
        running = self
        decision.instrument = self._instrumented
        decision.decisions.clear()  # so that kernels are wrapped
        transfer.timed, plans.timed = self._copied, self.timed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global running
        running = decision.instrument = transfer.timed = plans.timed = None
        decision.decisions.clear()
        self._predict()
        if self.path is not None:
            self.save(self.path)

    # What calls.

    def _add(
        self, track: str, name: str, how: str, start: float, facts: dict[str, Any], work: tuple[Any, ...] = ()
    ) -> None:
        now = time.perf_counter()
        with self._lock:
            self.slices.append(Slice(track, name, how, start - self._begin, now - start, facts, work))

    def _instrumented(self, op: Op, device: Device, specs: tuple[Spec, ...], found: Decision) -> None:
        """Wrap what a decision calls."""
        facts = {"inputs": [repr(s) for s in specs], "settings": {k: repr(v) for k, v in found.settings.items()}}
        if found.reason:
            facts["reason"] = found.reason
        kernel, execute = found.kernel, found.execute
        if kernel is not None:
            outs = tuple(Value(s, device) for s in found.specs)
            work = Node(op, tuple(Value(s, device) for s in specs), found.settings, outs, None, device), device

            def timed(*buffers: Any, **settings: Any) -> Any:
                if running is not self:
                    return kernel(*buffers, **settings)
                start = time.perf_counter()
                result = kernel(*buffers, **settings)
                device.backend.synchronize(device)
                self._add(str(device), op.name, "native", start, {**facts, "line": describe(user_line(3))}, work)
                return result

            timed.__wrapped__ = kernel  # type: ignore[attr-defined]  # plans take the kernel itself
            found.kernel = timed
        elif execute is not None and found.how != "native":

            def whole(op: Op, args: tuple[Any, ...]) -> Any:
                start = time.perf_counter()
                result = execute(op, args)
                if running is self:
                    self._add(str(device), op.name, found.how, start, {**facts, "line": describe(user_line(3))})
                return result

            found.execute = whole

    def _copied(self, move: Callable[..., Any], buffer: Any, spec: Spec, source: Device, target: Device) -> Any:
        start = time.perf_counter()
        result = move(buffer, spec, source, target)
        target.backend.synchronize(target)
        line = getattr(self._local, "line", None) or describe(user_line(3))
        facts = {"spec": repr(spec), "bytes": spec.nbytes, "line": line}
        self._add(f"{source} → {target}", "copy", "copy", start, facts, (source, target, spec.nbytes))
        return result

    # What plans run.

    def timed(self, plan: Plan) -> Callable[..., Any]:
        """What runs a plan and notes every step."""
        found = self._plans.get(plan)
        if found is None:
            found = self._plans[plan] = self._timed(plan)
        return found

    def _timed(self, plan: Plan) -> Callable[..., Any]:
        from hal.graph.planner import Replay
        from hal.schedule.queues import overlapped, runs_apart

        steps = tuple(replace(step, call=self._step(step)) for step in plan.steps)
        again = Replay(plan.graph, steps).plan
        run = overlapped(again).run if runs_apart(plan) else again.run

        def call(*inputs: Any) -> Any:
            self._calls.append(_Call(plan, time.perf_counter() - self._begin))
            return run(*inputs)

        return call

    def _step(self, step: Step) -> Callable[..., Any]:
        from hal.schedule.timeline import crosses

        node, kernel = step.node, getattr(step.call, "__wrapped__", step.call)
        if crosses(node):
            line = describe(node.where)

            def copied(*buffers: Any, **settings: Any) -> Any:
                self._local.line = line  # the copy itself is noted where it is made
                try:
                    return kernel(*buffers, **settings)
                finally:
                    self._local.line = None

            return copied
        facts: dict[str, Any] = {"inputs": [repr(x.spec) for x in node.inputs], "line": describe(node.where)}
        if step.reason:
            facts["reason"] = step.reason
        device, track, name = step.device, str(step.device), node.op.name

        def timed(*buffers: Any, **settings: Any) -> Any:
            start = time.perf_counter()
            result = kernel(*buffers, **settings)
            device.backend.synchronize(device)
            if running is self:
                self._add(track, name, step.how, start, facts, (node, device))
            return result

        return timed

    # Predictions, and what is written.

    def _predict(self) -> None:
        """Say of each slice how long it should have taken, where the speed is known."""
        from hal.schedule.calibrate import known_calibration
        from hal.schedule.machine import here

        machines: dict[frozenset[Device], Machine | None] = {}

        def machine(*devices: Device) -> Machine | None:
            key = frozenset(devices)
            if key not in machines:
                known = all(known_calibration(d) is not None for d in key)
                machines[key] = here(devices) if known else None
            return machines[key]

        for s in self.slices:
            with suppress(HalError):
                if len(s.work) == 3:
                    source, target, nbytes = s.work
                    found = machine(source, target)
                    if found is not None and source is not target:
                        link = found.link(found.place_of(source), found.place_of(target))
                        s.predicted = link.latency + nbytes / link.bandwidth
                elif s.work:
                    node, device = s.work
                    found = machine(device)
                    if found is not None:
                        s.predicted = found.units[found.place_of(device)].seconds(node)
        self._machine = machine
        self._simulate()

    def _simulate(self) -> None:
        """Say of what simulated devices did when that was on their own clocks: one thing after another."""
        clocks: dict[Device, float] = {}
        for s in sorted(self.slices, key=lambda s: s.start):
            device = next((d for d in s.work if isinstance(d, Device) and d.backend.simulated), None)
            if device is None:
                continue
            seconds = s.predicted
            if len(s.work) == 3:  # without what a copy takes here
                link = device.backend.link(device)
                seconds = None if link is None else link.latency + s.work[2] / link.bandwidth
            if seconds is not None:
                s.simulated = clocks.get(device, 0.0), seconds
                clocks[device] = sum(s.simulated)

    def summary(self) -> str:
        """What took how long, by track and name: count, measured and predicted time."""
        from hal.schedule.report import duration

        rows: dict[tuple[str, str, str], list[float]] = {}
        for s in self.slices:
            row = rows.setdefault((s.track, s.name, s.how), [0, 0.0, 0.0])
            row[0] += 1
            row[1] += s.seconds
            row[2] += s.predicted or 0.0
        lines = [f"{'where':<20} {'what':<28} {'how':<10} {'calls':>6} {'measured':>10} {'predicted':>10}"]
        for (track, name, how), (count, seconds, predicted) in sorted(rows.items(), key=lambda r: -r[1][1]):
            told = duration(predicted) if predicted else "unknown"
            lines.append(f"{track:<20} {name:<28} {how:<10} {count:>6.0f} {duration(seconds):>10} {told:>10}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The trace in Chrome's format (Google, "Trace Event Format", 2016): times in microseconds."""
        events: list[dict[str, Any]] = []
        tracks: dict[tuple[int, str], int] = {}

        def track(process: int, name: str) -> int:
            return tracks.setdefault((process, name), len(tracks) + 1)

        carried: dict[str, int] = {}
        for s in sorted(self.slices, key=lambda s: s.start):
            facts = dict(s.facts) | {"how": s.how}
            if s.simulated is not None:
                begin, seconds = s.simulated
                facts["simulated_us"] = round(seconds * 1e6, 3)
                of = {"line": s.facts["line"], "how": s.how}
                events.append(_slice(SIMULATED, track(SIMULATED, s.track), s.name, s.how, begin, seconds, of))
            elif s.predicted is not None:
                facts["predicted_us"] = round(s.predicted * 1e6, 3)
                if s.predicted:
                    facts["measured_by_predicted"] = round(s.seconds / s.predicted, 3)
            events.append(_slice(MEASURED, track(MEASURED, s.track), s.name, s.how, s.start, s.seconds, facts))
            if s.how == "copy":
                carried[s.track] = carried.get(s.track, 0) + int(s.facts["bytes"])
                events.append(
                    {"ph": "C", "pid": MEASURED, "name": f"bytes {s.track}", "ts": (s.start + s.seconds) * 1e6,
                     "args": {"bytes": carried[s.track]}}
                )  # fmt: skip
        for call in self._calls:
            events += self._predicted(call, track)
        for (process, name), tid in tracks.items():
            told = {"name": name}
            events.append({"ph": "M", "pid": process, "tid": tid, "name": "thread_name", "args": told})
        for process in {MEASURED, PREDICTED, *(process for process, _ in tracks)}:
            events.append({"ph": "M", "pid": process, "name": "process_name", "args": {"name": GROUPS[process]}})
        return {"traceEvents": events, "displayTimeUnit": "ns"}

    def _predicted(self, call: _Call, track: Callable[[int, str], int]) -> list[dict[str, Any]]:
        """The timeline of a plan as it was expected, from when it was called."""
        from hal.schedule.timeline import crosses, timeline

        devices = {v.device for v in call.plan.graph.values()} | {n.device for n in call.plan.graph.nodes}
        machine = self._machine(*devices)
        if machine is None:
            return []
        found = []
        for e in timeline(call.plan.graph, machine).events:
            how = "copy" if crosses(e.node) else "native"
            tid = track(PREDICTED, e.queue)
            facts = {"line": describe(e.node.where)}
            found.append(_slice(PREDICTED, tid, e.node.op.name, how, call.start + e.start, e.seconds, facts))
        return found

    def save(self, path: str | Path) -> None:
        """Write the trace."""
        Path(path).write_text(json.dumps(self.to_dict()), "utf-8")


def _slice(
    process: int, track: int, name: str, how: str, start: float, seconds: float, facts: dict[str, Any]
) -> dict[str, Any]:
    event = {
        "ph": "X", "pid": process, "tid": track, "name": name, "cat": how, "ts": round(start * 1e6, 3),
        "dur": round(seconds * 1e6, 3), "args": facts,
    }  # fmt: skip
    if how in COLOURS:
        event["cname"] = COLOURS[how]
    return event


def begin_for_process() -> None:
    """Begin the profile of the whole process that HAL_TRACE asks for, unless one runs; it is written at the end."""
    path = config.get("HAL_TRACE")
    if path and running is None:
        whole = profile(path)
        whole.__enter__()
        atexit.register(whole.__exit__, None, None, None)


decision.begin_trace = begin_for_process
