"""Whether a function is being traced into a graph, and what code that runs in it may tell the trace.

Python code runs once, when it is traced. What it does besides calling ops (counting steps, reading a learning rate)
would not happen again in the calls that follow, so it is said here: `number`, `on_success`, `guard`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from hal.errors import GraphError, OutOfMemoryError

if TYPE_CHECKING:
    from hal.device import Device
    from hal.dtypes import DType
    from hal.graph.tracer import Tracer
    from hal.tensor import Tensor

Made = TypeVar("Made")
tracer: Tracer | None = None  # of whichever thread; `active` asks whether it is this one's


def active() -> Tracer | None:
    """The trace that this thread is recording, if it is."""
    if tracer is None or tracer.suspended or tracer.thread != threading.get_ident():
        return None
    return tracer


@contextmanager
def eagerly() -> Iterator[None]:
    """Let ops inside the block run at once and not be traced: what is made there is real, and made only once."""
    found = active()
    if found is None:
        yield
        return
    found.suspended += 1
    try:
        yield
    finally:
        found.suspended -= 1


def once(make: Callable[[], Made]) -> Made:
    """What `make()` gives: in a trace too it is real, made now and only once.

    Where a device is too full for that, what the function has used so far goes to the host, and `make` is called again.
    """
    found = active()
    if found is None:
        return make()
    with eagerly():
        try:
            return make()
        except OutOfMemoryError:
            pass
        found.make_room()
        return make()


def number(compute: Callable[[], float], dtype: DType, device: Device, key: Hashable = None) -> Tensor:
    """A 0-d tensor with what `compute()` gives: in a trace, anew for every call of the compiled function.

    Args:
        key: numbers with equal keys are the same; without one, those of the same function are.
    """
    import numpy as np

    from hal.spec import Spec
    from hal.tensor import CONSTANT, Tensor
    from hal.transfer import upload

    spec = Spec((), dtype)
    found = active()
    if found is not None:
        return found.computed(
            lambda: np.array(compute(), dtype.numpy), spec, device, key=compute if key is None else key
        )
    return Tensor(upload(np.array(compute(), dtype.numpy), spec, device), spec, device, CONSTANT)


def on_success(effect: Callable[[], Any]) -> None:
    """Call `effect()` when the step has succeeded: now; in a trace, after every call that did not fail."""
    found = active()
    if found is None:
        effect()
    else:
        found.effects.append(effect)


def only_now() -> None:
    """In a trace: it is good for this one call; for the next, trace again."""
    found = active()
    if found is not None:
        found.once = True


def refuse(who: str, cure: str) -> None:
    """Raise GraphError in a trace: `who` goes on in Python from call to call, which a replay would not do."""
    found = active()
    if found is not None:
        raise GraphError(f"{who} cannot be traced, as {found.who} is: it goes on in Python from call to call; {cure}")


def guard(key: Callable[[], Hashable]) -> None:
    """In a trace: it is good for calls before which `key()` equals what it is now; for others, trace again."""
    found = active()
    if found is not None:
        found.guards.append((key, key()))


def guard_attribute(owner: Any, name: str) -> None:
    """In a trace: it is good for calls before which the attribute is the same object or an equal number."""
    found = active()
    if found is not None:
        found.attributes[id(owner), name] = (owner, name, getattr(owner, name))
