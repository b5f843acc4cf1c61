"""Arguments and results as they come: tensors inside lists, tuples and dictionaries, taken out and put back."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from hal.errors import GraphError
from hal.tensor import Tensor


def flatten(x: Any, leaves: list[Tensor], who: str) -> Hashable:
    """Add the tensors in `x` to `leaves`, and give a key that is equal for equal rests.

    Raises:
        GraphError: something that is neither a tensor, nor such a container, nor can be compared by a hash.
    """
    if isinstance(x, Tensor):
        leaves.append(x)
        return Tensor
    kind = x.__class__
    if kind is tuple or kind is list or isinstance(x, tuple):
        return (kind, *[flatten(part, leaves, who) for part in x])
    if isinstance(x, dict):
        return (kind, *x, *[flatten(part, leaves, who) for part in x.values()])
    try:
        hash(x)
    except TypeError:
        raise GraphError(
            f"{who} is compiled and got a {kind.__name__}, which can be neither traced nor compared with that of the "
            "next call: pass tensors, numbers, strings, and lists, tuples and dictionaries of them"
        ) from None
    return (kind, x)


def mapped(x: Any, change: Callable[[Any], Any], what: type = Tensor) -> Any:
    """`x` with `change(tensor)` in the place of each tensor, or of what else is asked for."""
    if isinstance(x, what):
        return change(x)
    kind = x.__class__
    if isinstance(x, (list, tuple)):
        parts = [mapped(part, change, what) for part in x]
        return kind(*parts) if hasattr(x, "_fields") else kind(parts)
    if isinstance(x, dict):
        found = {name: mapped(part, change, what) for name, part in x.items()}
        return found if kind is dict else kind(found)
    return x
