"""What a trace takes for granted, and whether it still holds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from hal.tensor import Storage, Tensor


@dataclass(frozen=True)
class Taken:
    """What must hold before a call, so that what was traced is good for it.

    Attributes:
        tensors: those that were there before the trace: each with its memory and its switch for gradients.
        attributes: of objects, and what they were.
        before: `.grad`s that were looked at: the leaf (or argument's place), and what it was.
        guards: functions, and what they gave.
    """

    tensors: tuple[tuple[Tensor, Storage, bool], ...]
    attributes: tuple[tuple[Any, str, Any], ...]
    before: tuple[tuple[Tensor | int, Tensor | None], ...]
    guards: tuple[tuple[Callable[[], Hashable], Hashable], ...]

    def holds(self, leaves: Sequence[Tensor]) -> bool:
        """Whether it does, for a call with these tensors among its arguments."""
        for tensor, storage, tracked in self.tensors:
            if tensor.storage is not storage or tensor.tracked is not tracked:
                return False
        for owner, name, value in self.attributes:
            now = getattr(owner, name)
            if now is not value and now != value:
                return False
        for leaf, before in self.before:
            now = (leaves[leaf] if isinstance(leaf, int) else leaf)._grad
            if now is None or before is None:
                if now is not before:
                    return False
            elif now.spec is not before.spec or now.device is not before.device or now.parent is not None:
                return False
        return all(key() == value for key, value in self.guards)
