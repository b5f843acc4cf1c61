"""The one table that the files of this package register their kernels in."""

from hal.plugin import Kernels

kernels = Kernels()
