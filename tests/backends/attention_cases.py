"""The kernels of attention for groups, on an OpenCL device beside the reference: here, or alone under a checker.

python attention_cases.py OP NUMBER...     # samples of the op; the device is the first of HAL_OPENCL_DEVICES
"""

from __future__ import annotations

import sys
from unittest.mock import patch

import numpy as np

import hal
from hal import ops
from hal.codegen.kernels import attention, attention_groups
from hal.testing.calls import call_of

NEAR = {hal.float64: 1e-13, hal.float32: 1e-5, hal.float16: 2e-3, hal.bfloat16: 1e-2}


def check(name: str, number: int, dtype: hal.DType = hal.float32, groups: bool = True) -> str:
    """Run a sample of an op, and raise unless it gives what the reference does; the name of the device."""
    device = hal.device("opencl")
    call = call_of(name, number, dtype, device)
    with patch.object(attention, "_in_groups", lambda q, v: groups):  # as on a GPU, or as on a processor
        results = getattr(attention, name)(*(device.backend.upload(x, device) for x in call.inputs), **call.settings)
    wide = [x if x.dtype == bool else x.astype(np.float64) for x in call.inputs]
    wanted = ops.TABLE[name].reference(*wide, **call.settings)
    if name == "attention":
        results, wanted = (results,), (wanted,)
    for result, right in zip(results, wanted, strict=True):
        found = device.backend.runtime.download(result).astype(np.float64)
        np.testing.assert_allclose(found, right, NEAR[dtype], NEAR[dtype])
    return str(device.backend.runtime.title)


if __name__ == "__main__":
    attention_groups.TILES = (
        attention_groups.Tiles(2, 2, 1, 2),
    )  # several blocks of few items: a checker takes long for each
    for argument in sys.argv[2:]:
        print(check(sys.argv[1], int(argument)))
