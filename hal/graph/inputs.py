"""Where the inputs of a traced graph come from on each call, and the function that collects them and runs a plan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from hal.device import Device
from hal.graph.graph import Value
from hal.op import Array
from hal.plugin import Buffer
from hal.spec import Spec
from hal.tensor import Storage, Tensor


@dataclass(frozen=True)
class Argument:
    """The tensor at this place among those of the arguments."""

    index: int

    def same(self, other: Source) -> bool:
        """Whether another trace means the same."""
        return isinstance(other, Argument) and other.index == self.index

    def code(self, name: str, scope: dict[str, Any]) -> str:
        """An expression for the buffer; what it needs is put into `scope` under names that end in `name`."""
        return f"leaves[{self.index}].buffer"


@dataclass(frozen=True)
class State:
    """Memory that was there before: parameters, statistics, the state of optimizers, anything a closure holds."""

    storage: Storage

    def same(self, other: Source) -> bool:
        """Whether another trace means the same."""
        return isinstance(other, State) and other.storage is self.storage

    def code(self, name: str, scope: dict[str, Any]) -> str:
        """An expression for the buffer."""
        scope[f"s{name}"] = self.storage
        return f"s{name}.buffer"


@dataclass(frozen=True)
class GradientOf:
    """The `.grad` that a leaf has when the call begins: of a tensor, or of the argument at a place."""

    leaf: Tensor | int

    def same(self, other: Source) -> bool:
        """Whether another trace means the same."""
        if not isinstance(other, GradientOf):
            return False
        if isinstance(self.leaf, int) and isinstance(other.leaf, int):
            return self.leaf == other.leaf
        return other.leaf is self.leaf

    def code(self, name: str, scope: dict[str, Any]) -> str:
        """An expression for the buffer."""
        if isinstance(self.leaf, int):
            return f"leaves[{self.leaf}]._grad.buffer"
        scope[f"t{name}"] = self.leaf
        return f"t{name}._grad.buffer"


@dataclass(frozen=True)
class Computed:
    """A number (or a few) that Python computes anew for each call."""

    compute: Callable[[], Array]
    spec: Spec
    device: Device

    def same(self, other: Source) -> bool:
        """Whether another trace means the same; functions cannot be compared, but what they give has a spec."""
        return isinstance(other, Computed) and other.spec is self.spec and other.device is self.device

    def code(self, name: str, scope: dict[str, Any]) -> str:
        """An expression for the buffer."""
        scope |= {f"f{name}": self.compute, f"u{name}": self.device.backend.upload, f"d{name}": self.device}
        return f"u{name}(f{name}(), d{name})"


@dataclass(frozen=True)
class Earlier:
    """What an earlier part of the same call computed, for a function that is split.

    Attributes:
        kept: where it is found. Nothing else that is found there lies in its memory.
    """

    kept: dict[Value, Buffer]
    value: Value

    def same(self, other: Source) -> bool:
        """Whether another trace means the same."""
        return isinstance(other, Earlier) and other.value is self.value

    def code(self, name: str, scope: dict[str, Any]) -> str:
        """An expression for the buffer."""
        scope |= {f"k{name}": self.kept, f"v{name}": self.value}
        return f"k{name}[v{name}]"


Source = Argument | State | GradientOf | Computed | Earlier
Enter = Callable[[Sequence[Tensor]], Sequence[Any]]


def entrance(run: Callable[..., Sequence[Any]], sources: Sequence[Source], waiting: Collection[int] = ()) -> Enter:
    """A function of the tensors among the arguments that runs a plan on what its inputs are now: one expression.

    Args:
        waiting: which sources are state that waits elsewhere than on its device.
    """
    scope: dict[str, Any] = {"run": run}
    codes = [source.code(str(i), scope) for i, source in enumerate(sources)]
    given = ", ".join(f"{code}.buffer" if i in waiting else code for i, code in enumerate(codes))
    enter: Enter = eval(f"lambda leaves: run({given})", scope)
    return enter
