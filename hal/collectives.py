"""Sums over devices: one tensor on each, and their sum or mean on each. What data-parallel training averages with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hal.errors import DeviceError, GradientError, SettingError, ShapeError
from hal.recording import no_grad
from hal.tensor import Tensor


def all_reduce(tensors: Sequence[Tensor], op: Literal["sum", "mean"] = "sum") -> list[Tensor]:
    """The sum, or the mean, of tensors of one shape and dtype on different devices: a new one on each of them.

    Devices of one backend that can (GPUs with NCCL) sum among themselves. Else all are copied to the first, summed
    in order, and copied back. Gradients are not recorded.

    Raises:
        SettingError: there is no tensor, or `op` is something else.
        ShapeError: shapes or dtypes differ.
        DeviceError: two of them are on one device.
        GradientError: one of them is part of a graph that records gradients.

    Source: torch.distributed.all_reduce; MPI's MPI_Allreduce.
    """
    if op not in ("sum", "mean"):
        raise SettingError(f"all_reduce knows the ops 'sum' and 'mean', got {op!r}")
    if not tensors:
        raise SettingError("all_reduce needs at least one tensor, got none")
    first = tensors[0]
    for i, x in enumerate(tensors):
        if x.spec != first.spec:
            raise ShapeError(f"all_reduce needs tensors of one shape and dtype, got {first.spec} and, at {i}, {x.spec}")
        if x.tracked and x.node is not None:
            raise GradientError("all_reduce records no gradients: give it .detach() of each tensor")
    where = [x.device for x in tensors]
    if len(set(where)) < len(where):
        raise DeviceError(f"all_reduce needs one tensor for each device, got them on {', '.join(map(str, where))}")
    with no_grad():
        sums = _by_backend(tensors) or _by_copies(tensors)
        return [x / len(tensors) for x in sums] if op == "mean" else sums


def _by_backend(tensors: Sequence[Tensor]) -> list[Tensor] | None:
    """The sums, by the backend of all devices."""
    first = tensors[0]
    if len(tensors) == 1 or len({x.device.type for x in tensors}) > 1:
        return None
    devices = [x.device for x in tensors]
    found = first.device.backend.all_reduce([x.buffer for x in tensors], first.spec, devices)
    if found is None:
        return None
    return [Tensor(b, first.spec, x.device, x.origin) for b, x in zip(found, tensors, strict=True)]


def _by_copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sums, on the first device, in order: equal on every device, and in every run."""
    total = tensors[0].detach().clone()
    for x in tensors[1:]:
        total = total + x.detach().to(total.device)
    return [total, *(total.to(x.device) for x in tensors[1:])]
