"""Cases about no op in particular: a check says what is wrong in words, or nothing if all is well."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from hal import dtypes
from hal.device import Device
from hal.dtypes import FLOATS, DType
from hal.op import Array
from hal.testing.case import Case, Outcome
from hal.testing.fake import Fake

Check = Callable[[Device], "str | Outcome | None"]


class Declined(Exception):
    """Raised by a check when the device says that it does not do this; the message says where it says so."""


def case(id: str, check: Check, *, op: str = "", dtype: str = "", needs: tuple[str, ...] = ()) -> Case:
    """A case whose check gives what is wrong: text, or nothing."""

    def run(device: Device) -> Outcome:
        try:
            problem = check(device)
        except Declined as reason:
            return Outcome("declined", detail=str(reason))
        if isinstance(problem, Outcome):
            return problem
        return Outcome("wrong", detail=problem) if problem else Outcome("native")

    return Case(id, run, op, dtype, needs)


def some_float(device: Device) -> DType:
    """The floating type of cases about no dtype in particular: float32 where the device has it."""
    return next((d for d in (dtypes.float32, *FLOATS) if d in device.backend.dtypes), dtypes.float32)


def numbers(device: Device, *shape: int, seed: int = 0) -> Array:
    """Random numbers of `some_float`, none of them zero."""
    drawn = np.random.default_rng(seed).uniform(0.5, 2.0, shape)
    return drawn.astype(some_float(device).numpy)


def same_bits(what: str, got: Array, want: Array) -> str:
    """What is wrong with `got`, which should be `want` to the last bit."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{what}: got {got.dtype} of shape {got.shape}, expected {want.dtype} of shape {want.shape}"
    if got.tobytes() == want.tobytes():
        return ""
    size = max(1, want.dtype.itemsize)
    differ = (
        np.frombuffer(got.tobytes(), np.uint8).reshape(-1, size)
        != np.frombuffer(want.tobytes(), np.uint8).reshape(-1, size)
    ).any(axis=1)
    first = int(np.argmax(differ))
    at = tuple(int(i) for i in np.unravel_index(first, want.shape))
    return f"{what}: {int(differ.sum())} of {differ.size} elements differ; at {at} got {got[at]}, expected {want[at]}"


@cache
def exact_device() -> Device:
    """A device that computes by the float64 references and has every dtype. It is in no registry."""
    return Device(Fake("reference", dtypes=dtypes.ALL))
