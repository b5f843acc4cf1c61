"""Moves the contents of tensors between devices and the host: directly where a backend can, else through the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hal.device import Device
from hal.errors import DTypeError
from hal.op import Array
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.plugin import Buffer


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
    return device.backend.upload(array, device)


def move(buffer: Buffer, spec: Spec, source: Device, target: Device) -> Buffer:
    """A copy of `buffer` of `source` in the memory of `target`.

    Raises:
        DTypeError: the target has no such element type.
    """
    check_dtype(spec, target)
    direct = target.backend.copy(buffer, spec, source, target)
    if direct is not None:
        return direct
    return target.backend.upload(source.backend.download(buffer, spec), target)
