"""The kernel table of GPUs: the kernels of all C-like devices, and those that NVIDIA's libraries or GPUs do better."""

from hal.codegen.kernels import all_kernels
from hal.plugin import Kernels

kernels = Kernels()
kernels.update(all_kernels.kernels)
