"""Views: tensors that share the memory of another, on every device.

Where the device has views, the buffer itself is one. Elsewhere the view remembers how it was made: it is made
again when the storage it belongs to has changed, and a change of the view is carried back to its parent.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

from hal import ops, tracing
from hal.spec import Shape

if TYPE_CHECKING:
    from hal.op import Op
    from hal.tensor import Tensor

Settings = dict[str, Any]


def reshaped(parent: Tensor, value: Tensor, settings: Settings) -> Tensor:
    """A new value of a view with all elements of its parent, in the parent's shape."""
    result: Tensor = ops.reshape(value, shape=parent.shape)
    return result


def _permuted(parent: Tensor, value: Tensor, settings: Settings) -> Tensor:
    axes = settings["axes"]
    result: Tensor = ops.permute(value, axes=tuple(sorted(range(len(axes)), key=lambda i: axes[i] % len(axes))))
    return result


def _sliced(parent: Tensor, value: Tensor, settings: Settings) -> Tensor:
    result: Tensor = ops.slice_update(parent, value, **settings)
    return result


# How a new value of the view changes the parent; None where several elements of the view are one of the parent.
VIEWS: dict[str, Callable[[Tensor, Tensor, Settings], Tensor] | None] = {
    "reshape": reshaped,
    "permute": _permuted,
    "slice": _sliced,
    "broadcast_to": None,
}


def is_stretched(x: Tensor) -> bool:
    """Whether several elements of `x` are one in memory, so that it cannot be changed in place."""
    while x.parent is not None:
        if VIEWS[x.made_by[0].name] is None and x.spec.size != x.parent.spec.size:
            return True
        x = x.parent
    return False


def strides(x: Tensor) -> Shape:
    """Elements from one to the next along each axis of a view, in memory that holds its first parent row by row."""
    if x.parent is None:
        return tuple(prod(x.shape[i + 1 :]) for i in range(x.ndim))
    steps, (op, settings) = strides(x.parent), x.made_by
    if op.name == "permute":
        return tuple(steps[a] for a in settings["axes"])
    if op.name == "slice":
        return tuple(s * step for s, step in zip(steps, settings["step"], strict=True))
    if op.name == "broadcast_to":
        shape = x.parent.shape
        kept = (s if n == m else 0 for s, n, m in zip(steps, shape, x.shape[x.ndim - len(shape) :], strict=True))
        return (*(0,) * (x.ndim - len(shape)), *kept)
    found = strides_as(x.parent.shape, steps, x.shape)
    assert found is not None, "a reshape that would have to copy was linked as a view"
    return found


def strides_as(shape: Shape, steps: Shape, wanted: Shape) -> Shape | None:
    """The strides of the same elements in another shape, or None if they would have to be copied for it."""
    blocks: list[tuple[int, int]] = []  # axes that lie in memory as one: how many elements, and how far apart
    for n, step in zip(shape, steps, strict=True):
        if blocks and blocks[-1][1] == n * step:
            blocks[-1] = (blocks[-1][0] * n, step)
        elif n != 1:
            blocks.append((n, step))
    found: list[int] = []
    left, step = 1, 1
    for n in reversed(wanted):
        if left == 1 and n != 1 and blocks:
            left, step = blocks.pop()
        if n and left % n:
            return None
        found.append(step)
        left, step = left // n if n else 0, step * n
    return tuple(reversed(found))


def link(out: Tensor, parent: Tensor, op: Op, settings: Settings) -> None:
    """Make `out`, the result of the movement op on `parent`, a view of it (unless the device had to copy).

    A device without views copies always; there a reshape is a view where one with views would not have to copy.
    """
    if tracing.tracer is not None and tracing.active():  # memory that is nowhere yet; the tracer links what it records
        return
    if out.device is not parent.device:
        return
    backend = parent.device.backend
    if backend.views:
        if not backend.shares(out._buffer, parent._buffer):
            return
    elif op.name == "reshape" and strides_as(parent.shape, strides(parent), out.shape) is None:
        return
    out.storage = parent.storage
    out._generation = parent.storage.generation
    out.parent = parent
    out.made_by = (op, settings)
    out.seen = parent.node
