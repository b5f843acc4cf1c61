"""Faults: when a kernel fails, the error names it, tensors stay as they were, and the next call runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import hal
from hal import ops, registry
from hal.device import Device
from hal.errors import DeviceError
from hal.op import Array, Op
from hal.plugin import Kernel
from hal.policy import fallback
from hal.recording import no_grad
from hal.spec import Spec
from hal.tensor import Tensor
from hal.testing.calls import fetch
from hal.testing.case import Case, Level
from hal.testing.checks import Declined, case, numbers, same_bits

CANDIDATES = ("mul", "add", "matmul", "exp", "sum")  # the first with a kernel is the one that fails
WORDS = "a fault planted by the suite"


def _native(device: Device) -> Op:
    for name in CANDIDATES:
        if ops.TABLE[name] in device.backend.kernels:
            return ops.TABLE[name]
    raise Declined(f"{device.type} has no kernel for {', '.join(CANDIDATES)}")


@contextmanager
def failing(device: Device, op: Op, *, after: bool = False) -> Iterator[None]:
    """A block in which the device's kernels for `op` fail, before they run or after they did."""
    backend = device.backend
    prepare = backend.prepare

    def prepared(
        asked: Op, kernel: Kernel, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
    ) -> Callable[..., Any]:
        run = prepare(asked, kernel, specs, outs, settings)
        if asked is not op:
            return run

        def fails(*buffers: Any, **given: Any) -> Any:
            if after:
                run(*buffers, **given)
            raise RuntimeError(WORDS)

        return fails

    vars(backend)["prepare"] = prepared  # over the method of the class
    registry.changed()
    try:
        yield
    finally:
        del vars(backend)["prepare"]
        registry.changed()


def _call(op: Op, x: Tensor) -> Tensor:
    result: Tensor = op(x) if len(op.input_names) == 1 else op(x, x)
    return result


def _named(op: Op, device: Device, error: Exception) -> str:
    missing = [word for word in (op.name, str(device), WORDS) if word not in str(error)]
    return f"the message does not say {', '.join(missing)}: {error}" if missing else ""


def _one_call(after: bool) -> Callable[[Device], str]:
    def check(device: Device) -> str:
        op = _native(device)
        sent = numbers(device, 5, 5)
        x = hal.tensor(sent, device=device)
        with fallback("allow"):
            before = fetch(_call(op, x))
            with failing(device, op, after=after):
                try:
                    _call(op, x)
                except DeviceError as error:
                    problem = _named(op, device, error)
                except Exception as error:
                    return f"the kernel of {op.name} raised, and {type(error).__name__} came, not DeviceError: {error}"
                else:
                    return f"the kernel of {op.name} raised, and no error came"
            problem = problem or same_bits("after a kernel failed its input is changed", fetch(x), sent)
            return problem or same_bits("the call that had failed, made again", fetch(_call(op, x)), before)

    return check


def _in_place(device: Device) -> str:
    """An in-place change that fails leaves a tensor that can be used and changed."""
    op = _native(device)
    sent = numbers(device, 5, 5)
    x, other = hal.tensor(sent, device=device), hal.tensor(sent, device=device)
    view = x[1:3]
    with fallback("allow"), no_grad():
        with failing(device, op):
            try:
                hal.run_into((x,), op, (x,) if len(op.input_names) == 1 else (x, other), {})
            except DeviceError as error:
                problem = _named(op, device, error)
            else:
                return f"the kernel of {op.name} raised, and no error came"
        problem = problem or same_bits("after an in-place change failed the tensor is changed", fetch(x), sent)
        x.copy_(other)
        x[0] = 3
        sent[0] = 3
        problem = problem or same_bits("a later in-place change", fetch(x), sent)
        return problem or same_bits("a view of it", fetch(view), sent[1:3])


def _backward(device: Device) -> str:
    """A backward pass that fails half way can be made again, and gives what it would have given."""
    if not device.backend.training:
        raise Declined(f"{device.type} declares that it does not train")
    op = _native(device)
    sent = numbers(device, 4, 4)
    with fallback("allow"):
        wanted = _slope(op, hal.tensor(sent, device=device, requires_grad=True))
        x = hal.tensor(sent, device=device, requires_grad=True)
        loss = _loss(op, x)
        with failing(device, ops.mul if ops.mul in device.backend.kernels else op):
            try:
                loss.backward(retain_graph=True)
            except DeviceError:
                pass
            else:
                raise Declined(f"the gradient of {op.name} needs no kernel that fails here")
        problem = same_bits("after a failed backward pass the leaf is changed", fetch(x.detach()), sent)
        return problem or same_bits("the gradient after a failed backward pass", _slope(op, x), wanted)


def _loss(op: Op, x: Tensor) -> Tensor:
    loss: Tensor = (_call(op, x * 1.5) * 2).sum()
    return loss


def _slope(op: Op, x: Tensor) -> Array:
    x.grad = None
    _loss(op, x).backward()
    found: Tensor | None = getattr(x, "grad", None)
    assert found is not None
    return fetch(found)


def _many_faults(device: Device) -> str:
    """A hundred failed calls later everything works, and no tensor was kept alive by an error."""
    op = _native(device)
    sent = numbers(device, 5, 5)
    x = hal.tensor(sent, device=device)
    with fallback("allow"):
        before = fetch(_call(op, x))
        with failing(device, op, after=True):
            for _ in range(100):
                try:
                    _call(op, x)
                except DeviceError:
                    continue
                return f"the kernel of {op.name} raised, and no error came"
        return same_bits("after a hundred failed calls", fetch(_call(op, x)), before)


def _other_ops(device: Device) -> str:
    """While one op fails, the others run."""
    op = _native(device)
    sent = numbers(device, 5, 5)
    x = hal.tensor(sent, device=device)
    with fallback("allow"), failing(device, op):
        return same_bits("a reshape while another op fails", fetch(hal.reshape(x, (25,)).clone()), sent.reshape(25))


def cases(device: Device) -> Iterator[Case]:
    """A kernel that fails before and after it ran, in place, in a backward pass, and a hundred times."""
    yield case("faults/before", _one_call(after=False))
    yield case("faults/after", _one_call(after=True))
    yield case("faults/in-place", _in_place)
    yield case("faults/backward", _backward)
    yield case("faults/many", _many_faults)
    yield case("faults/other-ops", _other_ops)


LEVEL = Level("faults", "a kernel that fails is named, and leaves tensors and device as they were", 150, cases)
