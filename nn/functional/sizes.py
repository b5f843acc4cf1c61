"""Settings per spatial axis: one number for all axes, or one for each, as a tuple that ops take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import hal
from hal import ops
from hal.errors import SettingError
from hal.op import Array
from hal.tensor import Tensor

Size = int | Sequence[int]


def spread(who: str, name: str, value: Size, n: int) -> tuple[int, ...]:
    """`value` for each of `n` axes: (3,) and 3 both mean 3 everywhere.

    Raises:
        SettingError: not one whole number, or `n` of them.
    """
    sizes: tuple[Any, ...] = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    sizes = sizes * n if len(sizes) == 1 else sizes
    if len(sizes) != n or not all(isinstance(s, int) for s in sizes):
        raise SettingError(f"{who} needs {name}= as a whole number or {n} of them, got {value!r}")
    return sizes


def constant(array: Array, like: Tensor) -> Tensor:
    """What sizes alone say, as a tensor where `like` is; on the CPU in the array's memory, which nobody changes."""
    return hal.from_numpy(array).to(like.device)


def on_batches(x: Tensor, n: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    """`function` of `x`; a single image of `n` spatial axes gets a batch axis for it, and loses it afterwards."""
    if x.ndim != n + 1:
        return function(x)
    y = function(ops.reshape(x, shape=(1, *x.shape)))
    return ops.reshape(y, shape=y.shape[1:])
