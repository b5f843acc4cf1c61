"""A device for hal with one kernel: enough to train a network, with all else falling back in the open."""

from __future__ import annotations

import numpy as np

from hal import ops
from hal.plugin import Array, Backend, Device, Kernels, Spec, hookimpl

kernels = Kernels()


@kernels.register(ops.matmul)
def matmul(a: Array, b: Array) -> Array:
    """The product, computed by the device. Here the device is NumPy."""
    return np.matmul(a, b)


class Template(Backend):
    """Replace NumPy arrays by whatever your device calls its memory."""

    name = "template"
    kernels = kernels
    priority = -1  # never chosen by itself; give a real device a positive number

    def devices(self) -> list[Device]:
        return [Device(self)]

    def upload(self, array: Array, device: Device) -> Array:
        return array.copy()

    def download(self, buffer: Array, spec: Spec) -> Array:
        return buffer.copy()


@hookimpl
def hal_backends() -> list[Backend]:
    """The devices that this package brings."""
    return [Template()]
