"""Devices as values: `hal.device("opencl:0")` can be compared, hashed, printed, and entered with `with`."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from hal.errors import DeviceError

if TYPE_CHECKING:
    from hal.plugin import Backend

Kind = type[BaseException]  # in the class below, `type` is the name of a backend


class Device:
    """One device of one backend. There is one object for each, so `is` and `==` mean the same.

    `Device("name")`, `Device("name:1")` and `Device("name", 1)` find it by what a user writes; a backend makes its
    own with `Device(self)`, or `Device(self, i)` and `Device(self, "variant")` if it has several.

    As a context manager, it is where tensors are created inside the block, on purpose.

    Attributes:
        backend: the backend that it belongs to.
        type: the backend's name.
        index: its number among the devices of its backend (0 for one with a variant's name).
        suffix: what stands after the colon in its name, if anything.

    Raises:
        DeviceError: no such device; the message says what there is, and what would cure it.
    """

    __slots__ = ("__weakref__", "backend", "index", "suffix", "type")

    backend: Backend
    type: str
    index: int
    suffix: int | str | None

    def __new__(cls, which: Any = None, index: int | str | None = None) -> Device:
        if isinstance(which, Device):
            return which
        if which is None or isinstance(which, str):
            from hal import registry  # finds backends, which know devices, so it cannot be imported first

            return registry.find_device(which if which is None or index is None else f"{which}:{index}")
        if not hasattr(type(which), "upload"):
            raise DeviceError(f"a device is asked for by name, such as 'cpu' or 'name:1', got {which!r}")
        key = (id(which), index)
        with _lock:
            found = _interned.get(key)
            if found is None:
                found = object.__new__(cls)
                found.backend, found.type, found.suffix = which, which.name, index
                found.index = index if isinstance(index, int) else 0
                _interned[key] = found  # a device keeps its backend alive, so that the id stays its own
        return found

    def __str__(self) -> str:
        return self.type if self.suffix is None else f"{self.type}:{self.suffix}"

    def __repr__(self) -> str:
        return f"device({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Device, (str(self),)

    def __enter__(self) -> Device:
        _entered().append(self)
        return self

    def __exit__(self, kind: Kind | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _entered().pop()


_interned: WeakValueDictionary[tuple[int, int | str | None], Device] = WeakValueDictionary()
_lock = threading.Lock()
_local = threading.local()


def _entered() -> list[Device]:
    try:
        stack: list[Device] = _local.stack
    except AttributeError:
        stack = _local.stack = []
    return stack


def chosen() -> Device | None:
    """The device of the innermost `with device:` block of this thread."""
    stack = _entered()
    return stack[-1] if stack else None
