"""All that the author of a backend or plugin imports: the backend contract, the kernel table, and the hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from hal import dtypes
from hal.dtypes import DType
from hal.errors import DeviceError
from hal.op import Array, Op
from hal.spec import Spec

if TYPE_CHECKING:
    import click

    from hal.device import Device

API_VERSION = 1
Buffer = Any  # a backend's own business: nothing outside it looks inside
Function = TypeVar("Function", bound=Callable[..., Any])
When = Callable[..., bool]

hookspec = pluggy.HookspecMarker("hal")
hookimpl = pluggy.HookimplMarker("hal")


@dataclass(frozen=True, eq=False)
class Kernel:
    """One way to run an op: `run(*buffers, **settings)` gives a buffer (a tuple for several results).

    Attributes:
        when: asked about specs and settings before anything runs; None means always.
        out: whether `run` can be given `out=buffer` to write into (a tuple for several results).
    """

    run: Callable[..., Any]
    when: When | None = None
    out: bool = False


class Kernels:
    """A table of kernels by op. The one registered last is asked first."""

    def __init__(self) -> None:
        self._by_op: dict[str, list[Kernel]] = {}

    def register(self, op: Op, *, when: When | None = None, out: bool = False) -> Callable[[Function], Function]:
        """Decorate `kernel(*buffers, **settings) -> buffer` as a way to run `op`.

        Args:
            when: `when(*specs, **settings)`, true where the kernel can take the call. Default: everywhere.
            out: the kernel also takes `out=`, a buffer of the result's spec that it writes into and returns.
        """

        def keep(function: Function) -> Function:
            self._by_op.setdefault(op.name, []).insert(0, Kernel(function, when, out))
            return function

        return keep

    def find(self, op: Op, specs: Iterable[Spec], settings: Mapping[str, Any]) -> Kernel | None:
        """The kernel that takes this call, if there is one."""
        for kernel in self._by_op.get(op.name, ()):
            if kernel.when is None or kernel.when(*specs, **settings):
                return kernel
        return None

    def update(self, other: Kernels) -> None:
        """Put the kernels of `other` before those that are here."""
        for name, added in other._by_op.items():
            self._by_op[name] = [*added, *self._by_op.get(name, ())]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_op)

    def __len__(self) -> int:
        return len(self._by_op)

    def __contains__(self, op: Op) -> bool:
        return op.name in self._by_op
