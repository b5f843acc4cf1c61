"""Whole layers in one go of the vector unit: the op's own formula, computed in float32 instead of float64.

What an op means stands in its record, in NumPy. Given float32, those formulas compute in float32, which is what the
vector unit does; where one needs float64 to be accurate enough, the op is decomposed into simpler ones instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hal import ops
from hal.plugin import Array, Op
from hal_systolic.table import kernels

DECOMPOSED: frozenset[str] = frozenset()


def by_record(op: Op) -> Callable[..., Any]:
    """The formula of the op's record, whose results have memory of their own."""

    def kernel(*inputs: Array, **settings: Any) -> Any:
        result = op.reference(*inputs, **settings)
        if isinstance(result, tuple):
            return tuple(_own(np.asarray(r), inputs) for r in result)
        return _own(np.asarray(result), inputs)

    return kernel


def _own(result: Array, inputs: tuple[Array, ...]) -> Array:
    shared = not result.flags.writeable or any(np.may_share_memory(result, x) for x in inputs)
    return result.copy() if shared else result


for _name, _op in ops.TABLE.items():
    if _op not in kernels and _op.kind != "contraction" and _name not in DECOMPOSED:
        kernels.register(_op)(by_record(_op))
