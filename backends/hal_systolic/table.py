"""The one table that the kernel files of this folder register in."""

from hal.plugin import Kernels

kernels = Kernels()
