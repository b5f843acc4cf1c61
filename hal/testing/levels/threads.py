"""Threads: several at once, on data of their own and on shared inputs, give what one alone gives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import hal
from hal import ops
from hal.device import Device
from hal.op import Array
from hal.policy import fallback
from hal.recording import no_grad
from hal.tensor import Tensor
from hal.testing.calls import fetch
from hal.testing.case import Case, Level
from hal.testing.checks import Declined, case, numbers, same_bits

THREADS, TURNS = 4, 12
Work = Callable[[Device, int, int], Array]


def _together(device: Device, work: Work) -> str:
    """Run `work(device, thread, turn)` in several threads; each result must be what it is in one."""
    results: dict[tuple[int, int], Array] = {}
    errors: list[BaseException] = []
    start = threading.Barrier(THREADS)

    def body(thread: int) -> None:
        try:
            start.wait(timeout=30)
            with fallback("allow"):
                for turn in range(TURNS):
                    results[thread, turn] = work(device, thread, turn)
        except BaseException as error:
            errors.append(error)

    started = [threading.Thread(target=body, args=(i,)) for i in range(THREADS)]
    for one in started:
        one.start()
    for one in started:
        one.join()
    if errors:
        raise errors[0]
    with fallback("allow"):
        for (thread, turn), got in sorted(results.items()):
            problem = same_bits(f"thread {thread}, turn {turn}", got, work(device, thread, turn))
            if problem:
                return problem
    return ""


def _chain(x: Tensor) -> Tensor:
    y = ops.matmul(x, x.T) * 0.125 + x[0, 0]
    y = hal.softmax(y, 1) + ops.maximum(y, 1.5)
    return y.sum(dim=1)


def _own_data(device: Device) -> str:
    return _together(
        device, lambda d, i, turn: fetch(_chain(hal.tensor(numbers(d, 24, 24, seed=i * 50 + turn), device=d)))
    )


def _shared_inputs(device: Device) -> str:
    x = hal.tensor(numbers(device, 24, 24), device=device)
    return _together(device, lambda d, i, turn: fetch(_chain(x * (i + 1))))


def _new_calls(device: Device) -> str:
    """Shapes that were never met: every thread makes decisions, and kernels are prepared, at once."""
    return _together(
        device, lambda d, i, turn: fetch(_chain(hal.tensor(numbers(d, 5 + turn, 7 + i % 2, seed=turn), device=d)))
    )


def _in_place(device: Device) -> str:
    def work(d: Device, i: int, turn: int) -> Array:
        x = hal.tensor(numbers(d, 300, seed=i), device=d)
        with no_grad():
            for _ in range(5):
                x.mul_(0.5)
                x[10:20] = x[20:30]
                x += 1
        return fetch(x)

    return _together(device, work)


def _gradients(device: Device) -> str:
    if not device.backend.training:
        raise Declined(f"{device.type} declares that it does not train")

    def work(d: Device, i: int, turn: int) -> Array:
        x = hal.tensor(numbers(d, 12, 12, seed=i), device=d, requires_grad=True)
        _chain(x).sum().backward()
        assert x.grad is not None
        return fetch(x.grad)

    return _together(device, work)


def _come_and_go(device: Device) -> str:
    """Buffers made in one thread and let go in another."""
    kept: list[Tensor] = []

    def work(d: Device, i: int, turn: int) -> Array:
        x = hal.tensor(numbers(d, 500, seed=turn), device=d)
        kept.append(x * 2)
        if len(kept) > 8:
            del kept[: i + 1]
        return fetch(x + x)

    return _together(device, work)


def cases(device: Device) -> Iterator[Case]:
    """Data of their own, shared inputs, calls never met, in-place changes, gradients, memory."""
    yield case("threads/own-data", _own_data)
    yield case("threads/shared-inputs", _shared_inputs)
    yield case("threads/new-calls", _new_calls)
    yield case("threads/in-place", _in_place)
    yield case("threads/gradients", _gradients)
    yield case("threads/memory", _come_and_go)


LEVEL = Level("threads", "several threads at once give what one alone gives", 120, cases)
