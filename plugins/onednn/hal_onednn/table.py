"""The one table that the files of this package register their kernels in, and what all of them ask of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hal.plugin import Kernels, Op, Spec
from hal_onednn.api import OneDnnError
from hal_onednn.finding import available, status


class _Table(Kernels):
    """Kernels that say which library they use, or why they do not."""

    def describe(self) -> str:
        found = status()
        return f"for {len(self)} ops in float32, by {found}" if found.available else str(found)


kernels = _Table()


def possible(make: Callable[..., Any]) -> Callable[..., bool]:
    """A condition for a kernel: float32 throughout, nothing empty, oneDNN there, and `make(*specs, **settings)` works.

    `make` makes the primitives and keeps them, so that asking is not lost work.
    """

    def when(*specs: Spec, **settings: Any) -> bool:
        if any(s.dtype.name != "float32" or s.size == 0 for s in specs) or not available():
            return False
        try:
            return make(*(s.shape for s in specs), **settings) is not None
        except OneDnnError:  # it has nothing for this: the backend's own kernel takes it
            return False

    return when


def register(op: Op, make: Callable[..., Any], kernel: Callable[..., Any]) -> None:
    """Put a kernel into the table for the calls that `make` has a primitive for."""
    kernels.register(op, when=possible(make), out=True)(kernel)
