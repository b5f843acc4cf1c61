"""Kernels that are made for specs and settings: what `backend.prepare` asks of them, and what a plain call does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from hal.codegen.kernels.buffer import Buffer
from hal.codegen.kernels.runtime import Runtime
from hal.plugin import Op, Spec


class Prepared(ABC):
    """The kernel of an op, made once for each tuple of specs and settings."""

    def __init__(self, op: Op) -> None:
        self.op = op

    def __call__(self, *xs: Buffer, out: Any = None, **settings: Any) -> Any:
        specs = tuple(x.spec for x in xs)
        inferred = self.op.infer(*specs, **settings)
        outs = inferred if isinstance(inferred, tuple) else (inferred,)
        return self.prepare(xs[0].memory.runtime, specs, outs, settings)(*xs, out=out)

    @abstractmethod
    def prepare(
        self, runtime: Runtime, specs: tuple[Spec, ...], outs: tuple[Spec, ...], settings: Mapping[str, Any]
    ) -> Callable[..., Any]:
        """The function that is called with buffers of these specs."""
