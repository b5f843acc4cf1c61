"""Where the inputs of a traced graph come from on each call, and the function that collects them and runs a plan."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hal.device import Device
from hal.graph.graph import Graph, Value
from hal.op import Array
from hal.plugin import Buffer
from hal.spec import Spec
from hal.tensor import Storage, Tensor
from hal.transfer import contents, move


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
NEW = Argument, Computed, Earlier  # in each call
Enter = Callable[[Sequence[Tensor]], Sequence[Any]]


def entrance(run: Callable[..., Sequence[Any]], sources: Sequence[Source], graph: Graph | None = None) -> Enter:
    """A function of the tensors among the arguments that runs a plan on what its inputs are now: one expression.

    Args:
        graph: of the plan, if it may take inputs elsewhere than on the device of their tensors (`Graph.away`). State is
            there already; what is new in each call is brought there.
    """
    scope: dict[str, Any] = {"run": run}
    codes = []
    for i, source in enumerate(sources):
        if graph is None or graph.inputs[i] not in graph.away:
            codes.append(source.code(str(i), scope))
        elif isinstance(source, State):
            codes.append(f"{source.code(str(i), scope)}.buffer")
        else:
            codes.append(_brought(source, graph.inputs[i], graph.away[graph.inputs[i]], str(i), scope))
    enter: Enter = eval(f"lambda leaves: run({', '.join(codes)})", scope)
    return enter


def _brought(source: Source, taken: Value, home: Device, name: str, scope: dict[str, Any]) -> str:
    """An expression for the buffer of what is new in each call, on the device where a plan takes it."""
    target, spec = taken.device, taken.spec
    if isinstance(source, Computed):
        return replace(source, device=target).code(name, scope)
    if isinstance(source, Argument):
        scope[f"b{name}"] = _Bringing(spec, target)
        return f"b{name}(leaves[{source.index}])"
    scope[f"b{name}"] = lambda buffer: move(buffer, spec, home, target)
    return f"b{name}({source.code(name, scope)})"


class _Bringing:
    """Brings an argument to a device. It stays there for as long as the same tensor comes again, unchanged."""

    def __init__(self, spec: Spec, target: Device) -> None:
        self.spec, self.target = spec, target
        self._there: tuple[weakref.ref[Tensor], tuple[object, ...], Buffer] | None = None

    def __call__(self, x: Tensor) -> Buffer:
        storage = x.storage
        state = storage, storage.version, storage.generation, storage.shown
        if self._there is not None and self._there[0]() is x and self._there[1] == state:
            return self._there[2]
        buffer, where = contents(x)
        if where is self.target:
            return buffer
        buffer = move(buffer, self.spec, where, self.target)
        self._there = None if storage.shown else (weakref.ref(x, self._forget), state, buffer)
        return buffer

    def _forget(self, _: object) -> None:
        self._there = None
