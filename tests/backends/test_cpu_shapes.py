"""Calls that random programs found the CPU's kernels to fail at: odd shapes, which no sample had."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hal import ops
from hal.device import Device
from hal.testing.calls import Call, check_call

CALLS: dict[str, tuple[str, list[tuple[int, ...]], dict[str, Any]]] = {
    "no channels": ("conv1d", [(1, 0, 2), (3, 0, 2)], {"padding": (2,), "dilation": (3,)}),
    "no channels, a bias": ("conv2d", [(2, 0, 3, 3), (4, 0, 2, 2), (4,)], {}),
    "one index": ("put", [(4, 10), (), (4,)], {"axis": 1}),
}


@pytest.mark.parametrize("what", CALLS)
def test_odd_shapes(what: str) -> None:
    name, shapes, settings = CALLS[what]
    op = ops.TABLE[name]
    inputs = [np.random.default_rng(0).uniform(size=shape).astype(np.float32) for shape in shapes]
    if name == "put":
        inputs[1] = np.array(-1)
    outcome = check_call(Device("cpu"), Call(op, tuple(inputs), op.bind(len(inputs), settings)))
    assert outcome.status == "native", outcome.detail
