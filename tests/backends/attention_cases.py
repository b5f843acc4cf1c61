"""The kernel of attention for groups, on an OpenCL device beside the reference: here, or alone under a checker.

python attention_cases.py NUMBER...     # samples of the op; the device is the first of HAL_OPENCL_DEVICES
"""

from __future__ import annotations

import sys

import numpy as np

import hal
from hal import ops
from hal.codegen.kernels.attention import attention
from hal.testing.calls import call_of


def check(number: int, dtype: hal.DType = hal.float32) -> str:
    """Run a sample of the op, and raise unless it gives what the reference does; the name of the device."""
    device = hal.device("opencl")
    call = call_of("attention", number, dtype, device)
    found = device.backend.runtime.download(
        attention(*(device.backend.upload(x, device) for x in call.inputs), **call.settings)
    )
    wide = [x if x.dtype == bool else x.astype(np.float64) for x in call.inputs]
    near = 1e-5 if dtype is hal.float32 else 1e-2
    np.testing.assert_allclose(found.astype(np.float64), ops.attention.reference(*wide, **call.settings), near, near)
    return str(device.backend.runtime.title)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(check(int(argument)))
