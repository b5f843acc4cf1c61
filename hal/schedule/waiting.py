"""Lets state wait on the host while its device is full: where it goes, and how it comes back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hal.device import Device
from hal.spec import Spec
from hal.tensor import Storage, Tensor, Waiting
from hal.transfer import move


def put_aside(storage: Storage, holders: Iterable[Tensor], waiting: Waiting) -> None:
    """Let these be the contents of a storage, and the tensors that hold its old buffer let go of it."""
    storage.buffer = waiting
    storage.generation += 1
    for tensor in holders:
        tensor._buffer = None


def sent_away(storage: Storage, holders: Sequence[Tensor], spec: Spec, home: Device, where: Device) -> Any:
    """The buffer on `where` with the contents of a storage, which wait there from now on."""
    now = storage.buffer
    buffer, source = (now.buffer, now.where) if type(now) is Waiting else (now, home)
    if source is not where:
        buffer = move(buffer, spec, source, where)
        put_aside(storage, holders, Waiting(buffer, where, spec, home))
    return buffer


def fetched(storage: Storage) -> None:
    """Bring the contents of a storage back, if they wait."""
    if type(storage.buffer) is Waiting:
        storage.buffer = storage.buffer.back()


def make_room(tensors: Iterable[Tensor]) -> None:
    """Send the contents of all that lie on devices with little memory to the host."""
    from hal.schedule.machine import host_device  # which reads the registry, and that reads policies

    host = host_device()
    holders: dict[Storage, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.parent is None and tensor.device.backend.max_memory(tensor.device) is not None:
            holders.setdefault(tensor.storage, []).append(tensor)
    for storage, those in holders.items():
        sent_away(storage, those, those[0].spec, those[0].device, host)
