"""The names of modules, for reports: while somebody listens, each call of a module enters its path as a scope."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hal.scopes import scope

if TYPE_CHECKING:
    from nn.module import Module


class _Calls(threading.local):
    """The modules that this thread is inside of, outermost first, with their paths."""

    def __init__(self) -> None:
        self.inside: list[tuple[Module, str]] = []


_calls = _Calls()


def named(module: Module, call: Callable[[], Any]) -> Any:
    """What `call()` gives, inside the scope `path Type`; the path is empty for the outermost module."""
    path = _path(module) if _calls.inside else ""
    _calls.inside.append((module, path))
    try:
        with scope(f"{path} {type(module).__name__}".lstrip()):
            return call()
    finally:
        _calls.inside.pop()


def _path(module: Module) -> str:
    """Where the module stands in one of those around it, the nearest that has it."""
    for outer, path in reversed(_calls.inside):
        for name, part in outer.named_modules():
            if part is module and name:
                return f"{path}.{name}" if path else name
    return ""
