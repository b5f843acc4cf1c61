"""A compiled plan as a CUDA graph: one call enqueues all its kernels, whatever Python would have cost.

A graph reads and writes the addresses that it was captured with. State (parameters, moments, running statistics) stays
where it is; what comes from elsewhere in every call, such as a batch, is copied into memory of the graph's own first,
and what the call gives is copied out of it, so that it is not overwritten by the next call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.movement import copied, copy_into
from hal_cuda.runtime import address_of

if TYPE_CHECKING:
    from hal.plugin import Plan
    from hal_cuda.driver import Handle
    from hal_cuda.runtime import CUDARuntime

WATCHED = 2  # calls before a capture: they compile every kernel, and show what stays where it is
MOST_CAPTURES = 8  # of one plan, whose state is given new memory again and again
Run = Callable[..., tuple[Buffer, ...]]


def captured(runtime: CUDARuntime, plan: Plan, replay: Run) -> Run | None:
    """What runs a plan as a graph, or None where a step needs the host or another device."""
    if any(step.how in ("fallback", "copy") for step in plan.steps):
        return None
    return Captured(runtime, plan, replay)


class Captured:
    """Runs a plan: step by step at first, then as a graph.

    Attributes:
        captures: how often it was captured.
        reason: why it no longer is, or "".
    """

    def __init__(self, runtime: CUDARuntime, plan: Plan, replay: Run) -> None:
        self.runtime, self.replay = runtime, replay
        written = {old for old, new in plan.graph.updates.items() if new in plan.in_place}
        self.fixed = [v in written for v in plan.graph.inputs]  # written in place: never a copy
        self.moving = [False] * len(self.fixed)
        self.captures = 0
        self.reason = ""
        self._watched = 0
        self._last: list[int] | None = None
        self._graph: Handle | None = None
        self._given: list[Buffer] = []
        self._results: tuple[Buffer, ...] = ()
        self._held: list[Any] = []

    def __call__(self, *buffers: Buffer) -> tuple[Buffer, ...]:
        if self.reason:
            return self.replay(*buffers)
        places = [address_of(b) for b in buffers]
        if self._last is not None:
            for i, (place, before) in enumerate(zip(places, self._last, strict=True)):
                if place != before:
                    self._moved(i)
        self._last = places
        if self._graph is None:
            if self._watched < WATCHED:
                self._watched += 1
                return self.replay(*buffers)
            self._capture(buffers)
            if self._graph is None:
                return self.replay(*buffers)
        for given, buffer, moving in zip(self._given, buffers, self.moving, strict=True):
            if moving:
                copy_into(buffer, given)
        runtime = self.runtime
        with runtime.lock, runtime.guarded("a captured plan"):
            runtime.recent.append("a captured plan")
            runtime.driver.launch_graph(runtime.ordinal, self._graph, runtime.stream)
        return tuple([self._result(r, buffers) for r in self._results])

    def _moved(self, i: int) -> None:
        """Input `i` is not where it was: from now on it is copied, or, if it is written in place, captured anew."""
        if self.moving[i]:
            return
        self._drop()
        if not self.fixed[i]:
            self.moving[i] = True

    def _capture(self, buffers: Sequence[Buffer]) -> None:
        runtime = self.runtime
        if self.captures == MOST_CAPTURES:
            self.reason = f"what it writes in place moved {MOST_CAPTURES} times"
            return
        self.captures += 1
        given = [
            runtime.empty(b.shape, b.dtype, "the input of a captured plan") if moving else b
            for b, moving in zip(buffers, self.moving, strict=True)
        ]
        with runtime.lock:
            held: list[Any] = []
            runtime.held = held
            try:
                with runtime.guarded("a capture"):
                    runtime.driver.begin_capture(runtime.ordinal, runtime.stream)
                try:
                    results = self.replay(*given)
                finally:
                    runtime.held = None
                    graph = runtime.driver.end_capture(runtime.ordinal, runtime.stream)
            except Exception as error:  # a step that waits for the device, say: nothing was run, and `replay` will tell
                self.reason = str(error)
                return
        self._graph, self._given, self._results, self._held = graph, given, results, held

    def _result(self, r: Buffer, buffers: Sequence[Buffer]) -> Buffer:
        """What the caller gets: state itself, a view of what it gave, or a copy of what the graph will write again."""
        for given, buffer, moving in zip(self._given, buffers, self.moving, strict=True):
            if r.memory is given.memory:
                if not moving:
                    return r
                if buffer.strides == given.strides:
                    return Buffer(buffer.memory, r.shape, r.dtype, r.strides, r.offset - given.offset + buffer.offset)
        return copied(r)

    def _drop(self) -> None:
        if self._graph is not None:
            self.runtime.driver.drop_graph(self._graph)
        self._graph, self._given, self._results, self._held = None, [], (), []

    def __del__(self) -> None:
        self._drop()
