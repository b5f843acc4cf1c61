"""What is allowed to happen by itself: fallbacks to another device, and copies between devices."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hal import config
from hal.errors import ConfigError

if TYPE_CHECKING:
    from hal.device import Device

_local = threading.local()


class _Policy:
    """A value that holds for a `with` block of this thread; outside all blocks, the environment variable's."""

    _name: str
    _choices: tuple[str, ...]
    _variable: str

    def __init__(self, value: str | Iterable[str]) -> None:
        if isinstance(value, str) and value not in self._choices:
            near = config.did_you_mean(value, self._choices)
            raise ConfigError(f"hal.{self._name} takes {', '.join(self._choices)}, got {value!r}{near}")
        self.value = value if isinstance(value, str) else frozenset(value)

    def __enter__(self) -> Any:
        stack = _local.__dict__.setdefault(self._name, [])
        stack.append(self.value)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _local.__dict__[self._name].pop()

    @classmethod
    def current(cls) -> str | frozenset[str]:
        """The value in force."""
        stack = _local.__dict__.get(cls._name)
        return stack[-1] if stack else config.choice(cls._variable, cls._choices)


class fallback(_Policy):  # used like a function: with hal.fallback("error"):
    """What to do when a device has no way to run an op: `warn`, `allow`, `error`, or the names of ops that may.

    >>> import hal
    >>> with hal.fallback("error"):
    ...     hal.ones(3).sum().item()
    3.0
    """

    _name, _choices, _variable = "fallback", config.FALLBACKS, "HAL_FALLBACK"


class copies(_Policy):
    """What to do when the tensors of one op live on different devices: `allow` a copy, or `error`."""

    _name, _choices, _variable = "copies", config.COPIES, "HAL_COPIES"


class placement(_Policy):
    """Where compiled functions run: `follow` their data, or `auto`: where the whole is expected to end first.

    Args:
        value: one of the two.
        devices: the devices that `auto` may use besides those that the function uses already (names or devices);
            default: all that are here, except those that are chosen by name only.

    >>> import hal
    >>> with hal.placement("auto", devices=["cpu"]):
    ...     hal.placement.current(), hal.placement.devices()
    ('auto', (device('cpu'),))
    """

    _name, _choices, _variable = "placement", config.PLACEMENTS, "HAL_PLACEMENT"

    def __init__(self, value: str, devices: Iterable[str | Device] | None = None) -> None:
        super().__init__(value)
        self._devices = None if devices is None else tuple(devices)

    def __enter__(self) -> Any:
        _local.__dict__.setdefault("placement_devices", []).append(self._devices)
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        _local.__dict__["placement_devices"].pop()

    @classmethod
    def block(cls) -> Hashable:
        """What the innermost block says, to compare with what it said before; None outside of all blocks."""
        said = _local.__dict__.get(cls._name)
        return (said[-1], _local.__dict__["placement_devices"][-1]) if said else None

    @classmethod
    def devices(cls) -> tuple[Device, ...] | None:
        """The devices that the innermost block allows; None for all."""
        from hal.device import Device  # devices are found by the registry, which reads policies

        stack = _local.__dict__.get("placement_devices")
        return None if not stack or stack[-1] is None else tuple(Device(d) for d in stack[-1])
