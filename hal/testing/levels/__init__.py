"""The levels of the conformance suite, one file each. Plugins add theirs through the hook `hal_conformance`."""

from __future__ import annotations

import importlib
import pkgutil

from hal.registry import registry
from hal.testing.case import Level


def all_levels() -> list[Level]:
    """Every level, in the order in which they are run."""
    found: list[Level] = []
    for module in pkgutil.iter_modules(__path__, __name__ + "."):
        found.append(importlib.import_module(module.name).LEVEL)
    return sorted([*found, *registry().levels()], key=lambda level: (level.order, level.name))
