"""Imports every kernel file, so that the table is whole."""

from __future__ import annotations

import importlib
import pkgutil

import hal_cpu
from hal_cpu.table import kernels

for _module in pkgutil.iter_modules(hal_cpu.__path__):
    importlib.import_module(f"hal_cpu.{_module.name}")

__all__ = ["kernels"]
