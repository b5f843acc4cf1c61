"""Rounding to whole numbers, element by element: the primitive floor, and ceil, trunc, round made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hal import ops
from hal.op import Array, Rng, Sample
from hal.ops.common import elementwise, numeric, odd, zero

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _whole(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """`function` for floats; integers are whole already, and would become floats in older NumPy."""

    def reference(x: Array) -> Array:
        return function(x) if x.dtype.kind == "f" else x.copy()

    return reference


def _of_floats(decompose: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`decompose` for floats; of integers, floor is a copy."""
    return lambda x: decompose(x) if x.dtype.is_floating else ops.floor(x)


def _trunc(x: Tensor) -> Tensor:
    return ops.where(ops.less(x, 0), ops.ceil(x), ops.floor(x))


def _round(x: Tensor) -> Tensor:
    size = ops.abs(x)
    below = ops.floor(size)
    rest = size - below  # exact, unlike size + 0.5
    even = 2 * ops.floor((below + 1) * 0.5)
    return odd(x, ops.where(ops.less(rest, 0.5), below, ops.where(ops.less(0.5, rest), below + 1, even)))


def _ties(rng: Rng) -> Iterator[Sample]:
    halves = np.arange(-12, 13, dtype=np.float32) * 0.5
    near = np.nextafter(np.array([0.5, -0.5, 1.5, 2.5, 1, -1], np.float32), np.float32(0))
    large = np.array([2**23 - 0.5, -(2**23) + 0.5, 2**24 - 1, 2**24 + 2, 5e9], np.float32)
    for x in (halves, near, large):
        yield Sample((x,), smooth=False)


_rounding = partial(elementwise, promote=numeric, domain=(-9.0, 9.0), extra=_ties, wide=False)

# fmt: off
floor = _rounding("floor", _whole(np.floor), zero, doc="The largest whole number that is not above x.")
ceil  = _rounding("ceil", _whole(np.ceil), zero, decompose=_of_floats(lambda x: -ops.floor(-x)),
                  doc="The smallest whole number that is not below x.")
trunc = _rounding("trunc", _whole(np.trunc), zero, decompose=_of_floats(_trunc),
                  doc="x without its fraction: rounded towards zero.")
round = _rounding("round", _whole(np.rint), zero, decompose=_of_floats(_round),
                  doc="The nearest whole number; of two, the even one.")
# fmt: on
