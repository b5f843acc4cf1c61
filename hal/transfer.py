"""Moves the contents of tensors between devices and the host: directly where a backend can, else through the host."""

from __future__ import annotations

from collections.abc import Callable

from hal import tracing
from hal.abstract import StaleBackend
from hal.device import Device
from hal.errors import DTypeError
from hal.op import Array
from hal.plugin import Buffer
from hal.recording import Node, mode
from hal.source import user_line
from hal.spec import Spec
from hal.tensor import Origin, Tensor, Waiting


def check_dtype(spec: Spec, device: Device) -> None:
    """Raise DTypeError if `device` cannot hold elements of this type."""
    if spec.dtype not in device.backend.dtypes:
        has = ", ".join(sorted(d.name for d in device.backend.dtypes))
        raise DTypeError(f"device {device} has no {spec.dtype.name}; it has {has}: choose another dtype= or device=")


def upload(array: Array, spec: Spec, device: Device) -> Buffer:
    """A new buffer on `device` with the contents of `array`.

    Raises:
        DTypeError: the device has no such element type.
    """
    check_dtype(spec, device)
    tracer = tracing.active()
    return device.backend.upload(array, device) if tracer is None else tracer.constant(array, spec, device)


def move(buffer: Buffer, spec: Spec, source: Device, target: Device) -> Buffer:
    """A copy of `buffer` of `source` in the memory of `target`.

    Raises:
        DTypeError: the target has no such element type.
    """
    check_dtype(spec, target)
    return _move(buffer, spec, source, target) if timed is None else timed(_move, buffer, spec, source, target)


timed: Callable[..., Buffer] | None = None  # a profile, which wants to know of copies


def _move(buffer: Buffer, spec: Spec, source: Device, target: Device) -> Buffer:
    direct = target.backend.copy(buffer, spec, source, target)
    if direct is not None:
        return direct
    return target.backend.upload(source.backend.download(buffer, spec), target)


def contents(x: Tensor) -> tuple[Buffer, Device]:
    """A buffer with the contents of `x`, and whose it is: its device's, or that of the host if they wait there."""
    now = x.storage.buffer
    if type(now) is Waiting and x.parent is None:
        return now.buffer, now.where
    return x.buffer, x.device


def _contents_on(x: Tensor, target: Device, asked: bool = False) -> Buffer:
    tracer = tracing.active()
    if tracer is None:
        buffer, where = contents(x)
        return move(buffer, x.spec, where, target)
    check_dtype(x.spec, target)
    return tracer.copy(x, target, asked)


def moved(x: Tensor, target: Device) -> Tensor:
    """The contents of `x` on `target`, without a history."""
    return Tensor(_contents_on(x, target), x.spec, target, x.origin)


class _Copy:
    """Stands in a recorded operation where an op would: the gradient of a copy between devices is a copy back."""

    name = "to_device"

    def gradient(self, g: Tensor, out: Tensor, x: Tensor) -> tuple[Tensor]:
        return (to_device(g, x.device),)


def to_device(x: Tensor, device: Device, *, asked: bool = False) -> Tensor:
    """`x` on `device`: itself if it is there, else a copy through which gradients flow back.

    Args:
        asked: the user wants it there in so many words, so that a compiled function keeps it so.
    """
    if x.device is device:
        return x
    if isinstance(x.device.backend, StaleBackend):
        x.device.backend.refuse((x,))
    out = Tensor(_contents_on(x, device, asked), x.spec, device, Origin(2, user_line()))
    if x.tracked and mode.enabled:
        if x.parent is not None:
            x.renew_history()
        out.node, out.tracked = Node(_Copy(), (x,), (out,), {}), True
    return out
