"""The one kernel table that the files of this folder fill."""

from hal.plugin import Kernels

kernels = Kernels()
