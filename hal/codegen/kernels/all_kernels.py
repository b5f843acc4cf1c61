"""Imports every kernel file, so that the table is whole."""

from __future__ import annotations

import importlib
import pkgutil

import hal.codegen.kernels
from hal.codegen.kernels.table import kernels

for _module in pkgutil.iter_modules(hal.codegen.kernels.__path__):
    importlib.import_module(f"hal.codegen.kernels.{_module.name}")

__all__ = ["kernels"]
