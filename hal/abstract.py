"""Abstract evaluation: which ops a function would run, on tensors that have a spec and no contents.

Also the device on which the saved inputs of a gradient seem to live after they were changed in place: their
shapes may still be read, and reading their contents is an error that names the change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hal.device import Device
from hal.errors import GradientError
from hal.op import Op
from hal.plugin import Backend, Kernels
from hal.spec import Spec

if TYPE_CHECKING:
    from hal.tensor import Tensor


@dataclass(frozen=True)
class Call:
    """One op that would run: its inputs' specs, its settings, and the spec (or specs) of its result.

    Attributes:
        operands, results: the abstract tensors themselves, by which data can be followed from call to call.
    """

    op: Op
    inputs: tuple[Spec, ...]
    settings: dict[str, Any]
    result: Spec | tuple[Spec, ...]
    operands: tuple[Tensor, ...] = ()
    results: tuple[Tensor, ...] = ()


class _AbstractBackend(Backend):
    name = "abstract"
    kernels = Kernels()

    def devices(self) -> list[Device]:
        return [ABSTRACT]


ABSTRACT = Device(_AbstractBackend())
_local = threading.local()


@contextmanager
def recording_calls() -> Iterator[list[Call]]:
    """The calls on abstract tensors that are made inside the block."""
    outer = getattr(_local, "calls", None)
    calls: list[Call] = []
    _local.calls = calls
    try:
        yield calls
    finally:
        _local.calls = outer


def evaluate(op: Op, args: tuple[Tensor, ...], outs: tuple[Spec, ...], single: bool, settings: dict[str, Any]) -> Any:
    """Note the call, and answer with tensors that have no contents."""
    from hal.tensor import CONSTANT, Tensor

    calls = getattr(_local, "calls", None)
    results = tuple(Tensor(None, spec, ABSTRACT, CONSTANT) for spec in outs)
    if calls is not None:
        specs = tuple(x.spec for x in args)
        calls.append(Call(op, specs, settings, outs[0] if single else outs, args, results))
    return results[0] if single else results


class StaleBackend(Backend):
    """Where a saved tensor seems to live whose contents were changed after it was saved."""

    name = "stale"
    kernels = Kernels()

    def __init__(self, message: str) -> None:
        self.message = message

    def refuse(self, args: tuple[Tensor, ...]) -> None:
        """Raise the error, which names the op that saved the tensor and the cure."""
        raise GradientError(self.message)
