"""A compiled plan as a CUDA graph: one call enqueues all its kernels, whatever Python would have cost.

A graph reads and writes the addresses that it was captured with. State (parameters, moments, running statistics) stays
where it is; what comes from elsewhere in every call, such as a batch, is copied into memory of the graph's own first,
and what the call gives is copied out of it, so that it is not overwritten by the next call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hal.codegen.kernels.buffer import Buffer, row_strides
from hal.codegen.kernels.layout import Shape
from hal.codegen.kernels.memory import Memory
from hal.codegen.kernels.movement import copy_into
from hal.plugin import dtypes
from hal_cuda.runtime import address_of

if TYPE_CHECKING:
    from hal.plugin import Plan
    from hal_cuda.driver import Handle
    from hal_cuda.runtime import CUDARuntime

WATCHED = 2  # calls before a capture: they compile every kernel, and show what stays where it is
MOST_CAPTURES = 8  # of one plan, whose state is given new memory again and again
ALIGNMENT = 256  # bytes
LABEL = "a captured plan"
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
        self._last: list[tuple[int, Shape]] | None = None
        self._graph: Handle | None = None
        self._given: list[Buffer] = []
        self._held: list[Any] = []
        self._results: tuple[Buffer, ...] = ()
        self._sources: list[int | None] = []  # the input whose memory each result is in, if it is
        self._outbox: Memory | None = None

    def __call__(self, *buffers: Buffer) -> tuple[Buffer, ...]:
        if self.reason:
            return self.replay(*buffers)
        places = [(address_of(b), b.strides) for b in buffers]
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
        runtime = self.runtime
        with runtime.lock, runtime.guarded(LABEL):
            for given, buffer, moving in zip(self._given, buffers, self.moving, strict=True):
                if moving:
                    self._bring(buffer, given)
            runtime.recent.append(LABEL)
            runtime.driver.launch_graph(runtime.ordinal, self._graph, runtime.stream)
            return self._delivered(buffers)

    def _bring(self, x: Buffer, given: Buffer) -> None:
        """Enqueue a copy of an input into the graph's own memory."""
        if x.contiguous:
            runtime, nbytes = self.runtime, x.size * x.dtype.itemsize
            if nbytes:
                runtime.driver.copy(runtime.ordinal, address_of(given), address_of(x), nbytes, runtime.stream)
        else:
            copy_into(x, given)

    def _delivered(self, buffers: Sequence[Buffer]) -> tuple[Buffer, ...]:
        """State and views of what the caller gave, as they are; the rest in one block that the graph does not know."""
        block = None
        if self._outbox is not None:
            runtime = self.runtime
            block = runtime.pool.take(self._outbox.nbytes, LABEL)
            runtime.driver.copy(runtime.ordinal, block.data, self._outbox.data, self._outbox.nbytes, runtime.stream)
        results = []
        for r, source in zip(self._results, self._sources, strict=True):
            if source is None:
                assert block is not None
                results.append(Buffer(block, r.shape, r.dtype, r.strides, r.offset))
            elif self.moving[source]:
                given, buffer = self._given[source], buffers[source]
                place = r.offset - given.offset + buffer.offset
                results.append(Buffer(buffer.memory, r.shape, r.dtype, r.strides, place))
            else:
                results.append(r)
        return tuple(results)

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
        with runtime.lock, runtime.waiting:
            held: list[Any] = []
            runtime.held = held
            try:
                with runtime.guarded("a capture"):
                    runtime.driver.begin_capture(runtime.ordinal, runtime.stream)
                try:
                    self._sent(self.replay(*given), given, buffers)
                finally:
                    runtime.held = None
                    graph = runtime.driver.end_capture(runtime.ordinal, runtime.stream)
            except Exception as error:  # a step that waits for the device, say: nothing was run, and `replay` will tell
                self.reason = str(error)
                return
        self._graph, self._given, self._held = graph, given, held

    def _sent(self, results: tuple[Buffer, ...], given: Sequence[Buffer], buffers: Sequence[Buffer]) -> None:
        """Sort the results, and write into the graph that those which it will write again are put side by side."""
        self._results, self._sources, self._outbox = results, [], None
        runtime, at, boxed = self.runtime, 0, []
        for k, r in enumerate(results):
            near = (i for i, g in enumerate(given) if g.memory is r.memory)
            source = next((i for i in near if not self.moving[i] or given[i].strides == buffers[i].strides), None)
            self._sources.append(source)
            if source is None:
                boxed.append((k, at))
                at += -(-max(1, r.size * r.dtype.itemsize) // ALIGNMENT) * ALIGNMENT
        if not boxed:
            return
        self._outbox = runtime.empty((at,), dtypes.uint8, LABEL).memory
        placed = list(results)
        for k, place in boxed:
            r = results[k]
            placed[k] = Buffer(self._outbox, r.shape, r.dtype, row_strides(r.shape), place // r.dtype.itemsize)
            copy_into(r, placed[k])
        self._results = tuple(placed)

    def _drop(self) -> None:
        if self._graph is not None:
            self.runtime.driver.drop_graph(self._graph)
        self._graph, self._given, self._held = None, [], []
        self._results, self._sources, self._outbox = (), [], None

    def __del__(self) -> None:
        self._drop()
