"""Planted faults: devices that are wrong in one known way each, with which the conformance suite itself is tested."""

from __future__ import annotations

import importlib
import pkgutil

from hal.testing.faults.fault import TWINS, Fault


def all_faults() -> dict[str, Fault]:
    """Every planted fault by its name, found by looking through the modules of this folder."""
    found: dict[str, Fault] = {}
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        for fault in getattr(importlib.import_module(module.name), "FAULTS", ()):
            assert fault.name not in found, f"two planted faults are called {fault.name}"
            found[fault.name] = fault
    return found


__all__ = ["TWINS", "Fault", "all_faults"]
