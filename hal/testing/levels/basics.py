"""What every other level takes for granted: the device answers, takes data, gives it back, and runs one op."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import hal
from hal import ops
from hal.device import Device
from hal.dtypes import FLOATS, DType
from hal.testing.calls import fetch
from hal.testing.case import Case, Level, Outcome


def first_float(device: Device) -> DType:
    """The floating type that a case about no dtype in particular uses: float32 where the device has it."""
    return next((d for d in (hal.float32, *FLOATS) if d in device.backend.dtypes), hal.float32)


def _answers(device: Device) -> Outcome:
    backend = device.backend
    found = backend.devices()
    if device not in found or backend.devices() != found:
        return Outcome(
            "wrong", detail=f"devices() gives {found}, then {backend.devices()}: it must be a stable list with {device}"
        )
    strangers = sorted(name for name in backend.kernels if name not in ops.TABLE)
    if strangers:
        return Outcome("wrong", detail=f"there are kernels for {', '.join(strangers)}, which are no ops of the table")
    undeclared = [d for d in backend.dtypes if not isinstance(d, DType)]
    if undeclared or not backend.dtypes:
        return Outcome("wrong", detail=f"dtypes must be DType values of hal.dtypes, got {undeclared or 'none'}")
    if first_float(device) not in backend.dtypes:
        return Outcome("wrong", detail=f"a device needs a floating dtype, {device} declares none")
    return Outcome("native")


def _gives_back(device: Device) -> Outcome:
    sent = np.array([[1.5, -2.25, 0.0], [3.0, 1e-3, -7.0]]).astype(first_float(device).numpy)
    got = fetch(hal.tensor(sent, device=device))
    if got.dtype != sent.dtype or got.shape != sent.shape or got.tobytes() != sent.tobytes():
        return Outcome(
            "wrong", detail=f"uploaded {sent.tolist()}, downloaded {got.tolist()} ({got.dtype}, {got.shape})"
        )
    return Outcome("native")


def _adds(device: Device) -> Outcome:
    x = hal.tensor(np.array([1, 2, 3]).astype(first_float(device).numpy), device=device)
    got = fetch(x + x).tolist()
    return Outcome("native") if got == [2, 4, 6] else Outcome("wrong", detail=f"[1, 2, 3] + [1, 2, 3] gave {got}")


def cases(device: Device) -> Iterator[Case]:
    """Three cases: the first that fails stops the run."""
    yield Case("basics/answers", _answers)
    yield Case("basics/roundtrip", _gives_back)
    yield Case("basics/add", _adds)


LEVEL = Level("basics", "the device answers, takes data, gives it back, and adds", 0, cases, basic=True)
