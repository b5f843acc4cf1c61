"""Faults in the gradients of ops, which plugins bring: on a device that does nothing wrong by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hal import dtypes, ops
from hal.op import Grads, in_norm
from hal.ops.common import elementwise, unbroadcast
from hal.testing.fake import Fake
from hal.testing.faults.fault import Fault

if TYPE_CHECKING:
    from hal.tensor import Tensor

_BRIEF: dict[str, Any] = {"kinds": ("float",), "tolerance": in_norm(4)}

_cube = elementwise(
    "planted_cube", lambda x: x * x * x, lambda g, y, x: g * x * x * 3.0, decompose=lambda x: x * x * x,
    doc="x to the third power.", **_BRIEF,
)  # fmt: skip
_sum = elementwise(
    "planted_sum", lambda a, b: a + 2 * b, (lambda g, y, a, b: g, lambda g, y, a, b: g * 2.0),
    decompose=lambda a, b: a + b * 2.0, doc="a + 2 b.", **_BRIEF,
)  # fmt: skip
_sine = elementwise(
    "planted_sine", np.sin, lambda g, y, x: g * ops.cos(x), decompose=lambda x: ops.sin(x),
    doc="The sine.", **_BRIEF,
)  # fmt: skip


def _doubled(g: Tensor, out: Tensor, x: Tensor) -> Grads:
    return (g * x * x * 6.0,)


def _unsummed(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> Grads:
    return g, g * 2.0


def _exchanged(g: Tensor, out: Tensor, a: Tensor, b: Tensor) -> Grads:
    return unbroadcast(g * 2.0, a.shape), unbroadcast(g, b.shape)


def _cut_off(g: Tensor, out: Tensor, x: Tensor) -> Grads:
    return (g * ops.cos(x.detach()),)


def _forgotten(g: Tensor, out: Tensor, x: Tensor) -> Grads:
    return (ops.cos(x),)


def _plain(name: str) -> Any:
    return lambda: Fake(name, dtypes=dtypes.ALL)


FAULTS = (
    Fault("gradient-doubled", "The gradient of a plugin's op is twice what it should be.",
          _plain("gradient-doubled"), "gradients/planted_cube/*",
          added=(replace(_cube, gradient=_doubled),), sound=(_cube,)),
    Fault("broadcast-not-summed", "The gradient of a broadcast input has the shape of the result.",
          _plain("broadcast-not-summed"), "gradients/planted_sum/*", says="the gradient is", status="crash",
          added=(replace(_sum, gradient=_unsummed),), sound=(_sum,)),
    Fault("gradients-exchanged", "Two inputs get each other's gradient.",
          _plain("gradients-exchanged"), "gradients/planted_sum/*",
          added=(replace(_sum, gradient=_exchanged),), sound=(_sum,)),
    Fault("gradient-of-the-result-forgotten", "A gradient does not multiply by the one that comes in.",
          _plain("gradient-of-the-result-forgotten"), "gradients/planted_sine/*",
          added=(replace(_sine, gradient=_forgotten),), sound=(_sine,)),
    Fault("second-derivative-cut-off", "A gradient is taken of detached inputs: the second derivative is zero.",
          _plain("second-derivative-cut-off"), "curvature/planted_sine/*",
          added=(replace(_sine, gradient=_cut_off),), sound=(_sine,)),
)  # fmt: skip
