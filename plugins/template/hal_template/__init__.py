"""The device template: one kernel, which is enough to train a network; all else falls back, in the open."""

from __future__ import annotations

import numpy as np
from hal import ops
from hal.plugin import Array, Backend, Device, Kernels, Spec, hookimpl

kernels = Kernels()


@kernels.register(ops.matmul)
def matmul(a: Array, b: Array) -> Array:
    """The product, computed by the device. Until yours does, the device is NumPy."""
    with np.errstate(all="ignore"):  # infinity and NaN are results like any other
        return np.asarray(np.matmul(a, b)).astype(a.dtype, copy=False)  # NumPy's of bfloat16 is float32


# The next kernels go here: buffers by position, settings by keyword, a new buffer back.
# - `hal ops --primitives` lists those with which nothing falls back any more.
# - `hal conform template` says what is native, what falls back, and what is wrong.
# - A call that a kernel cannot take is declined before it runs, and goes elsewhere:
#   @kernels.register(ops.matmul, when=lambda a, b: a.ndim == b.ndim == 2)


class TemplateBackend(Backend):
    """What HAL asks of a device. Replace the NumPy arrays by whatever stands for your device's memory."""

    name = "template"
    kernels = kernels
    priority = -1  # chosen by name only; a device that should be the default says a positive number
    # No float64? Inference only? Views that share memory? hal.plugin.Backend says how to declare it.

    def devices(self) -> list[Device]:
        return [Device(self)]  # import the driver here; if there is no device, raise hal.plugin.Unavailable

    def upload(self, array: Array, device: Device) -> Array:
        return array.copy()

    def download(self, buffer: Array, spec: Spec) -> Array:
        return buffer.copy()


@hookimpl
def hal_backends() -> list[Backend]:
    """The backends that this package brings."""
    return [TemplateBackend()]
