"""Limits: a device that is asked for more memory than it has says so, gives back what it had, and goes on."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np

import hal
from hal.device import Device
from hal.errors import OutOfMemoryError
from hal.plugin import Buffer
from hal.policy import fallback
from hal.testing.calls import fetch
from hal.testing.case import Case, Level
from hal.testing.checks import Declined, case, numbers, same_bits, some_float

ABSURD = 1 << 58  # elements that no device holds
FILLED = 64 << 20  # bytes of the largest device that is filled to its end
PIECES = 8


def _works(device: Device) -> str:
    sent = numbers(device, 3, 4)
    with fallback("allow"):
        x = hal.tensor(sent, device=device)
        return same_bits("afterwards the device computes wrongly", fetch(x + x), sent + sent)


def _absurd(device: Device) -> str:
    """More memory than there is in the world."""
    try:
        with fallback("allow"):
            x = hal.zeros(ABSURD, dtype=some_float(device), device=device)
            fetch(x[:1])
    except OutOfMemoryError:
        return _works(device)
    except Exception as error:
        return f"{ABSURD:,} numbers were asked for: expected OutOfMemoryError, got {type(error).__name__}: {error}"
    return f"{ABSURD:,} numbers were asked for, and given"


def _limit(device: Device) -> int:
    limit = device.backend.max_memory(device)
    if limit is None:
        raise Declined(f"{device.type} does not say how much memory it has")
    if limit > FILLED:
        raise Declined(f"{limit:,} bytes are too many to be filled up in a test")
    return limit


def _pieces(device: Device, limit: int) -> list[Buffer]:
    """Buffers until there is no more memory.

    Raises:
        OutOfMemoryError: there is no more. What was allocated is let go.
    """
    piece = np.zeros(max(1, limit // PIECES // some_float(device).itemsize), some_float(device).numpy)
    kept: list[Buffer] = []
    for _ in range(PIECES + 2):
        kept.append(device.backend.upload(piece, device))
    return kept


def _full(device: Device) -> str:
    """A device is filled, refuses one more buffer, and keeps what it holds."""
    limit = _limit(device)
    sent = numbers(device, 16)
    x = hal.tensor(sent, device=device)
    try:
        _pieces(device, limit)
    except OutOfMemoryError:
        gc.collect()
        problem = same_bits("what was on the full device is lost", fetch(x), sent)
        return problem or _works(device)
    return f"{device} declares {limit:,} bytes of memory, and took {limit // PIECES * (PIECES + 2):,}"


def _given_back(device: Device) -> str:
    """What is let go can be had again, as often as one likes."""
    limit = _limit(device)
    half = np.zeros(max(1, limit // 2 // some_float(device).itemsize), some_float(device).numpy)
    for turn in range(20):
        gc.collect()
        try:
            buffer = device.backend.upload(half, device)
        except OutOfMemoryError as error:
            return f"half of the memory was taken and let go {turn} times, and then was not there: {error}"
        del buffer
    return ""


def _results_given_back(device: Device) -> str:
    """Results of ops, of views and of failed calls are let go too."""
    limit = _limit(device)
    count = max(4, limit // 64 // some_float(device).itemsize)
    sent = numbers(device, count)
    with fallback("allow"):
        x = hal.tensor(sent, device=device)
        for turn in range(100):
            try:
                y = (x * 2)[1:] + x[:-1]
                del y
                y = x.reshape(-1)
                y += 0
            except OutOfMemoryError as error:
                return f"{turn} rounds of small results filled {device}: {error}"
            finally:
                if turn % 10 == 0:
                    gc.collect()
    return ""


def _op_out_of_memory(device: Device) -> str:
    """An op whose result does not fit is refused, its inputs stay, and a smaller one runs."""
    limit = _limit(device)
    n = int((limit // some_float(device).itemsize) ** 0.5) + 8
    sent = numbers(device, n)
    x = hal.tensor(sent, device=device)
    try:
        with fallback("allow"):
            y = x[:, None] * x[None, :]
            fetch(y)
    except OutOfMemoryError:
        gc.collect()
        return same_bits("an input of the op that found no memory is changed", fetch(x), sent) or _works(device)
    return f"a result of {n * n * some_float(device).itemsize:,} bytes was made on a device of {limit:,}"


def _big(device: Device) -> str:
    """A few million elements: sizes that small tests never meet."""
    limit = device.backend.max_memory(device)
    count = (1 << 21) + 3
    if limit is not None and limit < 8 * count * some_float(device).itemsize:
        raise Declined(f"{device} has {limit:,} bytes of memory")
    sent = (np.arange(count) % 7).astype(some_float(device).numpy)
    with fallback("allow"):
        x = hal.tensor(sent, device=device)
        problem = same_bits(f"{count:,} elements, doubled", fetch(x + x), sent + sent)
        ends = np.concatenate([sent[:3], sent[-3:]])
        return problem or same_bits("their ends", fetch(hal.concat([x[:3], x[-3:]], axis=0)), ends)


def _many_axes(device: Device) -> str:
    sent = numbers(device, *(2, 1, 2, 1, 2, 1, 2))
    with fallback("allow"):
        x = hal.tensor(sent, device=device)
        problem = same_bits("a tensor of seven axes, plus itself", fetch(x + x), sent + sent)
        turned = hal.permute(x, (6, 5, 4, 3, 2, 1, 0))
        return problem or same_bits("its axes the other way round", fetch(turned + 0), np.array(sent.T, order="C"))


def _long_chain(device: Device) -> str:
    """Many small results in a row, as a training loop makes them."""
    sent = numbers(device, 8)
    with fallback("allow"):
        x = hal.tensor(sent, device=device)
        for _ in range(2000):
            x = x * 1
    return same_bits("a number multiplied 2,000 times by one", fetch(x), sent)


def cases(device: Device) -> Iterator[Case]:
    """Too much memory, all of it, again and again; large and many-axed tensors; long chains."""
    yield case("limits/absurd", _absurd)
    yield case("limits/full", _full)
    yield case("limits/given-back", _given_back)
    yield case("limits/results-given-back", _results_given_back)
    yield case("limits/op", _op_out_of_memory)
    yield case("limits/big", _big)
    yield case("limits/axes", _many_axes)
    yield case("limits/chain", _long_chain)


LEVEL = Level("limits", "out of memory is said, survived, and what was let go is there again", 140, cases)
