"""Half precision: decompositions that compute in float32 and round once at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hal import dtypes, ops

HALVES = (dtypes.float16, dtypes.bfloat16)


def widened(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(*tensors, **settings)`, computed in float32 where the first tensor has half precision.

    All tensors of half precision are cast to float32, and all float32 results to the type of the first tensor.
    """

    def decompose(*tensors: Any, **settings: Any) -> Any:
        half = tensors[0].dtype
        if half not in HALVES:
            return function(*tensors, **settings)
        wide = (ops.cast(x, dtype=dtypes.float32) if x.dtype in HALVES else x for x in tensors)
        result = function(*wide, **settings)
        if isinstance(result, tuple):
            return tuple(ops.cast(x, dtype=half) for x in result)
        return ops.cast(result, dtype=half)

    return decompose
