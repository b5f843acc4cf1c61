"""Imports every kernel file, so that the table is whole."""

from __future__ import annotations

import importlib
import pkgutil

import hal_opencl
from hal_opencl.table import kernels

for _module in pkgutil.iter_modules(hal_opencl.__path__):
    importlib.import_module(f"hal_opencl.{_module.name}")

__all__ = ["kernels"]
