"""Where an eager op runs: on the device that its inputs pull it to. What is elsewhere is copied there, and counted."""

from __future__ import annotations

import math
from typing import Any

from hal import registry, report
from hal.abstract import ABSTRACT, StaleBackend
from hal.device import Device
from hal.dtypes import DType, result_type, with_scalar
from hal.errors import CopyError, DTypeError
from hal.graph.host import Number
from hal.interop import as_operand
from hal.op import Op
from hal.policy import copies
from hal.source import describe
from hal.spec import Spec
from hal.tensor import CONSTANT, Tensor
from hal.transfer import check_dtype, to_device

MAX_CONSTANTS = 4096
NUMBERS = (int, float, complex, Number)
_OPERANDS = (Tensor, *NUMBERS)
scalars: dict[tuple[Any, ...], Tensor] = {}  # constants by what Python's operators have at hand
_constants: dict[tuple[Any, ...], Tensor] = {}
_kept: set[int] = set()  # their ids


def forget_constants() -> None:
    """Forget the constants that are kept."""
    _constants.clear()
    _kept.clear()
    scalars.clear()


def is_constant(x: Tensor) -> bool:
    """Whether `x` is one of the constants that are kept, which nothing changes."""
    return id(x) in _kept


registry.on_change(forget_constants)


def constant(value: bool | int | float | complex | Number, spec: Spec, device: Device) -> Tensor:
    """A 0-d tensor with the value of a Python scalar. Kept, since the same few are asked for all the time.

    What a traced function read from a tensor is no constant, but an input.
    """
    if isinstance(value, Number):
        return value.operand(spec, device)
    key = (value, math.copysign(1, value) if isinstance(value, float) else 0, type(value), spec, device)
    found = _constants.get(key)
    if found is None:
        if isinstance(device.backend, StaleBackend):
            device.backend.refuse(())
        if device is ABSTRACT:
            buffer = value  # what a trace of a decomposition reads
        else:
            from hal.creation import scalar_array  # creation is built on this file

            check_dtype(spec, device)
            buffer = device.backend.upload(scalar_array(value, spec), device)
        found = Tensor(buffer, spec, device, CONSTANT)
        if len(_constants) >= MAX_CONSTANTS:
            forget_constants()
        _constants[key] = found
        _kept.add(id(found))
    return found


def operand(x: Any, dtype: DType, device: Device) -> Tensor:
    """A Python number, or one that a traced function read from a tensor, as an operand beside a tensor of `dtype`."""
    sample = x.sample() if isinstance(x, Number) else x
    return constant(x, Spec((), with_scalar(dtype, sample)), device)


def onto_one_device(op: Op, args: tuple[Any, ...]) -> tuple[tuple[Tensor, ...], Device]:
    """The inputs as tensors on the device that pulls most; what is elsewhere is copied there, and counted."""
    given, args = args, tuple(x if isinstance(x, (Tensor, int, float, complex)) else as_operand(x) for x in args)
    tensors = [x for x in args if isinstance(x, Tensor)]
    for x, was in zip(args, given, strict=True):
        if not isinstance(x, _OPERANDS):
            raise DTypeError(
                f"{op.name} takes tensors and Python numbers by position, got {type(was).__name__}: "
                "make a tensor of it with hal.tensor(...)"
            )
    if not tensors:
        raise DTypeError(f"{op.name} needs at least one tensor to know its device, got only Python numbers")
    for x in tensors:
        if isinstance(x.device.backend, StaleBackend):
            x.device.backend.refuse(tuple(tensors))
    # 0-d tensors never pull while there is anything else; ties go to the first
    puller = max(tensors, key=lambda x: (x.ndim > 0 or len(tensors) == 1, x.origin.strength))
    device = puller.device
    odd = [x for x in tensors if x.device is not device]
    if any(x.origin is not CONSTANT for x in odd) and copies.current() == "error":
        raise CopyError(_mismatch(op, args, device))
    dtype = result_type(*(x.dtype for x in tensors))
    ready = []
    for x in args:
        if not isinstance(x, Tensor):
            x = operand(x, dtype, device)
        elif x.device is not device:
            if x.origin is not CONSTANT:
                report.note_copy(op.name, x.device, device, "inputs on different devices", x.spec.nbytes)
            x = to_device(x, device)
        ready.append(x)
    return tuple(ready), device


def _mismatch(op: Op, args: tuple[Any, ...], device: Device) -> str:
    lines = [f"{op.name} needs its inputs on one device, and HAL_COPIES=error forbids copies:"]
    for i, (x, name) in enumerate(zip(args, _names(op, len(args)), strict=True)):
        if isinstance(x, Tensor):
            lines.append(f"  {name} (input {i}) is on {x.device}, put there at {describe(x.origin.line)}")
    lines.append(f"move the odd one with .to({str(device)!r}), or allow copies with hal.copies('allow')")
    return "\n".join(lines)


def _names(op: Op, count: int) -> list[str]:
    names = [n.strip("?*") for n in op.input_names]
    return [names[min(i, len(names) - 1)] for i in range(count)]
