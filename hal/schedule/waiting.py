"""Lets state live on another device than its tensors say, for as long as plans want it there: how it goes and comes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hal.device import Device
from hal.spec import Spec
from hal.tensor import Storage, Tensor, Waiting
from hal.transfer import move


def lives_on(storage: Storage, home: Device) -> Device:
    """The device that has the contents of a storage now, whose tensors are on `home`."""
    now = storage.buffer
    return now.where if type(now) is Waiting else home


def put_aside(storage: Storage, holders: Iterable[Tensor], waiting: Waiting) -> None:
    """Let these be the contents of a storage, and the tensors that hold its old buffer let go of it."""
    storage.buffer = waiting
    storage.generation += 1
    for tensor in holders:
        tensor._buffer = None


def bring(storage: Storage, holders: Sequence[Tensor], spec: Spec, home: Device, where: Device) -> None:
    """Let the contents of a storage, whose tensors are on `home`, be on `where` from now on."""
    source = lives_on(storage, home)
    if source is where:
        return
    now = storage.buffer
    buffer = move(now.buffer if type(now) is Waiting else now, spec, source, where)
    if where is home:
        storage.buffer = buffer  # tensors ask for it again: nobody has had it since it went
    else:
        put_aside(storage, holders, Waiting(buffer, where, spec, home))


def brought_home(storage: Storage) -> None:
    """Bring the contents of a storage back, if they are elsewhere."""
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
        bring(storage, those, those[0].spec, those[0].device, host)
