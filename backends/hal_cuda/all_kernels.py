"""The kernel table of GPUs: the kernels of all C-like devices, and before them those of this folder."""

from __future__ import annotations

from hal.codegen.kernels import all_kernels
from hal.plugin import Kernels
from hal_cuda import convolution
from hal_cuda.table import kernels as own

kernels = Kernels()
kernels.update(all_kernels.kernels)
kernels.update(own)

__all__ = ["convolution", "kernels"]
