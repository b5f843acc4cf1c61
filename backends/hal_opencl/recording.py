"""A compiled plan as a list of launches whose arguments are already set: what Python decides, it decides once.

Each launch has a kernel object of its own, so that a call only enqueues. What is not where it was (a batch) and what
the call makes are other memory in each call: those arguments alone are set again.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.memory import Memory

if TYPE_CHECKING:
    from hal.codegen.kernels.layout import Shape
    from hal.plugin import Plan
    from hal_opencl.runtime import OpenCLRuntime

WATCHED = 2  # calls before a recording: they compile every kernel, and show what stays where it is
MOST_RECORDINGS = 8  # of one plan
MOST_HELD = 1 / 8  # of the device's memory: intermediate results of a recording are its own
Run = Callable[..., tuple[Buffer, ...]]


def recorded(runtime: OpenCLRuntime, plan: Plan, replay: Run) -> Run | None:
    """What runs a plan as a list of launches, or None where a step needs the host or another device."""
    if any(step.how in ("fallback", "copy") for step in plan.steps):
        return None
    return Recorded(runtime, replay)


class Recorder:
    """Notes the launches of one thread.

    Attributes:
        launches: label, kernel, items, items of a group, arguments, and what is written.
        refused: whether something happened that is no launch.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.launches: list[tuple[str, Any, Shape, Shape, tuple[Any, ...], Sequence[Memory]]] = []
        self.refused = False

    def refuse(self) -> None:
        """Note that what happens here cannot be repeated by launches."""
        if threading.get_ident() == self.thread:
            self.refused = True

    def note(
        self, label: str, kernel: Any, items: Shape, local: Shape, arguments: tuple[Any, ...], writes: Sequence[Memory]
    ) -> None:
        """Note a launch."""
        if threading.get_ident() == self.thread:
            self.launches.append((label, kernel, items, local, arguments, tuple(writes)))


class Recorded:
    """Runs a plan: step by step at first, then as a list of launches.

    Attributes:
        recordings: how often it was recorded.
    """

    def __init__(self, runtime: OpenCLRuntime, replay: Run) -> None:
        self.runtime, self.replay = runtime, replay
        self.recordings = 0
        self._watched = 0
        self._list: Launches | None = None

    def __call__(self, *buffers: Buffer) -> tuple[Buffer, ...]:
        if os.environ.get("HAL_OPENCL_SYNC", "") not in ("", "0"):
            return self.replay(*buffers)
        if self._list is not None:
            if self._list.suits(buffers):
                return self._list.run(buffers)
            self._list = None
        if self._watched < WATCHED:
            self._watched += 1
            return self.replay(*buffers)
        if self.recordings == MOST_RECORDINGS:
            return self.replay(*buffers)
        return self._record(buffers)

    def _record(self, buffers: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
        runtime = self.runtime
        self.recordings += 1
        with runtime.lock:
            recorder = runtime.recorder = Recorder()
            try:
                results = self.replay(*buffers)
            finally:
                runtime.recorder = None
        found = Launches(runtime, recorder, buffers, results)
        if recorder.refused or not recorder.launches or found.shared or found.held > MOST_HELD * runtime.pool.limit:
            self.recordings = MOST_RECORDINGS
        else:
            self._list = found
        return results


class Launches:
    """What was recorded.

    With `own`, intermediate results stay with it; else they come from the pool in each call.

    Attributes:
        held: bytes of what stays with it.
        shared: whether something is written that the host shares, and that must be waited for.
        fixed: whether a result is the same memory in every call, and none of the inputs'.
    """

    def __init__(
        self,
        runtime: OpenCLRuntime,
        recorder: Recorder,
        inputs: tuple[Buffer, ...],
        results: tuple[Buffer, ...],
        own: bool = True,
    ) -> None:
        import pyopencl as cl

        self.runtime = runtime
        # Weak, so that state may be sent away while it waits; None where another memory comes with each call.
        self.inputs: list[weakref.ref[Memory] | None] = [weakref.ref(x.memory) for x in inputs]
        self.form = [(x.strides, x.offset) for x in inputs]
        first: dict[Memory, int] = {}
        self.alias = [first.setdefault(x.memory, i) for i, x in enumerate(inputs)]  # the first input that lies there
        self.distinct = len(first)
        written = {m for launch in recorder.launches for m in launch[5]}
        self.shared = any(m.host is not None for m in written)
        self.written = [x.memory in written for x in inputs]
        between = () if own else written
        made = [m for m in dict.fromkeys((*(r.memory for r in results), *between)) if m in written and m not in first]
        places: dict[Memory, list[tuple[Any, int]]] = {m: [] for m in (*first, *made)}
        self.keep: set[Memory] = set()
        self.launches: list[tuple[Any, Shape, Shape, str]] = []
        for label, kernel, items, local, arguments, _ in recorder.launches:
            mine = cl.Kernel(kernel.get_info(cl.kernel_info.PROGRAM), kernel.function_name)
            for i, argument in enumerate(arguments):
                mine.set_arg(i, argument.data if isinstance(argument, Memory) else argument)
                if isinstance(argument, Memory):
                    places[argument].append((mine, i)) if argument in places else self.keep.add(argument)
            self.launches.append((mine, items, local, label))
        self.held = sum(m.nbytes for m in self.keep)
        self.places = [places[x.memory] if self.alias[i] == i else [] for i, x in enumerate(inputs)]
        self.made = [(places[m], m.nbytes, m.made_by) for m in made]
        order = {m: i for i, m in enumerate(made)}
        self.results = [(first.get(r.memory), order.get(r.memory), _unbound(r, first, order)) for r in results]
        self.fixed = any(given is None and new is None for given, new, _ in self.results)

    def suits(self, buffers: tuple[Buffer, ...]) -> bool:
        """Whether inputs lie in their memory, and share it, as those did that were recorded."""
        moved = False
        for i, (x, before) in enumerate(zip(buffers, self.inputs, strict=True)):
            if (x.strides, x.offset) != self.form[i]:
                return False
            if before is None or before() is not x.memory:
                moved = True
                if x.memory is not buffers[self.alias[i]].memory or (self.written[i] and x.memory.host is not None):
                    return False
        return not moved or len({x.memory for x in buffers}) == self.distinct

    def run(self, buffers: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
        """Enqueue the launches for inputs that suit."""
        import pyopencl as cl

        runtime = self.runtime
        made = [runtime.pool.take(nbytes, made_by) for _, nbytes, made_by in self.made]
        enqueue, queue, note = cl.enqueue_nd_range_kernel, runtime.queue, runtime.events.append
        label = "a recorded plan"
        with runtime.lock:
            try:
                for i, (x, before) in enumerate(zip(buffers, self.inputs, strict=True)):
                    if before is None or before() is not x.memory:
                        self.inputs[i] = None
                        for kernel, place in self.places[i]:
                            kernel.set_arg(place, x.memory.data)
                for memory, (places, _, _) in zip(made, self.made, strict=True):
                    for kernel, place in places:
                        kernel.set_arg(place, memory.data)
                for kernel, items, local, label in self.launches:  # the last one is the message
                    note((enqueue(queue, kernel, items, local), label))
            except cl.Error as error:
                raise runtime.failure(label, error) from error
        return tuple([self._result(r, buffers, made) for r in self.results])

    def _result(self, told: tuple[int | None, int | None, Any], buffers: tuple[Buffer, ...], made: Any) -> Buffer:
        given, new, result = told
        if given is None and new is None:  # the same in every call
            return result
        shape, dtype, strides, offset = result
        if given is None:
            return Buffer(made[new], shape, dtype, strides, offset)
        x = buffers[given]
        if (x.shape, x.dtype, x.strides, x.offset) == result:
            return x
        return Buffer(x.memory, shape, dtype, strides, offset)


def _unbound(r: Buffer, *others: dict[Memory, int]) -> Any:
    """A result without its memory, which is another one in each call, or as it is."""
    return (r.shape, r.dtype, r.strides, r.offset) if any(r.memory in other for other in others) else r
