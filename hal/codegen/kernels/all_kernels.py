"""Imports every kernel file, so that the table is whole."""

from __future__ import annotations

import importlib
import pkgutil

import hal.codegen.kernels
from hal.codegen.kernels import attention
from hal.codegen.kernels.table import kernels
from hal.plugin import Kernels

for _module in pkgutil.iter_modules(hal.codegen.kernels.__path__):
    importlib.import_module(f"hal.codegen.kernels.{_module.name}")

for_groups = Kernels()  # of devices whose work items share memory: GPUs
for_groups.update(kernels)
for_groups.update(attention.kernels)

__all__ = ["for_groups", "kernels"]
