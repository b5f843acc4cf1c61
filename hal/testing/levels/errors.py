"""Errors: a call that makes no sense is refused with words that help, nothing is changed, and the device goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import hal
from hal import ops
from hal.device import Device
from hal.errors import DTypeError, GradientError, HalError, SettingError, ShapeError
from hal.policy import fallback
from hal.tensor import Tensor
from hal.testing.calls import fetch
from hal.testing.case import Case, Level
from hal.testing.checks import Declined, case, numbers, same_bits

Call = Callable[[Tensor, Tensor], Any]

# x is (4, 6), y is (3, 5): the error, words that its message must have, and the call.
REFUSED: dict[str, tuple[type[Exception], tuple[str, ...], Call]] = {
    "add": (ShapeError, ("add", "(4, 6)", "(3, 5)"), lambda x, y: x + y),
    "matmul": (ShapeError, ("matmul", "(4, 6)", "(3, 5)"), lambda x, y: x @ y),
    "reshape": (ShapeError, ("(4, 6)",), lambda x, y: ops.reshape(x, shape=(5, 5))),
    "sum-axis": (ShapeError, ("sum", "axis 2"), lambda x, y: ops.sum(x, axis=2)),
    "broadcast": (ShapeError, ("(4, 6)", "(4, 7)"), lambda x, y: ops.broadcast_to(x, shape=(4, 7))),
    "concat": (ShapeError, ("concat",), lambda x, y: ops.concat(x, y, axis=0)),
    "linear": (ShapeError, ("linear",), lambda x, y: ops.linear(x, y)),
    "bits-of-floats": (DTypeError, ("bitwise_and",), lambda x, y: ops.bitwise_and(x, x)),
    "float-indices": (DTypeError, ("take",), lambda x, y: ops.take(x, y, axis=0)),
    "unknown-setting": (SettingError, ("sum", "dimension"), lambda x, y: ops.sum(x, dimension=1)),
    "missing-setting": (SettingError, ("take", "axis"), lambda x, y: ops.take(x, y)),
    "too-few-inputs": (SettingError, ("matmul",), lambda x, y: ops.matmul(x)),
    "in-place-shape": (ShapeError, ("(4, 6)",), lambda x, y: x.add_(hal.reshape(x, (1, 4, 6)))),
    "item-of-many": (ShapeError, ("item",), lambda x, y: x.item()),
}  # fmt: skip


def _well(device: Device, x: Tensor, before: np.ndarray[Any, Any]) -> str:
    """Whether the device still works, and a tensor is what it was."""
    problem = same_bits("after the error an input is changed", fetch(x), before)
    with fallback("allow"):
        got = fetch(x + x)
    return problem or same_bits("after the error the device computes wrongly", got, before + before)


def _refused(name: str) -> Case:
    kind, words, call = REFUSED[name]

    def check(device: Device) -> str:
        sent = numbers(device, 4, 6)
        x, y = hal.tensor(sent, device=device), hal.tensor(numbers(device, 3, 5), device=device)
        try:
            with fallback("allow"):
                result = call(x, y)
                fetch(result)
        except kind as error:
            missing = [word for word in words if word not in str(error)]
            if missing:
                return f"the message does not say {', '.join(missing)}: {error}"
        except Exception as error:
            return f"expected {kind.__name__}, got {type(error).__name__}: {error}"
        else:
            return f"expected {kind.__name__}, and it ran"
        return _well(device, x, sent)

    return case(f"errors/refused/{name}", check)


def _out_of_range(name: str, call: Callable[[Tensor, Tensor], Any]) -> Case:
    """Indices that do not exist: an IndexError where that is cheap, anything else but harm where it is not."""

    def check(device: Device) -> str:
        sent = numbers(device, 4, 6)
        x = hal.tensor(sent, device=device)
        beside = hal.tensor(sent, device=device)
        if hal.int64 not in device.backend.dtypes:
            raise Declined(f"{device.type} declares no int64")
        for indices in ([0, 4, 1], [-5, 0, 0], [10**6, 0, 0], [-(2**40), 0, 0]):
            try:
                with fallback("allow"):
                    fetch(call(x, hal.tensor(np.array(indices), device=device)))
            except (IndexError, HalError):
                pass
            problem = _well(device, x, sent) or _well(device, beside, sent)
            if problem:
                return f"indices {indices}: {problem}"
        return ""

    return case(f"errors/out-of-range/{name}", check, op=name)


def _backward_twice(device: Device) -> str:
    if not device.backend.training:
        raise Declined(f"{device.type} declares that it does not train")
    sent = numbers(device, 4, 6)
    x = hal.tensor(sent, device=device, requires_grad=True)
    with fallback("allow"):
        y = (x * x).sum()
        y.backward()
        try:
            y.backward()
        except GradientError:
            return _well(device, x.detach(), sent)
    return "backward() ran twice through a graph that the first had freed"


def _inference_only(device: Device) -> str:
    """A device that declares that it does not train refuses to record a gradient, and computes without one."""
    if device.backend.training:
        raise Declined(f"{device.type} trains")
    sent = numbers(device, 4, 6)
    x = hal.tensor(sent, device=device, requires_grad=True)
    try:
        with fallback("allow"):
            x * x
    except HalError as error:
        if str(device) not in str(error):
            return f"the message does not name the device: {error}"
        return _well(device, x.detach(), sent)
    return f"{device.type} declares that it does not train, and a gradient was recorded on it: declare training=True"


def _no_such_device(device: Device) -> str:
    try:
        hal.zeros(3, device=f"{device.type}:999")
    except HalError as error:
        return "" if f"{device.type}:999" in str(error) else f"the message does not name the device: {error}"
    return f"a tensor was made on {device.type}:999"


def cases(device: Device) -> Iterator[Case]:
    """Calls that are refused, indices that do not exist, gradients that cannot be had."""
    for name in REFUSED:
        yield _refused(name)
    yield _out_of_range("take", lambda x, i: ops.take(x, i, axis=0))
    yield _out_of_range("index_add", lambda x, i: ops.index_add(x, i, x[:3] * 0, axis=0))
    yield _out_of_range("gather", lambda x, i: hal.gather(x, 0, hal.reshape(i, (3, 1))))
    yield case("errors/backward-twice", _backward_twice)
    yield case("errors/inference-only", _inference_only)
    yield case("errors/no-such-device", _no_such_device)


LEVEL = Level("errors", "calls that make no sense are refused in words, and the device goes on", 130, cases)
