"""Layers, losses, optimizers and data, with torch's names, defaults and state dictionaries; on any device of hal."""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from hal import source

if TYPE_CHECKING:
    from nn import amp as amp
    from nn import data as data
    from nn import fitting as fitting
    from nn import models as models
    from nn.everything import *  # noqa: F403  # its names are this package's
    from nn.fitting import fit as fit

# What brings threads, archives and the network is imported when it is asked for.
ON_FIRST_USE = {
    "amp": "nn.amp",
    "data": "nn.data",
    "fit": "nn.fitting:fit",
    "fitting": "nn.fitting",
    "models": "nn.models",
}

source.INTERNAL.add("nn")  # reports name the user's line, not one of ours


def __getattr__(name: str) -> Any:
    """Import it all when the first name is asked for: hal finds its plugin in here, and needs no layer for that."""
    if name in ON_FIRST_USE:
        module, _, attribute = ON_FIRST_USE[name].partition(":")
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module 'nn' has no attribute {name!r}")
    if importlib.util.find_spec(f"nn.{name}") is not None:  # a file imports another: not all of them
        return importlib.import_module(f"nn.{name}")
    everything = importlib.import_module("nn.everything")
    offered = {known: getattr(everything, known) for known in everything.__all__}
    globals().update(offered, __all__=everything.__all__)
    if name not in globals():
        raise AttributeError(f"module 'nn' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *importlib.import_module("nn.everything").__all__, *ON_FIRST_USE})
