"""The one table that the files of this folder register their kernels in."""

from hal.plugin import Kernels

kernels = Kernels()
