"""Layers, losses, optimizers and data, with torch's names, defaults and state dictionaries; on any device of hal."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from hal import source

if TYPE_CHECKING:
    from nn.everything import *  # noqa: F403

ON_FIRST_USE = ("data", "fitting", "models")  # data brings threads, archives and the network

source.INTERNAL.add("nn")  # reports name the user's line, not one of ours


def __getattr__(name: str) -> Any:
    """Import it all when the first name is asked for: hal finds its plugin in here, and needs no layer for that."""
    if name in ON_FIRST_USE:
        return importlib.import_module(f"nn.{name}")
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module 'nn' has no attribute {name!r}")
    everything = importlib.import_module("nn.everything")
    offered = {known: getattr(everything, known) for known in everything.__all__}
    globals().update(offered, __all__=everything.__all__)
    if name not in globals():
        raise AttributeError(f"module 'nn' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *importlib.import_module("nn.everything").__all__, *ON_FIRST_USE})
