"""One network on several devices: each batch is cut into parts, and all gradients come back to the network's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import hal
from hal import ops
from hal.creation import DeviceLike
from hal.errors import SettingError, ShapeError
from hal.tensor import Tensor
from nn.module import Module


class DataParallel(Module):
    """Runs `module` on several devices at once, each on a part of the batch.

    The first device has the module. The others are lent copies of its parameters and buffers for each call, through
    which gradients flow back and add up; what a replica writes into its buffers is forgotten. Where devices work
    asynchronously, they work at the same time.

    Args:
        module: the network; its state is this one's, under names that begin with `module.`.
        device_ids: the devices, the first of which gets the module; all of the kind that its parameters are on, if not
            given.
        output_device: where results are put together; the first device, if not given.
        dim: the axis along which tensors are cut and results put together. Results without axes become a vector with
            one element from each device.

    Raises:
        SettingError: no device, or one that is named twice.
        ShapeError: a call without a tensor that could be cut.

    Source: torch.nn.DataParallel.
    """

    def __init__(
        self,
        module: Module,
        device_ids: Sequence[DeviceLike] | None = None,
        output_device: DeviceLike = None,
        dim: int = 0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.devices = _all_beside(module) if device_ids is None else [hal.device(name) for name in device_ids]
        if not self.devices or len(set(self.devices)) < len(self.devices):
            raise SettingError(f"DataParallel needs one or more devices, each once, got device_ids={device_ids}")
        self.output_device = self.devices[0] if output_device is None else hal.device(output_device)
        self.module = module.to(self.devices[0])

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        sizes = [x.shape[self.dim] for x in _tensors((inputs, kwargs)) if x.ndim]
        if not sizes:
            raise ShapeError("DataParallel needs a tensor to cut into parts, got none")
        devices = self.devices[: max(1, min(sizes))]
        results = []
        for number, device in enumerate(devices):
            args, named = _each((inputs, kwargs), partial(self._part, number, len(devices), device))
            replica = self.module if number == 0 else _replica(self.module, device, {}, {})
            results.append(replica(*args, **named))
        return _together(results, self._join)

    def _part(self, number: int, parts: int, device: hal.Device, x: Tensor) -> Tensor:
        return (x.tensor_split(parts, dim=self.dim)[number] if x.ndim else x).to(device)

    def _join(self, parts: list[Tensor]) -> Tensor:
        moved = [x.to(self.output_device) for x in parts]
        return ops.concat(*moved, axis=self.dim) if moved[0].ndim else ops.stack(*moved, axis=0)


def _all_beside(module: Module) -> list[hal.Device]:
    """All devices of the kind that the module is on."""
    first = next(module.parameters(), None)
    kind = (hal.zeros(()) if first is None else first).device.type
    count = hal.device_count(kind)
    return [hal.device(f"{kind}:{i}") for i in range(count)]


def _replica(module: Module, device: hal.Device, modules: dict[int, Module], tensors: dict[int, Tensor]) -> Module:
    """The module with copies of its parameters and buffers on a device, shared where they are shared there."""
    if id(module) in modules:
        return modules[id(module)]

    def lent(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        if id(x) not in tensors:
            tensors[id(x)] = x.to(device)
        return tensors[id(x)]

    replica: Module = object.__new__(type(module))
    modules[id(module)] = replica
    replica.__dict__.update(module.__dict__, _compiled=None)
    for table in ("_parameters", "_buffers"):
        replica.__dict__[table] = {name: lent(x) for name, x in getattr(module, table).items()}
    replica.__dict__["_modules"] = {
        name: None if part is None else _replica(part, device, modules, tensors)
        for name, part in module._modules.items()
    }
    return replica


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def noted(x: Tensor) -> Tensor:
        found.append(x)
        return x

    _each(value, noted)
    return found


def _each(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same nesting with `function` of each tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: _each(x, function) for key, x in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_each(x, function) for x in value))
    return type(value)(_each(x, function) for x in value) if isinstance(value, (tuple, list)) else value


def _together(results: list[Any], join: Callable[[list[Tensor]], Tensor]) -> Any:
    """One nesting of results out of those of all devices."""
    first = results[0]
    if isinstance(first, Tensor):
        return join(results)
    if isinstance(first, Mapping):
        return {key: _together([r[key] for r in results], join) for key in first}
    if isinstance(first, (tuple, list)):
        parts = [_together(list(same), join) for same in zip(*results, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return first
