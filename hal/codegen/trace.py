"""What a decomposition does, as values: which ops, on which of whose results, with which constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hal.abstract import ABSTRACT, recording_calls
from hal.op import Op
from hal.recording import no_grad
from hal.spec import Spec


class Symbol:
    """One array of a decomposition.

    Attributes:
        spec: its shape and dtype.
        value: the number that it holds, for the constants that a decomposition brings; else None.
    """

    __slots__ = ("spec", "value")

    def __init__(self, spec: Spec, value: Any = None) -> None:
        self.spec = spec
        self.value = value


@dataclass(frozen=True, eq=False)
class TracedCall:
    """One op of a decomposition."""

    op: Op
    inputs: tuple[Symbol, ...]
    settings: dict[str, Any]
    outputs: tuple[Symbol, ...]


@dataclass(frozen=True, eq=False)
class Traced:
    """What a function does: its calls in order, between its inputs and outputs."""

    inputs: tuple[Symbol, ...]
    calls: tuple[TracedCall, ...]
    outputs: tuple[Symbol, ...]


def trace(op: Op, specs: tuple[Spec, ...], settings: dict[str, Any]) -> Traced:
    """The decomposition of a call, one level deep, found without running anything."""
    decompose = op.decompose
    assert decompose is not None
    return traced(lambda *xs: decompose(*xs, **settings), specs)


def traced(function: Callable[..., Any], specs: Sequence[Spec]) -> Traced:
    """Which ops a function of tensors calls on tensors of these specs, found without running anything."""
    from hal.tensor import CONSTANT, Tensor

    given = tuple(Tensor(None, s, ABSTRACT, CONSTANT) for s in specs)
    symbols: dict[int, Symbol] = {id(x): Symbol(x.spec) for x in given}
    inputs = tuple(symbols[id(x)] for x in given)

    def symbol(x: Tensor) -> Symbol:
        found = symbols.get(id(x))
        if found is None:
            found = symbols[id(x)] = Symbol(x.spec, x.storage.buffer)
        return found

    with recording_calls() as calls, no_grad():
        result = function(*given)
    made = []
    for call in calls:
        ins = tuple(symbol(x) for x in call.operands)
        made.append(TracedCall(call.op, ins, call.settings, tuple(symbol(x) for x in call.results)))
    outs = result if isinstance(result, tuple) else (result,)
    return Traced(inputs, tuple(made), tuple(symbol(x) for x in outs))
