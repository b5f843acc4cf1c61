"""Views: whatever shares memory on the host shares it on the device, and what the backend says of sharing is so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import hal
from hal import ops
from hal.device import Device
from hal.errors import HalError
from hal.op import Array, Op
from hal.plugin import Backend
from hal.recording import no_grad
from hal.spec import Spec
from hal.tensor import Tensor
from hal.testing.calls import fetch
from hal.testing.case import Case, Level
from hal.testing.checks import Declined, case, numbers, same_bits, some_float

View = Callable[[Any], Any]  # the same lines for a tensor and an array

# How a view is made of something of shape (4, 6), in words that tensors and arrays both understand.
VIEWS: dict[str, View] = {
    "row": lambda x: x[1],
    "column": lambda x: x[:, 2],
    "slice": lambda x: x[1:3, 2:5],
    "every-other": lambda x: x[::2, 1::2],
    "reshaped": lambda x: x.reshape(2, 12),
    "flat": lambda x: x.reshape(-1),
    "transposed": lambda x: x.T,
    "slice-of-transposed": lambda x: x.T[2:5],
    "transposed-slice": lambda x: x[:, 1:4].T,
    "slice-of-slice": lambda x: x[1:, 1:][::2, ::2],
    "reshaped-row": lambda x: x[3].reshape(2, 3),
    "new-axis": lambda x: x[:, None],
    "one-element": lambda x: x[2:3, 3:4],
}
BUFFERS: dict[str, tuple[Op, dict[str, Any]]] = {
    "reshape": (ops.reshape, {"shape": (6, 4)}),
    "permute": (ops.permute, {"axes": (1, 0)}),
    "slice": (ops.slice, {"start": (1, 0), "stop": (4, 6), "step": (1, 2)}),
    "slice-backwards": (ops.slice, {"start": (3, 5), "stop": (-1, -1), "step": (-1, -1)}),
    "broadcast_to": (ops.broadcast_to, {"shape": (2, 4, 6)}),
}


def _down(name: str, view: View) -> Case:
    def check(device: Device) -> str:
        want = numbers(device, 4, 6)
        x = hal.tensor(want, device=device)
        seen = view(x)
        x.mul_(2)
        x[1:3] = 0.5
        want *= 2
        want[1:3] = 0.5
        return same_bits("a view does not show what was changed in its base", fetch(seen), _dense(view(want)))

    return case(f"views/base-changes/{name}", check)


def _up(name: str, view: View) -> Case:
    def check(device: Device) -> str:
        want = numbers(device, 4, 6)
        x = hal.tensor(want, device=device)
        other = x.reshape(24)
        seen = view(x)
        seen.mul_(3)
        seen += 1
        view(want)[...] = view(want) * np.asarray(3, want.dtype) + np.asarray(1, want.dtype)
        problem = same_bits("a base does not show what was changed in a view of it", fetch(x), want)
        problem = problem or same_bits(
            "one view does not show what was changed in another", fetch(other), want.reshape(24)
        )
        return problem or same_bits("a view does not hold what was put into it", fetch(seen), _dense(view(want)))

    return case(f"views/view-changes/{name}", check)


def _dense(x: Any) -> Array:
    return np.array(x, order="C")


def _assignment(device: Device) -> str:
    want = numbers(device, 4, 6)
    x = hal.tensor(want, device=device)
    values = numbers(device, 2, 3, seed=1)
    x[1:3, ::2] = hal.tensor(values, device=device)
    want[1:3, ::2] = values
    x[0] = x[3]
    want[0] = want[3]
    x[:, 0] = 7
    want[:, 0] = 7
    x[2:, 1:3].copy_(x[:2, 1:3])
    want[2:, 1:3] = want[:2, 1:3].copy()
    return same_bits("assignment to parts", fetch(x), want)


def _overlap(device: Device) -> str:
    want = numbers(device, 8)
    x = hal.tensor(want, device=device)
    x[1:] = x[:-1]
    want[1:] = want[:-1].copy()
    x.add_(x[0])  # a view of the target, which must be read as it was
    want = want + want[0]
    return same_bits("a target that overlaps with what is put into it", fetch(x), want)


def _broadcast(device: Device) -> str:
    want = numbers(device, 1, 3)
    x = hal.tensor(want, device=device)
    wide = hal.broadcast_to(x, (4, 3))
    x.mul_(2)
    problem = same_bits(
        "a broadcast view does not show a change", fetch(wide), _dense(np.broadcast_to(want * 2, (4, 3)))
    )
    try:
        wide.mul_(2)
    except HalError:
        return problem
    return problem or "a broadcast view was changed in place, where several elements are one in memory"


def _detached(device: Device) -> str:
    want = numbers(device, 3, 4)
    x = hal.tensor(want, device=device)
    alias, data = x.detach(), x.data
    x.mul_(2)
    problem = same_bits("detach() does not share memory", fetch(alias), want * 2)
    data[0] = 1
    want = want * 2
    want[0] = 1
    return problem or same_bits(".data does not share memory", fetch(x), want)


def _no_sharing(device: Device) -> str:
    """What is no view keeps its value when its source changes, though its elements are the same."""
    want = numbers(device, 4, 6)
    x = hal.tensor(want, device=device)
    made: dict[str, tuple[Tensor, Array]] = {
        "clone": (x.clone(), want),
        "flip": (hal.flip(x, (0,)), want[::-1]),
        "a cast to the same dtype": (ops.cast(x, dtype=x.dtype), want),
        "concat of one": (hal.concat([x], axis=0), want),
        "pad by nothing": (ops.pad(x, padding=((0, 0), (0, 0)), value=0), want),
        "take": (hal.take(x, hal.tensor(np.arange(4), device=device), axis=0), want),
        "tile by one": (hal.tile(x, (1, 1)), want),
        "x + 0": (x + 0, want),
        "where": (hal.where(x > 0, x, x), want),
    }
    kept = {name: _dense(array) for name, (_, array) in made.items()}
    x.zero_()
    for name, (tensor, _) in made.items():
        problem = same_bits(f"the result of {name} changed with its input", fetch(tensor), kept[name])
        if problem:
            return problem
    return ""


def _buffers(name: str, op: Op, settings: dict[str, Any]) -> Case:
    """Whether `shares` says of a movement kernel's result what a write into its input shows."""

    def check(device: Device) -> str:
        backend = device.backend
        writes = type(backend).write is not Backend.write
        if backend.views and not writes:
            return f"{device.type} declares views, and has no write(), which they need"
        if not writes:
            raise Declined(f"{device.type} declares no views, and has no write() with which they could be tried")
        want = numbers(device, 4, 6)
        x = hal.tensor(want, device=device)
        with no_grad():
            y = op(x, **settings)
        if y.device is not device:
            raise Declined(f"{op.name} runs on {y.device}")
        said = backend.views and backend.shares(y.buffer, x.buffer)
        before = fetch(y)
        new = hal.tensor(want + 1, device=device)
        backend.write(x.buffer, new.buffer, Spec(want.shape, some_float(device)))
        shared = fetch(y).tobytes() != before.tobytes()
        if shared == said:
            return ""
        if not backend.views:
            return (
                f"{device.type} declares no views, yet its {op.name} shares memory and write() works: declare `views`"
            )
        word = (
            "says that it shares memory, and it does not" if said else "says that it has its own memory, and it has not"
        )
        return f"shares() of what {op.name} gave {word}"

    return case(f"views/declared/{name}", check, op=op.name)


def _computed_shares_nothing(device: Device) -> str:
    backend = device.backend
    if not backend.views:
        raise Declined(f"{device.type} declares no views")
    x = hal.tensor(numbers(device, 4, 6), device=device)
    for name, y in {
        "x + x": x + x,
        "a clone": x.clone(),
        "another upload": hal.tensor(fetch(x), device=device),
    }.items():
        if y.device is device and backend.shares(y.buffer, x.buffer):
            return f"shares() says that {name} has the memory of x"
    return ""


def cases(device: Device) -> Iterator[Case]:
    """Changes seen through views in both directions, and what the backend declares."""
    for name, view in VIEWS.items():
        yield _down(name, view)
        yield _up(name, view)
    yield case("views/assignment", _assignment)
    yield case("views/overlap", _overlap)
    yield case("views/broadcast", _broadcast)
    yield case("views/detached", _detached)
    yield case("views/copies", _no_sharing)
    for name, (op, settings) in BUFFERS.items():
        yield _buffers(name, op, settings)
    yield case("views/computed", _computed_shares_nothing)


LEVEL = Level("views", "what shares memory shows changes, what does not keeps its value", 60, cases)
