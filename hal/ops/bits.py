"""Bits of integers, element by element: the primitives bitwise_and and bitwise_right_shift, and what is made of them.

The others follow from arithmetic modulo 2**bits, in which integers wrap around.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hal import dtypes, ops
from hal.ops.common import BITS, INTEGERS, elementwise

if TYPE_CHECKING:
    from hal.tensor import Tensor


def _or(a: Tensor, b: Tensor) -> Tensor:
    return ops.logical_or(a, b) if a.dtype is dtypes.bool_ else a + b - ops.bitwise_and(a, b)


def _xor(a: Tensor, b: Tensor) -> Tensor:
    return ops.not_equal(a, b) if a.dtype is dtypes.bool_ else a + b - 2 * ops.bitwise_and(a, b)


def _invert(x: Tensor) -> Tensor:
    return ops.logical_not(x) if x.dtype is dtypes.bool_ else -x - 1


_bitwise = partial(elementwise, kinds=BITS, whole=(-128, 128), wide=False, no_gradient="the result is an integer")
_shift = partial(_bitwise, kinds=INTEGERS, whole=((-128, 128), (0, 8)))

# fmt: off
bitwise_and         = _bitwise("bitwise_and", np.bitwise_and, doc="The bits that both a and b have.")
bitwise_or          = _bitwise("bitwise_or", np.bitwise_or, decompose=_or, doc="The bits that a or b has.")
bitwise_xor         = _bitwise("bitwise_xor", np.bitwise_xor, decompose=_xor, doc="The bits that one of a and b has.")
bitwise_invert      = _bitwise("bitwise_invert", np.invert, decompose=_invert, doc="The bits that x has not.")
bitwise_left_shift  = _shift("bitwise_left_shift", np.left_shift, decompose=lambda a, b: a * ops.pow(2, b),
                             doc="The bits of a moved up by b places, 0 <= b < the number of bits.")
bitwise_right_shift = _shift("bitwise_right_shift", np.right_shift,
                             doc="The bits of a moved down by b places, 0 <= b < the number of bits; the sign stays.")
# fmt: on
