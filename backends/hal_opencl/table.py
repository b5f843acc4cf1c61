"""The kernel table of this backend, which the kernel files fill."""

from hal.plugin import Kernels

kernels = Kernels()
