"""A hardware-abstraction layer for deep learning: one network, written once, on any device."""

from __future__ import annotations

from typing import Any

from hal import errors, ops
from hal.autodiff import custom_gradient, enable_grad, grad, is_grad_enabled, no_grad, set_grad_enabled, value_and_grad
from hal.creation import (
    arange, empty, empty_like, eye, from_numpy, full, full_like, linspace, ones, ones_like, tensor, zeros, zeros_like,
)  # fmt: skip
from hal.device import Device
from hal.dispatch import run_into
from hal.dtypes import (
    DType, bfloat16, bool_, complex64, complex128, float16, float32, float64, int8, int16, int32, int64,
    uint8, uint16, uint32, uint64,
)  # fmt: skip
from hal.op import Op
from hal.policy import copies, fallback
from hal.registry import device_count, devices, register, unregister
from hal.report import placement_report
from hal.spec import Spec
from hal.tensor import Tensor

__version__ = "0.1.0"
device = Device
bool = bool_  # noqa: A001


def __getattr__(name: str) -> Any:
    try:
        return ops.TABLE[name]
    except KeyError:
        raise AttributeError(f"module 'hal' has no attribute {name!r}") from None
