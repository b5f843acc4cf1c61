"""Copies between devices and the host: the same bits, memory of their own, and gradients that flow back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

import hal
from hal import dtypes, ops
from hal.device import Device
from hal.registry import devices
from hal.testing.calls import fetch
from hal.testing.case import Case, Level
from hal.testing.checks import Declined, case, exact_device, numbers, same_bits
from hal.testing.inputs import every_pattern

Find = Callable[[], Device]


def _named(name: str) -> Find:
    return lambda: Device(name)


def _others(device: Device) -> Iterator[tuple[str, Find]]:
    """The devices that copies are tried with: the host's, those of the same backend, and one that computes exactly."""
    yield "reference", exact_device
    for other in devices():
        if other is not device and (other.type == device.type or other.backend.host_memory):
            yield str(other), _named(str(other))


def _there_and_back(name: str, find: Find) -> Case:
    def check(device: Device) -> str:
        other = find()
        for dtype in sorted(device.backend.dtypes & other.backend.dtypes, key=lambda d: d.name):
            sent = every_pattern(dtype)
            there = hal.tensor(sent, device=device).to(other)
            problem = same_bits(f"{dtype.name} copied to {other}", fetch(there), sent)
            problem = problem or same_bits(f"{dtype.name} copied from {other}", fetch(there.to(device)), sent)
            if problem:
                return problem
        return ""

    return case(f"copies/both-ways/{name}", check)


def _independent(name: str, find: Find) -> Case:
    def check(device: Device) -> str:
        other, sent = find(), numbers(device, 5, 6)
        x = hal.tensor(sent, device=device)
        y = x.to(other)
        x.mul_(0)
        problem = same_bits(f"a copy on {other} changed when its source did", fetch(y), sent)
        x = hal.tensor(sent, device=other)
        y = x.to(device)
        x.mul_(0)
        problem = problem or same_bits(f"a copy from {other} changed when its source did", fetch(y), sent)
        y.mul_(0)
        z = hal.tensor(sent, device=device).to(other)
        return problem or same_bits(f"a copy to {other}, made after others were changed", fetch(z), sent)

    return case(f"copies/independent/{name}", check)


def _views(name: str, find: Find) -> Case:
    def check(device: Device) -> str:
        other, sent = find(), numbers(device, 5, 6)
        x = hal.tensor(sent, device=device)
        made = {
            "a transposed view": (x.T, sent.T),
            "a slice": (x[1:4, 2:5], sent[1:4, 2:5]),
            "every other element": (x[::2, ::3], sent[::2, ::3]),
            "a flipped tensor": (hal.flip(x, (0, 1)), sent[::-1, ::-1]),
            "a broadcast view": (hal.broadcast_to(x[:1], (3, 6)), np.broadcast_to(sent[:1], (3, 6))),
            "no elements": (x[:0], sent[:0]),
            "one element": (x[2, 3], sent[2, 3]),
        }
        for what, (view, want) in made.items():
            problem = same_bits(f"{what}, copied to {other}", fetch(view.to(other)), np.array(want, order="C"))
            if problem:
                return problem
        return ""

    return case(f"copies/views/{name}", check)


def _gradient(name: str, find: Find) -> Case:
    def check(device: Device) -> str:
        other = find()
        for backend in (device.backend, other.backend):
            if not backend.training:
                raise Declined(f"{backend.name} declares that it does not train")
        sent = numbers(device, 4)
        x = hal.tensor(sent, device=device, requires_grad=True)
        ((x * 2).to(other) * 3).sum().to(device).backward()
        assert x.grad is not None
        if x.grad.device is not device:
            return f"the gradient of a tensor on {device} is on {x.grad.device}"
        return same_bits(f"the gradient through a copy to {other}", fetch(x.grad), np.full(4, 6, sent.dtype))

    return case(f"copies/gradient/{name}", check)


def _after_work(name: str, find: Find) -> Case:
    def check(device: Device) -> str:
        other = find()
        start = numbers(device, 200, 200)
        x = hal.tensor(start, device=device)
        want = start
        for _ in range(30):
            x = ops.maximum(x, 1) * 0.5
            want = (np.maximum(want, 1) * np.asarray(0.5, want.dtype)).astype(want.dtype)
        return same_bits(f"a copy to {other} was made before the work was done", fetch(x.to(other)), want)

    return case(f"copies/after-work/{name}", check)


def _clone(device: Device) -> str:
    sent = numbers(device, 3, 4)
    x = hal.tensor(sent, device=device)
    y, z = x.clone(), x.T.clone()
    x.mul_(0)
    problem = same_bits("a clone changed when its source did", fetch(y), sent)
    return problem or same_bits("a clone of a view changed when its source did", fetch(z), np.array(sent.T, order="C"))


def _cpu(device: Device) -> str:
    sent = numbers(device, 3, 4)
    x = hal.tensor(sent, device=device)
    for what, got in (("cpu()", x.cpu().numpy()), ("tolist()", np.array(x.tolist(), sent.dtype))):
        problem = same_bits(what, np.asarray(got), sent)
        if problem:
            return problem
    return "" if x[1, 2].item() == sent[1, 2] else f"item() gave {x[1, 2].item()}, expected {sent[1, 2]}"


def _foreign_dtype(device: Device) -> str:
    """A tensor of an element type that the device does not have stays away, with a message."""
    missing = sorted((d for d in dtypes.ALL if d not in device.backend.dtypes), key=lambda d: d.name)
    if not missing:
        raise Declined(f"{device.type} declares every dtype")
    x = hal.tensor(np.zeros(2, missing[0].numpy), device=exact_device())
    try:
        x.to(device)
    except hal.errors.DTypeError as error:
        named = missing[0].name in str(error) and str(device) in str(error)
        return "" if named else f"the message names neither the dtype nor the device: {error}"
    return f"a {missing[0].name} tensor was copied to {device}, which does not declare that dtype"


def cases(device: Device) -> Iterator[Case]:
    """To and from each other device, then what needs none."""
    for name, find in _others(device):
        for make in (_there_and_back, _independent, _views, _gradient, _after_work):
            yield make(name, find)
    yield case("copies/clone", _clone)
    yield case("copies/host", _cpu)
    yield case("copies/foreign-dtype", _foreign_dtype)


LEVEL = Level("copies", "tensors between devices and the host: the same bits, in memory of their own", 20, cases)
