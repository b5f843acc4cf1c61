"""What every other level takes for granted: the device answers, takes data, gives it back, and runs one op."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import hal
from hal import ops
from hal.device import Device
from hal.dtypes import DType
from hal.testing.calls import fetch
from hal.testing.case import Case, Level
from hal.testing.checks import case, same_bits, some_float


def _answers(device: Device) -> str:
    backend = device.backend
    found = backend.devices()
    if device not in found or backend.devices() != found:
        return f"devices() gives {found}, then {backend.devices()}: it must be a stable list with {device} in it"
    strangers = sorted(name for name in backend.kernels if name not in ops.TABLE)
    if strangers:
        return f"there are kernels for {', '.join(strangers)}, which are no ops of the table"
    undeclared = [d for d in backend.dtypes if not isinstance(d, DType)]
    if undeclared or some_float(device) not in backend.dtypes:
        return f"dtypes must hold DType values of hal.dtypes, a floating one among them; it holds {backend.dtypes}"
    return ""


def _gives_back(device: Device) -> str:
    sent = np.array([[1.5, -2.25, 0.0], [3.0, 1e-3, -7.0]]).astype(some_float(device).numpy)
    return same_bits("what was uploaded came back changed", fetch(hal.tensor(sent, device=device)), sent)


def _adds(device: Device) -> str:
    x = hal.tensor(np.array([1, 2, 3]).astype(some_float(device).numpy), device=device)
    got = fetch(x + x).tolist()
    return "" if got == [2, 4, 6] else f"[1, 2, 3] + [1, 2, 3] gave {got}"


def cases(device: Device) -> Iterator[Case]:
    """Three cases: the first that fails stops the run."""
    yield case("basics/answers", _answers)
    yield case("basics/roundtrip", _gives_back)
    yield case("basics/add", _adds)


LEVEL = Level("basics", "the device answers, takes data, gives it back, and adds", 0, cases, basic=True)
