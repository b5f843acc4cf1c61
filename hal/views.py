"""Views: tensors that share the memory of another, on every device.

Where the device has views, the buffer itself is one. Elsewhere the view remembers how it was made: it is made
again when the storage it belongs to has changed, and a change of the view is carried back to its parent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hal import ops

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


def link(out: Tensor, parent: Tensor, op: Op, settings: Settings) -> None:
    """Make `out`, the result of the movement op on `parent`, a view of it (unless the device had to copy)."""
    backend = parent.device.backend
    if out.device is not parent.device or (backend.views and not backend.shares(out._buffer, parent._buffer)):
        return
    out.storage = parent.storage
    out._generation = parent.storage.generation
    out.parent = parent
    out.made_by = (op, settings)
    out.seen = parent.node
