"""The user's own word on where the parts of a model run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from hal import tracing
from hal.config import did_you_mean
from hal.device import Device
from hal.errors import DeviceError

Module = TypeVar("Module")
_hooks: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()  # of modules that were placed: the latest word counts


def place(module: Module, where: Mapping[str, str | Device]) -> Module:
    """Put parts of a module on devices: their parameters now, and what they are called with whenever they are called.

    What the user places stays there, eagerly and in compiled functions, also with `hal.placement("auto")`: every op of
    the part, and the gradients of these ops. Functions that were compiled before are traced again.

    Args:
        module: an `nn.Module` (or anything with its `named_modules`, `to` and forward hooks).
        where: from names of submodules to devices. `*` stands for any text, and an empty name for the whole; of several
            that fit a module the last one counts.

    Returns:
        The module itself.

    Raises:
        DeviceError: a name fits no submodule, or there is no such device. Nothing was moved then.

    >>> import hal, nn
    >>> model = hal.place(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), {"0": "cpu", "1": "fake"})
    >>> model(hal.ones(1, 2)).device
    device('fake')
    """
    from hal.graph.compiler import forget_all  # not needed before something is placed

    parts: dict[str, Any] = dict(module.named_modules())  # type: ignore[attr-defined]  # of nn, which is not imported here
    chosen: dict[str, Device] = {}
    for pattern, device in where.items():
        fitting = [name for name in parts if fnmatchcase(name, pattern)]
        if not fitting:
            near = did_you_mean(pattern, list(parts))
            raise DeviceError(
                f"hal.place: no submodule fits {pattern!r}; there are {', '.join(filter(None, parts))}{near}"
            )
        chosen |= dict.fromkeys(fitting, Device(device))
    for name, device in chosen.items():
        part = parts[name]
        part.to(device)
        for handle in _hooks.pop(part, ()):
            handle.remove()
        _hooks[part] = [
            part.register_forward_pre_hook(_bringing(device), with_kwargs=True),
            part.register_forward_hook(_leaving(device), always_call=True),
        ]
    forget_all()
    return module


def _bringing(device: Device) -> Callable[[Any, tuple[Any, ...], dict[str, Any]], tuple[Any, Any]]:
    """A hook that brings what a module is called with to its device; a trace is told that what follows stays there."""
    from hal.tensor import Tensor

    def brought(x: Any) -> Any:
        if isinstance(x, Tensor):
            return x.to(device)
        if isinstance(x, (list, tuple)):
            parts = [brought(part) for part in x]
            return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
        if isinstance(x, dict):
            return {name: brought(part) for name, part in x.items()}
        return x

    def bring(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        given = brought(args), brought(kwargs)
        tracer = tracing.active()
        if tracer is not None:
            tracer.parts.append(device)
        return given

    return bring


def _leaving(device: Device) -> Callable[[Any, Any, Any], None]:
    """A hook that tells a trace that the module has returned."""

    def leave(module: Any, args: Any, result: Any) -> None:
        tracer = tracing.active()
        if tracer is not None and tracer.parts and tracer.parts[-1] is device:
            tracer.parts.pop()

    return leave
